"""The search for better indices: never worse, same bits, blind to what is not sent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from semantic.codec import Codec, load_codec, picture_to_tensor
from semantic.codec_config import read_recipe
from semantic.demo_photos import load_photo
from semantic.index_frame import IndexFrameError
from semantic.index_search import search_indices
from semantic.metrics import psnr_db
from semantic.model import CodecModel

QUERY = "Is this a cat?"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec(device="cpu")


@pytest.fixture(scope="module", params=["segments", "stages"])
def model(request: pytest.FixtureRequest) -> CodecModel:
    """An untrained codec: the search needs no trained weights to hold what it promises."""
    config = read_recipe(Path("tiny")).codec
    if request.param == "stages":
        settings = config.model_dump()
        settings["quantizer"] |= {"residual": True, "segment_length": None}
        for layer in settings["layers"]:
            layer["stages"] = 2
        config = type(config).model_validate(settings)
    torch.manual_seed(0)
    return CodecModel(config).eval()


@pytest.fixture(scope="module")
def pictures(model: CodecModel) -> Tensor:
    side = model.config.image_size
    return torch.cat([picture_to_tensor(load_photo(name, side)) for name in ("chelsea", "coffee")])


@torch.no_grad()
def start(model: CodecModel, pictures: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Features, the encoder's indices, and masks of a picture of which everything is sent."""
    features = model.features(pictures, [QUERY] * len(pictures))
    indices = model.nearest(features)
    return features, indices, [torch.zeros_like(layer, dtype=torch.bool) for layer in indices]


@torch.no_grad()
def errors(
    model: CodecModel,
    indices: list[Tensor],
    unsent: list[Tensor],
    pictures: Tensor,
    weights: Tensor,
) -> Tensor:
    """Weighted squared error of each picture as a receiver decodes it."""
    return ((model.decode(indices, unsent) - pictures).square() * weights).mean((1, 2, 3))


def even(pictures: Tensor) -> Tensor:
    return torch.ones_like(pictures[:, :1])


def test_no_step_leaves_what_the_encoder_says(model: CodecModel, pictures: Tensor) -> None:
    features, indices, unsent = start(model, pictures)
    found = search_indices(model, pictures, features, unsent, even(pictures), 0)
    for layer, expected in zip(found, indices, strict=True):
        assert torch.equal(layer, expected)


@pytest.mark.parametrize("steps", [1, 8])
def test_every_picture_gets_better_or_stays(
    model: CodecModel, pictures: Tensor, steps: int
) -> None:
    features, indices, unsent = start(model, pictures)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = search_indices(model, pictures, features, unsent, even(pictures), steps)
    was, now = (errors(model, some, unsent, pictures, even(pictures)) for some in (indices, found))
    assert bool((now <= was).all())
    if steps > 1:
        assert bool((now < was).all())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(value.grad is None for value in model.parameters())


def test_pictures_of_a_batch_do_not_meet(model: CodecModel, pictures: Tensor) -> None:
    features, _, unsent = start(model, pictures)
    together = search_indices(model, pictures, features, unsent, even(pictures), 4)
    for number in range(2):
        one = slice(number, number + 1)
        alone = search_indices(
            model,
            pictures[one],
            [layer[one] for layer in features],
            [mask[one] for mask in unsent],
            even(pictures[one]),
            4,
        )
        for layer, expected in zip(alone, together, strict=True):
            # Sums in another order may tip a tie.
            assert (layer != expected[one]).float().mean() < 0.02


def test_what_is_not_sent_stays_out_of_it(model: CodecModel, pictures: Tensor) -> None:
    features, indices, unsent = start(model, pictures)
    unsent[0][:, ::2] = True
    found = search_indices(model, pictures, features, unsent, even(pictures), 8)
    was, now = (errors(model, some, unsent, pictures, even(pictures)) for some in (indices, found))
    assert bool((now < was).all())
    scrambled = [torch.where(mask, 0, layer) for mask, layer in zip(unsent, found, strict=True)]
    torch.testing.assert_close(errors(model, scrambled, unsent, pictures, even(pictures)), now)


def test_shipped_codec_gains_at_every_rate_and_no_bits(codec: Codec) -> None:
    for rate in (codec.geometries[0], codec.rate(0.25), codec.geometry):
        gains = []
        for name in ("chelsea", "coffee", "flower"):
            photo = load_photo(name, codec.image_size)
            plain = codec.encode(photo, QUERY, rate=rate, focus=0 if rate.has_map else None)
            better = codec.encode(
                photo, QUERY, rate=rate, focus=0 if rate.has_map else None, search_steps=4
            )
            assert better.geometry == plain.geometry
            assert len(better.to_bits()) == len(plain.to_bits())
            if plain.levels is not None:
                np.testing.assert_array_equal(better.levels, plain.levels)
            gains.append(psnr_db(photo, codec.decode(better)) - psnr_db(photo, codec.decode(plain)))
        # Each at least as good (pixels of a shown picture are rounded); 0.8 to 1.3 dB measured.
        assert min(gains) > -0.02, (rate.bits_per_pixel, gains)
        assert np.mean(gains) > 0.5, (rate.bits_per_pixel, gains)


def test_the_question_decides_where_it_searches(codec: Codec) -> None:
    photo, rate = load_photo("chelsea", codec.image_size), codec.rate(0.45)
    shown = {
        focus: np.asarray(
            codec.decode(codec.encode(photo, QUERY, rate=rate, focus=focus, search_steps=4)), float
        )
        for focus in (0.0, 0.95)
    }
    importance = codec._importance(picture_to_tensor(photo), QUERY, 10, 1.0).reshape(10, 10)
    asked = np.kron(importance, np.ones((16, 16))) > np.quantile(importance, 0.8)
    error = {
        focus: np.square(picture - np.asarray(photo, float)).mean(2)
        for focus, picture in shown.items()
    }
    assert error[0.95][asked].mean() < error[0.0][asked].mean()
    assert error[0.95][~asked].mean() > error[0.0][~asked].mean()


def test_a_number_of_steps_that_is_none(codec: Codec) -> None:
    with pytest.raises(IndexFrameError, match="search_steps: expected 0 or more, got -1"):
        codec.encode(load_photo("chelsea", 160), QUERY, search_steps=-1)
