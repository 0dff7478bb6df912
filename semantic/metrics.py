"""Picture quality: PSNR and MS-SSIM of 8-bit RGB pictures."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

# Wang, Simoncelli and Bovik (2003) weight five scales 0.0448, 0.2856, 0.3001, 0.2363, 0.1333. Five
# need more than 160 pixels with an 11-pixel window, so the fifth is left out and the rest divided by
# their sum, 0.8668.
MS_SSIM_WEIGHTS = (0.05168, 0.32949, 0.34621, 0.27261)
_WINDOW = 11
MS_SSIM_SIDE = _WINDOW << (len(MS_SSIM_WEIGHTS) - 1)

Picture = Image.Image | NDArray[np.uint8]


def psnr_db(a: Picture, b: Picture) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and colours, peak 255.

    Args:
        a: RGB picture or uint8 ``[h, w, 3]``.
        b: picture of the same size.

    Returns:
        ``10 log10(255^2 / mean squared error)``; infinity for identical pictures.
    """
    first, second = _pixels(a, b)
    error = float(np.mean((first - second) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ms_ssim(a: Picture, b: Picture) -> float:
    """Multi-scale structural similarity over four scales, mean of the three colours.

    Four instead of the usual five scales, because the pictures are small; weights
    :data:`MS_SSIM_WEIGHTS`, Gaussian window of 11 pixels (sigma 1.5). Negative terms count as zero.

    Args:
        a: RGB picture or uint8 ``[h, w, 3]``, at least :data:`MS_SSIM_SIDE` pixels wide and high, 88.
        b: picture of the same size.

    Returns:
        0..1, 1 for identical pictures.
    """
    first, second = _pixels(a, b)
    if min(first.shape[:2]) < MS_SSIM_SIDE:
        raise ValueError(
            f"MS-SSIM needs at least {MS_SSIM_SIDE}x{MS_SSIM_SIDE} pixels, got {first.shape[:2]}"
        )
    product = np.ones(3)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        luminance, contrast = _ssim_terms(first, second)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        term = (luminance * contrast if last else contrast).mean(axis=(0, 1))
        product *= np.maximum(term, 0) ** weight
        first, second = _halve(first), _halve(second)
    return float(product.mean())


def _ssim_terms(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Luminance term and contrast-structure term of SSIM at every window position, per colour."""
    stable_1, stable_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _smooth(a), _smooth(b)
    variance_a = _smooth(a * a) - mean_a**2
    variance_b = _smooth(b * b) - mean_b**2
    covariance = _smooth(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + stable_1) / (mean_a**2 + mean_b**2 + stable_1)
    contrast = (2 * covariance + stable_2) / (variance_a + variance_b + stable_2)
    return luminance, contrast


def _smooth(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian window of 11 pixels, sigma 1.5, only where it fits: ``[h-10, w-10, 3]``."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    for axis in (0, 1):
        x = sliding_window_view(x, _WINDOW, axis=axis) @ window
    return x


def _halve(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 2x2 pixels; an odd last row or column is left out."""
    height, width = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    even = x[:height, :width]
    return 0.25 * (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2])


def _pixels(a: Picture, b: Picture) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both pictures as float64 ``[h, w, 3]``, 0..255."""
    arrays = []
    for picture in (a, b):
        if isinstance(picture, Image.Image):
            picture = np.asarray(picture.convert("RGB"))
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"expected uint8 [h, w, 3], got {picture.dtype} {picture.shape}")
        arrays.append(picture.astype(np.float64))
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(f"pictures of different sizes: {arrays[0].shape} and {arrays[1].shape}")
    return arrays[0], arrays[1]
