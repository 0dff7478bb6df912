"""The CDF 9/7 wavelet of a colour picture, three levels, folded to 192 channels at stride 8.

Where the detail layer starts: at step 0 of its training it is this wavelet, the one of JPEG 2000
(ISO/IEC 15444-1, annex F), and nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

STRIDE = 8

# Channels of every group, coarse to fine, luma before chroma. The finer luma bands come in two halves, by
# the parity of a coefficient's place in its 8x8 block, so that the second half sees its neighbours.
GROUPS = (1, 2, 3, 6, 6, 6, 24, 24, 24, 96)
CHANNELS = sum(GROUPS)
# Bands down to 4 pixels: what a base picture knows anything about.
COARSE_CHANNELS = sum(GROUPS[:7])

# Lifting steps of the 9/7 filter pair (Daubechies and Sweldens 1998).
_PREDICT_1, _UPDATE_1 = -1.586134342, -0.05298011854
_PREDICT_2, _UPDATE_2 = 0.8829110762, 0.4435068522
_LOW, _HIGH = 1.149604, 0.869865  # gains that make the transform nearly orthonormal

# ITU-R BT.601 with full range; its inverse is taken of these numbers.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_GREY = 128.0


def picture_to_bands(picture: Tensor) -> Tensor:
    """Wavelet coefficients of RGB pictures.

    Args:
        picture: float32 ``[B, 3, H, W]``, 0..255; sides are multiples of 8.

    Returns:
        float32 ``[B, 192, H/8, W/8]``, channels in the order of :data:`GROUPS`.
    """
    matrix = picture.new_tensor(_TO_YCC)
    ycc = torch.einsum("ij,bjhw->bihw", matrix, picture)
    ycc[:, 0] -= _GREY
    bands: list[list[Tensor]] = []
    for planes in (ycc[:, :1], ycc[:, 1:]):
        low, fine = _analyse(planes)
        low, middle = _analyse(low)
        low, coarse = _analyse(low)
        bands.append(
            [
                low,
                coarse,
                functional.pixel_unshuffle(middle, 2),
                functional.pixel_unshuffle(fine, 4),
            ]
        )
    luma, chroma = bands
    first2, second2 = _by_parity(luma[2], 2)
    first4, second4 = _by_parity(luma[3], 4)
    parts = [luma[0], chroma[0], luma[1], chroma[1], first2, second2, chroma[2]]
    return torch.cat([*parts, first4, second4, chroma[3]], 1)


def bands_to_picture(bands: Tensor) -> Tensor:
    """Inverse of :func:`picture_to_bands`; not clipped to 0..255."""
    low_y, low_c, coarse_y, coarse_c, first2, second2, middle_c, first4, second4, fine_c = (
        bands.split(GROUPS, 1)
    )
    middle_y, fine_y = _join_parity(first2, second2, 2), _join_parity(first4, second4, 4)
    planes = []
    for low, coarse, middle, fine in (
        (low_y, coarse_y, middle_y, fine_y),
        (low_c, coarse_c, middle_c, fine_c),
    ):
        half = _synthesise(_synthesise(low, coarse), functional.pixel_shuffle(middle, 2))
        planes.append(_synthesise(half, functional.pixel_shuffle(fine, 4)))
    ycc = torch.cat(planes, 1)
    ycc[:, 0] += _GREY
    inverse = torch.linalg.inv(torch.tensor(_TO_YCC, dtype=torch.float64)).to(ycc)
    return torch.einsum("ij,bjhw->bihw", inverse, ycc)


def _parity_order(channels: int, fold: int) -> tuple[list[int], list[int]]:
    """Channels of a folded band at even places of the block, and at odd ones."""
    places = [(c, (c % fold**2) // fold + c % fold) for c in range(channels)]
    return [c for c, place in places if place % 2 == 0], [c for c, place in places if place % 2]


def _by_parity(folded: Tensor, fold: int) -> tuple[Tensor, Tensor]:
    even, odd = _parity_order(folded.shape[1], fold)
    return folded[:, even], folded[:, odd]


def _join_parity(first: Tensor, second: Tensor, fold: int) -> Tensor:
    even, odd = _parity_order(2 * first.shape[1], fold)
    order = [0] * (2 * first.shape[1])
    for number, channel in enumerate([*even, *odd]):
        order[channel] = number
    return torch.cat([first, second], 1)[:, order]


def _next(v: Tensor) -> Tensor:
    """Each value's right neighbour; the last is its own (symmetric extension)."""
    return torch.cat([v[..., 1:], v[..., -1:]], -1)


def _previous(v: Tensor) -> Tensor:
    return torch.cat([v[..., :1], v[..., :-1]], -1)


def _lift(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    x = x.transpose(axis, -1)
    even, odd = x[..., 0::2], x[..., 1::2]
    odd = odd + _PREDICT_1 * (even + _next(even))
    even = even + _UPDATE_1 * (odd + _previous(odd))
    odd = odd + _PREDICT_2 * (even + _next(even))
    even = even + _UPDATE_2 * (odd + _previous(odd))
    return (even * _LOW).transpose(axis, -1), (odd * _HIGH).transpose(axis, -1)


def _unlift(low: Tensor, high: Tensor, axis: int) -> Tensor:
    even, odd = low.transpose(axis, -1) / _LOW, high.transpose(axis, -1) / _HIGH
    even = even - _UPDATE_2 * (odd + _previous(odd))
    odd = odd - _PREDICT_2 * (even + _next(even))
    even = even - _UPDATE_1 * (odd + _previous(odd))
    odd = odd - _PREDICT_1 * (even + _next(even))
    return torch.stack([even, odd], -1).flatten(-2).transpose(axis, -1)


def _analyse(planes: Tensor) -> tuple[Tensor, Tensor]:
    """One level: ``[B, C, H, W]`` -> low ``[B, C, H/2, W/2]``, three high bands ``[B, 3C, H/2, W/2]``."""
    low, high = _lift(planes, 3)
    (low_low, low_high), (high_low, high_high) = _lift(low, 2), _lift(high, 2)
    return low_low, torch.cat([low_high, high_low, high_high], 1)


def _synthesise(low: Tensor, high: Tensor) -> Tensor:
    """Inverse of :func:`_analyse`."""
    low_high, high_low, high_high = high.chunk(3, 1)
    return _unlift(_unlift(low, low_high, 2), _unlift(high_low, high_high, 2), 3)
