"""Pictures from files: what a user may send becomes RGB as it is meant to look, all else one clear error.

The one door to picture files: only the formats named here are tried, whatever a file is called (Pillow would
run Ghostscript on PostScript), and nothing is guessed from the pixels. Grey levels are scaled by what the
file says of itself, colours go through its profile, orientation follows the tag.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

_LOG = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "JPEG2000", "GIF", "BMP", "PPM")
# Smaller than this there is nothing to crop and enlarge that a user could recognise.
MINIMUM_SIDE = 16
# Read from the header, before any pixel is decoded: a small file can announce gigabytes.
MAXIMUM_PIXELS = 64_000_000
# Larger photos are made smaller as they are read, to sides of at least so much: more than any codec sends.
_ENOUGH = 2048

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# TIFF tags that say what a sample's values mean.
_BITS, _PHOTOMETRIC, _LARGEST, _SAMPLE_FORMAT, _LARGEST_ANY = 258, 262, 281, 339, 341
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_WHITE_IS_ZERO = 0
# Float samples are 0 to 1 up to rounding.
_FLOAT_ROUNDING = 1e-3
# The gamma of sRGB as PNG files state it; files that say this need no change.
_SRGB_GAMMA, _GAMMA_ROUNDING = 1 / 2.2, 0.01
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


class PictureError(ValueError):
    """A picture file that is missing, not a picture, damaged, too small or too large."""


def load_picture(path: Path, side: int) -> Image.Image:
    """Read a picture (:func:`read_picture`), crop it to its centre square and resize it to ``side``."""
    return fit_square(read_picture(path), side)


def read_picture(path: Path, max_pixels: int = MAXIMUM_PIXELS) -> Image.Image:
    """Read a picture as RGB (sRGB), in its own shape.

    Args:
        path: a file in one of :data:`FORMATS`; of an animation the first frame counts. Orientation and
            colour profile are applied, transparency is laid on white, deep levels are scaled to 8 bit.
        max_pixels: as the file's header announces them.

    Raises:
        PictureError: naming the file and what was expected.
    """
    path = Path(path)
    if path.is_dir():
        raise PictureError(f"{path}: is a folder, expected a picture file")
    try:
        with warnings.catch_warnings():
            # Pillow warns about large headers and odd metadata; the checks here answer for both.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_formats()) as picture:
                _check_size(path, *picture.size, max_pixels)
                return to_rgb(_loaded(picture))
    except FileNotFoundError:
        raise PictureError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise PictureError(f"{path}: {_what_it_is(path)}") from None
    except Image.DecompressionBombError:
        raise PictureError(
            f"{path}: too large, expected at most {max_pixels // 10**6} million pixels"
        ) from None
    except PictureError as error:
        text = str(error)
        raise PictureError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except Exception as error:  # noqa: BLE001 (decoders of damaged files raise anything)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{path}: damaged picture ({reason[:200]})") from None


def picture_endings() -> frozenset[str]:
    """Endings of the names of files that :func:`read_picture` may read, in small letters."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(ending for ending, kind in known if kind in FORMATS)


def _formats() -> list[str]:
    Image.init()
    return [one for one in FORMATS if one in Image.OPEN]


def _what_it_is(path: Path) -> str:
    """Why a file is none of the formats."""
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "is HEIC, which is not read: save it as JPEG or PNG"
    return "not a picture, expected PNG, JPEG, WebP, TIFF, ..."


def _loaded(picture: Image.Image) -> Image.Image:
    """The pixels, of a large photo no more than are needed."""
    picture.draft(picture.mode, (_ENOUGH, _ENOUGH))  # JPEG decodes to a fraction of its size
    picture.load()
    factor = min(picture.size) // _ENOUGH
    if factor < 2:
        return picture
    smaller = picture.reduce(factor)
    smaller.info = dict(picture.info)
    if hasattr(picture, "tag_v2"):
        smaller.tag_v2 = picture.tag_v2  # type: ignore[attr-defined]
    return smaller


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    """Raise PictureError for a header that announces too few or too many pixels."""
    if min(width, height) < MINIMUM_SIDE:
        raise PictureError(
            f"{path}: {width}x{height} pixels, expected at least {MINIMUM_SIDE}x{MINIMUM_SIDE}"
        )
    if width * height > max_pixels:
        raise PictureError(
            f"{path}: {width}x{height} pixels, expected at most {max_pixels // 10**6} million"
        )


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB: turned, on white where transparent, levels and colours by the file's own words.

    Raises:
        PictureError: samples whose scale the file does not say.
    """
    turn = _TURNS.get(_exif(picture).get(_ORIENTATION, 1))
    if picture.mode.startswith("I") or picture.mode == "F":
        info = picture.info
        picture = _to_eight_bit(picture)
        picture.info.update(info)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        colours = _to_srgb(layered.convert("RGB"), picture.info).convert("RGBA")
        colours.putalpha(layered.getchannel("A"))
        rgb = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), colours).convert(
            "RGB"
        )
    else:
        rgb = _to_srgb(picture, picture.info)
    done = rgb if turn is None else rgb.transpose(turn)
    done.info = {}  # what it said has been done
    return done


def _exif(picture: Image.Image) -> Mapping[int, Any]:
    """The tags of a picture; none where they are damaged."""
    try:
        exif = picture.getexif()
        return {_ORIENTATION: exif[_ORIENTATION]} if _ORIENTATION in exif else {}
    except Exception:  # noqa: BLE001 (whatever a damaged directory makes Pillow raise)
        return {}


def _to_srgb(picture: Image.Image, info: Mapping[Any, Any]) -> Image.Image:
    """Colours through the embedded profile, or the gamma that a PNG states: mode RGB."""
    profile = info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" in ImageCms.getProfileDescription(source).lower():
                return picture.convert("RGB")
            return ImageCms.profileToProfile(
                picture,
                source,
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
            ) or picture.convert("RGB")
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            _LOG.warning("colour profile not used: %s", " ".join(str(error).split())[:200])
            return picture.convert("RGB")
    rgb = picture.convert("RGB")
    gamma = info.get("gamma")
    if not isinstance(gamma, float) or "srgb" in info or not 0.1 < gamma < 10:
        return rgb
    if abs(gamma - _SRGB_GAMMA) < _GAMMA_ROUNDING:
        return rgb
    table = np.rint(255 * (np.arange(256) / 255) ** (_SRGB_GAMMA / gamma)).astype(int).tolist()
    return rgb.point(table * 3)


def _to_eight_bit(picture: Image.Image) -> Image.Image:
    """Grey levels of more than 8 bits -> mode L.

    Of a TIFF its tags say what the largest value is; all other formats fill 16 bits.
    """
    levels = np.asarray(picture, np.float64)
    tags: Mapping[int, Any] = getattr(picture, "tag_v2", {})
    kind = _first(tags, _SAMPLE_FORMAT, _FLOAT if picture.mode == "F" else _UNSIGNED)
    largest = _largest(tags, levels, kind)
    shares = np.clip(levels / largest, 0, 1)
    if tags and _first(tags, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        shares = 1 - shares
    return Image.fromarray(np.rint(255 * shares).astype(np.uint8))


def _largest(tags: Mapping[int, Any], levels: NDArray[np.float64], kind: int) -> float:
    """The value that stands for white."""
    stated = _first(tags, _LARGEST_ANY, _first(tags, _LARGEST, None))
    if not np.isfinite(levels).all():
        raise PictureError("samples that are no numbers")
    if stated is not None and stated > 0:
        return float(stated)
    if kind == _SIGNED:
        raise PictureError("signed samples, and no tag MaxSampleValue that says what white is")
    if kind == _FLOAT:
        if levels.min() < -_FLOAT_ROUNDING or levels.max() > 1 + _FLOAT_ROUNDING:
            raise PictureError(
                f"float samples from {levels.min():g} to {levels.max():g}: expected 0 to 1, or the tag "
                "SMaxSampleValue that says what white is"
            )
        return 1.0
    bits = _first(tags, _BITS, 16)
    if bits > 16:
        raise PictureError(
            f"{bits} bits a sample: expected at most 16, or the tag MaxSampleValue that says what white is"
        )
    return float(2**bits - 1)


def _first(tags: Mapping[int, Any], tag: int, default: Any) -> Any:
    """The first value of a TIFF tag that may have one for each channel."""
    value = tags.get(tag, default)
    return value[0] if isinstance(value, tuple) and value else value


def fit_square(picture: Image.Image, side: int) -> Image.Image:
    """Centre square of a picture, resized to ``side`` x ``side`` (Lanczos, antialiased)."""
    if picture.size == (side, side):
        return picture.copy()
    return ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)
