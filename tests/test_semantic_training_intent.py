"""Which pictures of a training batch the judge looks at."""

from __future__ import annotations

import pytest
import torch

from semantic.codec_config import IntentConfig
from semantic.model import IndexDamage
from semantic.training_intent import order_of_interest


def test_sparse_pictures_come_first_in_every_second_step() -> None:
    received = torch.tensor([0.5, 1.0, 0.1, 0.5])
    minding = IntentConfig(weight=1.0, sparse_gain=2.0)
    assert order_of_interest(minding, received, 4) == [2, 0, 3, 1]
    assert order_of_interest(minding, received, 5) == [0, 1, 2, 3]
    assert order_of_interest(IntentConfig(weight=1.0), received, 4) == [0, 1, 2, 3]


def test_received_share_counts_all_layers() -> None:
    erased = [torch.zeros(2, 3, 2, dtype=torch.bool), torch.zeros(2, 1, 4, dtype=torch.bool)]
    erased[0][1] = True
    erased[1][1, 0, 0] = True
    replaced = [torch.full(mask.shape, -1) for mask in erased]
    received = IndexDamage(erased, replaced).received
    assert received.tolist() == pytest.approx([1.0, 0.3])
