"""The seven freely licensed photos of the demo and the tests.

They lie inside the scikit-image and scikit-learn wheels; nothing is fetched from the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from semantic.pictures import PictureError, load_picture


@dataclass(frozen=True)
class DemoPhoto:
    """One photo: where it lies, who made it and under which licence it may be used.

    Args:
        package: Python package that carries the file.
        file: path inside that package.
        credit: author or source, and licence, as stated by the package.
        questions: two different questions to ask about it.
    """

    package: str
    file: str
    credit: str
    questions: tuple[str, str]


_PHOTOS = {
    "astronaut": DemoPhoto(
        "skimage",
        "data/astronaut.png",
        "NASA Great Images database, public domain (Eileen Collins)",
        ("Is there a flag?", "Is there a space shuttle?"),
    ),
    "chelsea": DemoPhoto(
        "skimage",
        "data/chelsea.png",
        "Stefan van der Walt, CC0 (the cat Chelsea)",
        ("Is this a cat?", "What colour are the eyes?"),
    ),
    "coffee": DemoPhoto(
        "skimage",
        "data/coffee.png",
        "Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0",
        ("Is there a cup of coffee?", "Is there a spoon?"),
    ),
    "rocket": DemoPhoto(
        "skimage",
        "data/rocket.jpg",
        "SpaceX, public domain",
        ("Is a rocket standing on the launch pad?", "Is the sky dark?"),
    ),
    "motorcycle_left": DemoPhoto(
        "skimage",
        "data/motorcycle_left.png",
        "Middlebury 2014 stereo benchmark, D. Scharstein et al., as shipped by scikit-image",
        ("Is there a motorcycle?", "What stands behind the motorcycle?"),
    ),
    "china": DemoPhoto(
        "sklearn",
        "datasets/images/china.jpg",
        "danielbuechele (flickr.com/photos/danielbuechele/6061409035), CC BY 2.0",
        ("Is this a temple?", "Is the sky blue?"),
    ),
    "flower": DemoPhoto(
        "sklearn",
        "datasets/images/flower.jpg",
        "vultilion (flickr.com/photos/vultilion/6056698931), CC BY 2.0",
        ("Is this a flower?", "What is in the background?"),
    ),
}


def photo_names() -> tuple[str, ...]:
    """Names of the seven photos."""
    return tuple(_PHOTOS)


def describe_photo(name: str) -> DemoPhoto:
    """What is known about a photo; KeyError for another name."""
    return _PHOTOS[name]


def photo_path(name: str) -> Path:
    """The file of a photo.

    Raises:
        PictureError: the package that carries it is not installed.
    """
    photo = _PHOTOS[name]
    spec = find_spec(photo.package)
    if spec is None or spec.origin is None:
        raise PictureError(f"{name}: Python package {photo.package} is not installed")
    return Path(spec.origin).parent / photo.file


def load_photo(name: str, side: int) -> Image.Image:
    """A photo as RGB, centre-cropped and resized to ``side`` x ``side``."""
    return load_picture(photo_path(name), side)
