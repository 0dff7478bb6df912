"""PSNR and MS-SSIM against other implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim as reference_ms_ssim
from skimage.metrics import peak_signal_noise_ratio

from semantic.demo_photos import load_photo
from semantic.metrics import MS_SSIM_WEIGHTS, ms_ssim, psnr_db


def _noisy(picture: np.ndarray, spread: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, spread, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_identical_pictures() -> None:
    photo = load_photo("coffee", 160)
    assert psnr_db(photo, photo) == math.inf
    assert ms_ssim(photo, photo) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("spread", [2, 20, 80])
def test_against_other_implementations(spread: float) -> None:
    # 200 pixels: the reference refuses 160 whatever the number of scales.
    photo = np.asarray(load_photo("astronaut", 200))
    noisy = _noisy(photo, spread)
    assert psnr_db(photo, noisy) == pytest.approx(peak_signal_noise_ratio(photo, noisy), abs=1e-6)
    tensors = [
        torch.from_numpy(p.transpose(2, 0, 1).astype(np.float64))[None] for p in (photo, noisy)
    ]
    expected = reference_ms_ssim(*tensors, data_range=255, weights=list(MS_SSIM_WEIGHTS))
    assert ms_ssim(photo, noisy) == pytest.approx(float(expected), abs=1e-5)


def test_weights_sum_to_one() -> None:
    assert sum(MS_SSIM_WEIGHTS) == pytest.approx(1.0, abs=1e-4)


def test_wrong_pictures_are_refused() -> None:
    photo = load_photo("coffee", 160)
    with pytest.raises(ValueError, match="different sizes"):
        psnr_db(photo, load_photo("coffee", 80))
    with pytest.raises(ValueError, match="at least 88x88"):
        ms_ssim(load_photo("coffee", 80), load_photo("coffee", 80))
    with pytest.raises(ValueError, match="uint8"):
        psnr_db(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)))
