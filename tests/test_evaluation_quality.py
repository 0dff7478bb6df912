"""What is measured of a picture: zero for the same one, more for a worse one, and by the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from semantic.codec.vq_codec import picture_to_tensor
from semantic.demo_photos import load_photo
from semantic.evaluation.quality import FeatureDistance, feature_tower

SIDE = 96


@pytest.fixture(scope="module")
def distance() -> FeatureDistance:
    return FeatureDistance(SIDE)


def tensors(*pictures: Image.Image) -> Tensor:
    return torch.cat([picture_to_tensor(one) for one in pictures])


def test_none_to_itself_and_more_the_worse(distance: FeatureDistance) -> None:
    photo = load_photo("chelsea", SIDE)
    shown = [photo, *(photo.filter(ImageFilter.GaussianBlur(r)) for r in (0.5, 1, 2, 4))]
    shown.append(load_photo("china", SIDE))
    found = distance(tensors(*[photo] * len(shown)), tensors(*shown))
    assert found[0] == 0
    assert found == sorted(found)
    assert 0.02 < found[1] < found[-1] < 4
    swapped = distance(tensors(*shown), tensors(*[photo] * len(shown)))
    assert found == pytest.approx(swapped, abs=1e-5)


def test_it_is_the_formula(distance: FeatureDistance) -> None:
    """Cosines by hand: the squared distance of unit vectors is 2 - 2 cos."""
    one, other = load_photo("chelsea", SIDE), load_photo("coffee", SIDE)
    maps = [
        distance._backbone.image_features(picture_to_tensor(picture)) for picture in (one, other)
    ]
    expected = []
    for stride in range(5):
        a, b = (found[stride][0].numpy().astype(np.float64) for found in maps)
        assert a.shape[1] == SIDE // 2 ** (stride + 1)
        norms = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
        expected.append(float((2 - 2 * (a * b).sum(0) / norms).mean()))
    (found,) = distance(tensors(one), tensors(other))
    assert found == pytest.approx(np.mean(expected), rel=1e-4)


def test_its_tower_is_the_judges_and_has_a_name() -> None:
    assert "efficientnet_lite2" in feature_tower()
    assert "lpips" not in feature_tower().lower()
