"""Fused convolutions: the same results, bit for bit where torch computes in the same layout."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from semantic.folding import put_inputs_first
from semantic.fused_convolution import FusedConvolution, can_fuse, fuse_convolutions
from semantic.torchvision_operators import declare_missing_operators


def _photo_like(side: int, channels: int = 3, batch: int = 1) -> Tensor:
    values = torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(side))
    return values.contiguous(memory_format=torch.channels_last)


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.Identity(),
        nn.LeakyReLU(0.1),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU6(),
        nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1),
        nn.Conv2d(8, 4, 1),
        nn.GELU(),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    ).eval()


@torch.no_grad()
def test_what_follows_a_convolution_is_fused_and_nothing_changes(network: nn.Sequential) -> None:
    x = _photo_like(16, batch=2)
    wanted = network(x)
    assert fuse_convolutions(network) == 4  # not the one that reflects
    assert [type(layer) for layer in network].count(nn.Identity) == 3
    assert isinstance(network[7], nn.GELU)
    assert isinstance(network[8], nn.Conv2d)
    assert can_fuse(x)
    assert torch.equal(network(x), wanted)
    assert fuse_convolutions(network) == 0


@torch.no_grad()
@pytest.mark.parametrize("side", [160, 96, 75])
def test_a_tower_that_pads_as_tensorflow_says_the_same(side: int) -> None:
    declare_missing_operators()
    import timm
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    tower = timm.create_model("tf_efficientnet_lite0", num_classes=0, global_pool="").eval()
    x = _photo_like(side)
    wanted = tower(x)
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in tower.modules())
    assert fuse_convolutions(tower, same=Conv2dSame) == convolutions
    torch.testing.assert_close(tower(x), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    # A class that nobody has named keeps its own padding.
    other = timm.create_model("tf_efficientnet_lite0", num_classes=0, global_pool="").eval()
    padded = sum(type(layer) is Conv2dSame for layer in other.modules())
    assert fuse_convolutions(other) == convolutions - padded > 0


def test_gradients_and_half_precision_go_through_the_layers_themselves(
    network: nn.Sequential,
) -> None:
    x = _photo_like(16).requires_grad_()
    network(x).square().sum().backward()
    assert x.grad is not None
    wanted, x.grad = x.grad, None
    fuse_convolutions(network)
    assert not can_fuse(x)
    network(x).square().sum().backward()
    torch.testing.assert_close(x.grad, wanted)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not can_fuse(x)
        assert network(x).dtype == torch.bfloat16


@torch.no_grad()
def test_copies_and_moves_lay_weights_out_anew(network: nn.Sequential) -> None:
    fuse_convolutions(network)
    x = _photo_like(16)
    wanted = network(x)
    assert torch.equal(copy.deepcopy(network)(x), wanted)
    first = network[0]
    assert isinstance(first, FusedConvolution)
    first.convolution.weight.mul_(2)
    network.to(torch.float64).to(torch.float32)
    assert not torch.equal(network(x), wanted)


def test_an_odd_padding_and_a_dilated_kernel_are_refused() -> None:
    convolution = nn.Conv2d(1, 1, 2, dilation=3)
    fused = FusedConvolution(convolution, nn.Identity(), same=True)
    with torch.no_grad(), pytest.raises(ValueError, match="no middle"):
        fused(_photo_like(8, 1))


def test_an_activation_that_is_not_known_is_refused() -> None:
    with pytest.raises(TypeError, match="GELU"):
        FusedConvolution(nn.Conv2d(1, 1, 1), nn.GELU())


@torch.no_grad()
def test_linear_layers_keep_their_shapes_and_results() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 8))
    words = torch.randn(1, 9, 24)
    wanted = network(words)
    put_inputs_first(network)
    assert network[0].weight.shape == (48, 24)
    assert network[0].weight.T.is_contiguous()
    torch.testing.assert_close(network(words), wanted)
