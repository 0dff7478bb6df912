"""Folding of batch normalisation: the same network up to rounding."""

from __future__ import annotations

import torch
from torch import nn

from semantic.folding import fold_batch_norms
from semantic.torchvision_operators import declare_missing_operators


def _restless(network: nn.Module) -> nn.Module:
    """Statistics as training leaves them: nothing is zero or one."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
    return network.eval()


@torch.no_grad()
def test_a_tower_says_the_same_without_its_normalisations() -> None:
    declare_missing_operators()
    import timm

    network = _restless(timm.create_model("tf_efficientnet_lite0", num_classes=0, global_pool=""))
    picture = torch.rand(2, 3, 64, 64)
    wanted = network(picture)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert fold_batch_norms(network) == norms == 49
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(picture), wanted, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_bias_before_the_normalisation_is_kept() -> None:
    network = _restless(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    picture = torch.rand(1, 3, 8, 8)
    wanted = network(picture)
    assert fold_batch_norms(network) == 1
    torch.testing.assert_close(network(picture), wanted, rtol=1e-5, atol=1e-6)


def test_a_normalisation_without_convolution_stays() -> None:
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)).eval()
    assert fold_batch_norms(network) == 0
    assert isinstance(network[1], nn.BatchNorm2d)
