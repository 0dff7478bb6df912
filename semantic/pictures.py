"""Pictures from files: any picture Pillow reads becomes RGB, anything else one clear error."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Smaller than this there is nothing to crop and enlarge that a user could recognise.
MINIMUM_SIDE = 16
# Read from the header, before any pixel is decoded: a small file can announce gigabytes.
MAXIMUM_PIXELS = 64_000_000


class PictureError(ValueError):
    """A picture file that is missing, not a picture, damaged, too small or too large."""


def load_picture(path: Path, side: int) -> Image.Image:
    """Read a picture (:func:`read_picture`), crop it to its centre square and resize it to ``side``."""
    return fit_square(read_picture(path), side)


def read_picture(path: Path) -> Image.Image:
    """Read a picture as RGB, in its own shape.

    Args:
        path: any file Pillow reads; of an animation the first frame counts. EXIF orientation is
            applied, transparency is laid on white, 16-bit levels are scaled to 8 bit.

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
            with Image.open(path) as picture:
                _check_size(path, *picture.size)
                picture.load()
                return to_rgb(picture)
    except FileNotFoundError:
        raise PictureError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise PictureError(f"{path}: not a picture, expected PNG, JPEG, WebP, TIFF, ...") from None
    except Image.DecompressionBombError:
        raise PictureError(
            f"{path}: too large, expected at most {MAXIMUM_PIXELS // 10**6} million pixels"
        ) from None
    except PictureError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, IndexError) as error:
        # Pillow's format readers answer damaged files with any of these.
        raise PictureError(f"{path}: damaged picture ({error})") from None


def _check_size(path: Path, width: int, height: int) -> None:
    """Raise PictureError for a header that announces too few or too many pixels."""
    if min(width, height) < MINIMUM_SIDE:
        raise PictureError(
            f"{path}: {width}x{height} pixels, expected at least {MINIMUM_SIDE}x{MINIMUM_SIDE}"
        )
    if width * height > MAXIMUM_PIXELS:
        raise PictureError(
            f"{path}: {width}x{height} pixels, expected at most {MAXIMUM_PIXELS // 10**6} million"
        )


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB: orientation applied, transparency on white, 16 bits scaled to 8."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _to_eight_bit(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        picture = Image.alpha_composite(white, layered)
    return picture.convert("RGB")


def _to_eight_bit(picture: Image.Image) -> Image.Image:
    """Grey levels of more than 8 bits -> mode L.

    Integer modes hold 16-bit levels. Float pictures hold 0..1 or 0..255 by custom; the largest value
    tells which.
    """
    levels = np.asarray(picture, np.float64)
    levels = np.nan_to_num(levels, nan=0.0, posinf=255.0, neginf=0.0)
    if picture.mode == "F":
        scale = 255.0 if levels.max() <= 1.0 else 1.0
    else:
        scale = 255.0 / 65535.0
    return Image.fromarray(np.clip(np.rint(levels * scale), 0, 255).astype(np.uint8))


def fit_square(picture: Image.Image, side: int) -> Image.Image:
    """Centre square of a picture, resized to ``side`` x ``side`` (Lanczos, antialiased)."""
    if picture.size == (side, side):
        return picture.copy()
    return ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)
