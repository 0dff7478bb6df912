"""What asking gains and costs against not asking: where semantic.allocation.trusted_focus comes from.

    python -m benchmarks.trusted_focus FOLDER {even,odd}      # FOLDER as coco128: images/ and objects.jsonl

Per named object: PSNR inside its boxes when it is asked about, minus PSNR there when the bits follow nothing,
at the same bits; with the full focus, and with as much of it as the map's confidence allows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.bootstrap import PhotoMean
from benchmarks.named_objects import NamedRegion, askable, read_named_regions
from semantic.allocation import trusted_focus
from semantic.codec.loader import load_codec
from semantic.codec.settings import EncoderSettings
from semantic.codec.two_layer import FOCUS
from semantic.codec.vq_codec import picture_to_tensor
from semantic.codec_config import PackagedTowers, read_recipe
from semantic.relevance import RelevanceMapper, load_relevance

_GRID = 20
_BITS_PER_PIXEL = 0.3
# More than this nobody should lose by asking.
_MOST_LOST_DB = 0.5

Array = NDArray[np.float64]


class Measurement:
    """Codes photos with and without a question.

    Args:
        mapper: says how far a map is trusted.
    """

    def __init__(self, mapper: RelevanceMapper) -> None:
        self._mapper = mapper
        self._codec = load_codec("two_layer")
        self._unasked: tuple[Path, Array] | None = None

    def gains_db(self, region: NamedRegion) -> tuple[float, float]:
        """With full and with trusted focus, dB inside the region's boxes."""
        photo = self._codec.prepare(Image.open(region.file))
        if self._unasked is None or self._unasked[0] != region.file:
            self._unasked = region.file, self._errors(photo, region.question, 0)
        unasked = self._unasked[1]
        inside = region_mask(region, (photo.height, photo.width))
        found = self._mapper.find(picture_to_tensor(photo), [region.question], _GRID)
        gains = []
        for focus in (FOCUS, trusted_focus(FOCUS, float(found.confidence))):
            errors = self._errors(photo, region.question, focus) if focus else unasked
            gains.append(float(10 * np.log10(unasked[inside].mean() / errors[inside].mean())))
        return gains[0], gains[1]

    def _errors(self, photo: Image.Image, query: str, focus: float) -> Array:
        """Squared errors of all pixels, mean over colours: ``[height, width]``."""
        settings = EncoderSettings(bits_per_pixel=_BITS_PER_PIXEL, focus=focus)
        received = self._codec.decode(self._codec.encode(photo, query, settings))
        difference = np.asarray(photo, np.float64) - np.asarray(received, np.float64)
        errors: Array = np.square(difference).mean(-1)
        return errors


def region_mask(region: NamedRegion, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of a photo of this height and width lie in one of the boxes."""
    inside = np.zeros(size, np.bool_)
    for left, top, right, bottom in region.boxes:
        rows, columns = (
            slice(round(first * count), max(round(last * count), round(first * count) + 1))
            for first, last, count in ((top, bottom, size[0]), (left, right, size[1]))
        )
        inside[rows, columns] = True
    return inside


def main() -> None:
    """Print mean, worst and how many lose more than half a decibel."""
    folder, half = Path(sys.argv[1]), {"even": 0, "odd": 1}[sys.argv[2]]
    towers = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(towers, PackagedTowers)
    measurement = Measurement(load_relevance(towers))
    regions = [
        region
        for region in read_named_regions(folder)
        if region.photo % 2 == half and askable(region, _GRID)
    ]
    gains = np.array([measurement.gains_db(region) for region in regions])
    for name, values in zip(("full focus", "trusted focus"), gains.T, strict=True):
        mean = PhotoMean.of(values.tolist(), [region.photo for region in regions], 0)
        assert mean is not None
        low, high = mean.ci95
        print(
            f"{name}: {mean.mean:+.2f} dB ({low:+.2f} to {high:+.2f}), worst {values.min():+.2f}, "
            f"{int((values < -_MOST_LOST_DB).sum())} of {len(values)} lose more than {_MOST_LOST_DB} dB"
        )


if __name__ == "__main__":
    main()
