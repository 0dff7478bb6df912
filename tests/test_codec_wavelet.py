"""The wavelet against its definition: inverse, constant pictures, energy, where a detail shows up."""

from __future__ import annotations

import pytest
import torch

from semantic.codec.vq_codec import picture_to_tensor
from semantic.codec.wavelet import CHANNELS, GROUPS, bands_to_picture, picture_to_bands
from semantic.demo_photos import load_photo


@pytest.mark.parametrize("size", [(8, 8), (64, 96), (160, 160)])
def test_inverse(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    picture = torch.rand(2, 3, *size) * 255
    bands = picture_to_bands(picture)
    assert bands.shape == (2, CHANNELS, size[0] // 8, size[1] // 8)
    torch.testing.assert_close(bands_to_picture(bands), picture, atol=2e-3, rtol=0)


def test_a_grey_picture_is_its_mean_alone() -> None:
    bands = picture_to_bands(torch.full((1, 3, 32, 32), 200.0))
    assert float(bands[:, 1:].abs().max()) < 1e-3
    # Three levels each way double the mean: a nearly orthonormal transform.
    assert float(bands[0, 0].mean()) == pytest.approx(8 * (200 - 128), rel=0.02)


def test_energy_is_kept_nearly() -> None:
    """An error of a step anywhere costs about the same squared error of luma."""
    torch.manual_seed(1)
    grey = (torch.rand(1, 1, 64, 64) * 200 + 28).expand(1, 3, 64, 64)
    energy = float((grey[:, 0] - 128).square().sum())
    assert float(picture_to_bands(grey).square().sum()) == pytest.approx(energy, rel=0.1)


def test_groups_run_from_coarse_to_fine() -> None:
    photo = picture_to_tensor(load_photo("astronaut", 160)) * 255
    per_channel = picture_to_bands(photo).square().mean((0, 2, 3))
    luma = [per_channel.split(GROUPS)[group].mean() for group in (0, 2, 4, 7)]
    assert luma == sorted(luma, reverse=True)
    # The two halves of a band are alike, and their places interleave.
    assert float(luma[3]) == pytest.approx(float(per_channel.split(GROUPS)[8].mean()), rel=0.5)
