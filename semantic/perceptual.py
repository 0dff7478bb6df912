"""Quality as people see it, by measures of other families; needs the extra ``perceptual``."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


class MeasureError(RuntimeError):
    """A measure whose package is not installed."""


def check_installed() -> None:
    """Raise MeasureError where a package is missing; before what takes long."""
    try:
        import flip_evaluator  # noqa: F401
        import ssimulacra2  # noqa: F401
    except ImportError as error:
        raise MeasureError(
            f"{error.name} is not installed: pip install 'uoisc-air[perceptual]' brings it"
        ) from None


def ssimulacra2_score(source: Image.Image, picture: Image.Image) -> float:
    """SSIMULACRA 2.1 (Sneyers 2023): 100 for identical pictures, below 30 for bad ones.

    Args:
        source: RGB.
        picture: of the same size.
    """
    from ssimulacra2 import compute_ssimulacra2

    return float(compute_ssimulacra2(_file(source), _file(picture)))


def flip_error(source: Image.Image, picture: Image.Image) -> float:
    """Mean FLIP error (Andersson et al. 2020) at 67 pixels per degree: 0 for identical pictures, 1 at most.

    Args:
        source: RGB.
        picture: of the same size.
    """
    import flip_evaluator

    first, second = (np.asarray(p.convert("RGB"), np.float32) / 255 for p in (source, picture))
    _, mean, _ = flip_evaluator.evaluate(first, second, "LDR", applyMagma=False)
    return float(mean)


def _file(picture: Image.Image) -> io.BytesIO:
    data = io.BytesIO()
    picture.convert("RGB").save(data, "PNG")
    data.seek(0)
    return data
