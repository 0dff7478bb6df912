"""JPEG 2000 as a source coder (Pillow with OpenJPEG): the baseline that is compared at equal symbols.

Raw codestream without the JP2 container, irreversible 9/7 wavelet, one quality layer: what costs the
fewest bytes for a given quality.
"""

from __future__ import annotations

import io

from PIL import Image, features

# Compression ratios between which the search looks; a picture is 24 bits per pixel before.
_LOWEST_RATIO, _HIGHEST_RATIO = 1.0, 20_000.0
_SEARCH_STEPS = 14
# A damaged header may announce any size; nothing larger is decoded.
MAXIMUM_PIXELS = 64_000_000


class Jpeg2000Error(RuntimeError):
    """The picture cannot be coded as asked."""


def encode(picture: Image.Image, max_bytes: int) -> bytes:
    """The best codestream that is not larger than ``max_bytes``.

    Args:
        picture: any mode; coded as RGB.
        max_bytes: upper limit of the codestream's length.

    Returns:
        A raw JPEG 2000 codestream (``.j2k``).

    Raises:
        Jpeg2000Error: not even the coarsest codestream fits, or Pillow lacks JPEG 2000.
    """
    if not features.check("jpg_2000"):
        raise Jpeg2000Error("this Pillow was built without OpenJPEG; install the wheel from PyPI")
    rgb = picture.convert("RGB")
    best = _encode_at(rgb, _HIGHEST_RATIO)
    if len(best) > max_bytes:
        raise Jpeg2000Error(
            f"the smallest codestream of a {rgb.width}x{rgb.height} picture takes {len(best)} bytes, "
            f"{max_bytes} are allowed"
        )
    # Size falls with the ratio: bisect on its logarithm, keep the largest codestream that fits.
    low, high = _LOWEST_RATIO, _HIGHEST_RATIO
    for _ in range(_SEARCH_STEPS):
        ratio = (low * high) ** 0.5
        candidate = _encode_at(rgb, ratio)
        if len(candidate) > max_bytes:
            low = ratio
        else:
            high = ratio
            if len(candidate) >= len(best):
                best = candidate
    return best


def _encode_at(picture: Image.Image, ratio: float) -> bytes:
    """Codestream at a compression ratio (uncompressed size over compressed size)."""
    buffer = io.BytesIO()
    picture.save(
        buffer,
        "JPEG2000",
        no_jp2=True,
        irreversible=True,
        mct=1,
        quality_mode="rates",
        quality_layers=[ratio],
    )
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image | None:
    """Picture from a codestream, as far as it can be decoded.

    Args:
        data: any bytes. Some damage inside a codestream is concealed; a truncated one gives nothing,
            because Pillow runs OpenJPEG in its strict mode.

    Returns:
        An RGB picture, or None where nothing could be decoded. Never raises for damaged bytes.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as picture:
            if picture.width * picture.height > MAXIMUM_PIXELS:
                return None
            picture.load()
            return picture.convert("RGB")
    except Exception:  # noqa: BLE001
        # Pillow and OpenJPEG answer damaged bytes with many kinds of exception (OSError, ValueError,
        # SyntaxError, struct.error, MemoryError, DecompressionBombError, ...): all mean "no picture".
        return None
