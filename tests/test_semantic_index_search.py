"""The search for better indices: never worse, same bits, blind to what is not sent."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import at, rate_at
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from semantic.codec.settings import EncoderSettings
from semantic.codec.vq_codec import Codec, load_vq_codec, picture_to_tensor
from semantic.codec_config import read_recipe
from semantic.demo_photos import load_photo
from semantic.index_frame import IndexFrameError
from semantic.index_search import (
    LIKENESS,
    search_indices,
    squared_error,
    unlikeness,
)
from semantic.judge import RecognitionJudge
from semantic.metrics import psnr_db
from semantic.model import CodecModel

QUERY = "Is this a cat?"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_vq_codec(device="cpu")


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
def wrong(
    model: CodecModel,
    indices: list[Tensor],
    unsent: list[Tensor],
    pictures: Tensor,
    weights: Tensor,
    likeness: float,
) -> Tensor:
    """What is wrong with each decoded picture, not clipped, without the search's own code."""
    looked_up = zip(model.segment_quantizers, indices, unsent, strict=True)
    decoded = model.decoder([quantizer.lookup(*given) for quantizer, *given in looked_up])
    squared = ((decoded - pictures).square() * weights).mean((1, 2, 3))
    maps = [model.backbone.image_features(some) for some in (decoded.clamp(0, 1), pictures)]
    apart = sum((1 - F.cosine_similarity(maps[0][n], maps[1][n])).mean((1, 2)) for n in maps[0])
    return squared.log() + likeness * apart


def even(pictures: Tensor) -> Tensor:
    return torch.ones_like(pictures[:, :1])


def test_no_step_leaves_what_the_encoder_says(model: CodecModel, pictures: Tensor) -> None:
    features, indices, unsent = start(model, pictures)
    found = search_indices(model, pictures, features, unsent, even(pictures), 0)
    for layer, expected in zip(found, indices, strict=True):
        assert torch.equal(layer, expected)


@pytest.mark.parametrize("likeness", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 8])
def test_every_picture_gets_better_or_stays(
    model: CodecModel, pictures: Tensor, steps: int, likeness: float
) -> None:
    features, indices, unsent = start(model, pictures)
    parts = [model, model.backbone]
    before = [{name: value.clone() for name, value in part.state_dict().items()} for part in parts]
    found = search_indices(model, pictures, features, unsent, even(pictures), steps, likeness)
    was, now = (
        wrong(model, some, unsent, pictures, even(pictures), likeness) for some in (indices, found)
    )
    assert bool((now <= was).all())
    if steps > 1:
        assert bool((now < was).all())
    for part, saved in zip(parts, before, strict=True):
        for name, tensor in part.state_dict().items():
            assert torch.equal(tensor, saved[name]), name
        assert all(value.grad is None for value in part.parameters())


def test_what_is_wrong_against_numpy() -> None:
    random = np.random.default_rng(0)
    pictures, decoded = random.random((2, 2, 3, 8, 8))
    weights = random.random((2, 1, 8, 8))
    found = squared_error(*(torch.from_numpy(one) for one in (decoded, pictures, weights)))
    expected = [np.mean((decoded[n] - pictures[n]) ** 2 * weights[n]) for n in range(2)]
    np.testing.assert_allclose(found.numpy(), expected)

    maps = [random.normal(size=(2, 2, channels, side, side)) for channels, side in ((5, 4), (7, 2))]
    expected = np.zeros(2)
    for one, other in maps:
        side = one.shape[-1]
        for n in range(2):
            for y in range(side):
                for x in range(side):
                    a, b, part = one[n, :, y, x], other[n, :, y, x], 8 // side
                    place = weights[n, 0, part * y : part * (y + 1), part * x : part * (x + 1)]
                    apart = 1 - a @ b / np.sqrt((a @ a) * (b @ b))
                    expected[n] += apart * place.mean() / side**2
    found = unlikeness(
        [torch.from_numpy(one) for one, _ in maps],
        [torch.from_numpy(other) for _, other in maps],
        torch.from_numpy(weights),
    )
    np.testing.assert_allclose(found.numpy(), expected)


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
    was, now = (
        wrong(model, some, unsent, pictures, even(pictures), LIKENESS) for some in (indices, found)
    )
    assert bool((now < was).all())
    scrambled = [torch.where(mask, 0, layer) for mask, layer in zip(unsent, found, strict=True)]
    again = wrong(model, scrambled, unsent, pictures, even(pictures), LIKENESS)
    torch.testing.assert_close(again, now)


def test_shipped_codec_gains_at_every_rate_and_no_bits(codec: Codec) -> None:
    for rate in (codec.geometries[0], rate_at(codec, 0.25), codec.geometry):
        gains = []
        for name in ("chelsea", "coffee", "flower"):
            photo = load_photo(name, codec.image_size)
            plain = codec.encode(photo, QUERY, at(rate, focus=0 if rate.has_map else None))
            blind = 0 if rate.has_map else None
            searching = at(rate, focus=blind, search_steps=4, search_likeness=0)
            better = codec.encode(photo, QUERY, searching)
            assert better.geometry == plain.geometry
            assert len(better.to_bits()) == len(plain.to_bits())
            if plain.levels is not None:
                np.testing.assert_array_equal(better.levels, plain.levels)
            gains.append(psnr_db(photo, codec.decode(better)) - psnr_db(photo, codec.decode(plain)))
        # Each at least as good (pixels of a shown picture are rounded); 0.8 to 1.3 dB measured.
        assert min(gains) > -0.02, (rate.bits_per_pixel, gains)
        assert np.mean(gains) > 0.5, (rate.bits_per_pixel, gains)


def test_another_network_sees_the_likeness_too(codec: Codec) -> None:
    """What the codec's tower is pleased by pleases also one that had no say: it is no trick on the tower."""
    judge = RecognitionJudge(self_check=())
    rate = rate_at(codec, 0.1)
    photos = [
        load_photo(name, codec.image_size) for name in ("chelsea", "coffee", "flower", "rocket")
    ]

    def apart(pictures: list[Image.Image]) -> float:
        with torch.inference_mode():
            one, other = (
                judge._towers.image_features(judge._batch(some))[4] for some in (photos, pictures)
            )
        return float((1 - F.cosine_similarity(one, other)).mean())

    unlike, fidelity = [], []
    for steps, likeness in ((0, 0), (6, 0), (6, LIKENESS)):
        shown = [
            codec.decode(
                codec.encode(photo, QUERY, at(rate, search_steps=steps, search_likeness=likeness))
            )
            for photo in photos
        ]
        unlike.append(apart(shown))
        fidelity.append(np.mean([psnr_db(*pair) for pair in zip(photos, shown, strict=True)]))
    assert unlike[2] < 0.9 * min(unlike[:2]), unlike
    # Something is paid for it, but the picture is still nearer than what the encoder says.
    assert fidelity[0] < fidelity[2] < fidelity[1], fidelity


def test_towers_that_come_with_the_first_picture() -> None:
    late = load_vq_codec(device="cpu", towers=False)
    frame = late.encode(load_photo("chelsea", 160), QUERY, at(rate_at(late, 0.04), search_steps=1))
    assert frame.geometry == rate_at(late, 0.04)


def test_the_question_decides_where_it_searches(codec: Codec) -> None:
    photo, rate = load_photo("chelsea", codec.image_size), rate_at(codec, 0.45)
    shown = {
        focus: np.asarray(
            codec.decode(codec.encode(photo, QUERY, at(rate, focus=focus, search_steps=4))), float
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


@pytest.mark.parametrize("likeness", [-1.0, math.inf, math.nan])
def test_a_likeness_that_is_none(likeness: float) -> None:
    with pytest.raises(IndexFrameError, match="search_likeness: expected 0 or more"):
        EncoderSettings(search_steps=1, search_likeness=likeness)


def test_a_number_of_steps_that_is_none() -> None:
    with pytest.raises(IndexFrameError, match="search_steps: expected 0 or more, got -1"):
        EncoderSettings(search_steps=-1)
