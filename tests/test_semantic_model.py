"""The network as a whole: shapes, gradients, what damage does, the paper's structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from semantic.checkpoint import read_checkpoint, write_checkpoint
from semantic.codec_config import CodecConfig, FilmMode, Recipe, TrainingConfig, read_recipe
from semantic.decoder import PictureDecoder, decoder_sides
from semantic.discriminator import Adversary
from semantic.index_channel import draw_damage
from semantic.index_frame import FrameGeometry, IndexFrame
from semantic.intent_judge import intent_distances, load_intent_judge
from semantic.losses import add_adversarial, intent_terms, loss_terms
from semantic.model import CodecModel, IndexDamage


@pytest.fixture
def model() -> CodecModel:
    torch.manual_seed(0)
    return CodecModel(read_recipe(Path("tiny")).codec)


def _variant(*, film: FilmMode = "pooled", trainable: bool = False) -> CodecModel:
    """The tiny codec with another modulation, or with towers to be trained."""
    torch.manual_seed(0)
    data = read_recipe(Path("tiny")).codec.model_dump()
    data["film"] = film
    data["backbone"]["trainable"] = trainable
    return CodecModel(CodecConfig.model_validate(data))


def _forward(model: CodecModel, damage: IndexDamage | None = None) -> torch.Tensor:
    maps = model.backbone.image_features(torch.rand(3, 3, 32, 32))
    text = model.query_features(["a", "b", "c"])
    result = model(maps, text, damage=damage)
    loss: torch.Tensor = result.pictures.square().mean() + result.quantization_loss
    return loss


def test_decoder_follows_the_equation_from_the_last_layer_up(model: CodecModel) -> None:
    decoder = model.decoder
    layers = [torch.randn(2, 16, 16) for _ in range(2)]
    maps = [layer.transpose(1, 2).reshape(2, 16, 4, 4) for layer in layers]
    first = decoder.blocks[0](decoder.enlarge[1](maps[1]))
    second = decoder.blocks[1](decoder.fuse[0](first, decoder.enlarge[0](maps[0])))
    torch.testing.assert_close(decoder(layers), decoder.head(second) + 0.5)


@pytest.mark.parametrize("name", ["tiny", "embedded", "paper_vitb16"])
def test_decoder_reaches_full_resolution(name: str) -> None:
    config = read_recipe(Path(name)).codec
    decoder = PictureDecoder(config)
    layers = [torch.randn(1, layer.grid**2, layer.dim) for layer in config.layers]
    with torch.inference_mode():
        assert decoder(layers).shape == (1, 3, config.image_size, config.image_size)


def test_the_papers_decoder_has_one_block_per_layer_and_doubles() -> None:
    config = read_recipe(Path("paper_vitb16")).codec
    assert decoder_sides(config) == [14, 28, 56, 112]


def test_grids_that_doubling_cannot_join_are_refused() -> None:
    data = read_recipe(Path("tiny")).codec.model_dump()
    data["layers"] = [
        {"features": [1], "grid": 16, "dim": 16},
        {"features": [3], "grid": 4, "dim": 16},
    ]
    with pytest.raises(ValueError, match="cannot follow"):
        decoder_sides(CodecConfig.model_validate(data))


@pytest.mark.parametrize("film", ["pooled", "cross_attention", "gated", "none"])
def test_gradient_reaches_every_trained_part_and_no_tower(film: FilmMode) -> None:
    model = _variant(film=film)
    # Past the zero start of FiLM's last layers, in front of which nothing moves at first.
    for layer in model.alignments:
        if layer.film is not None:
            torch.nn.init.normal_(layer.film.gamma[2].weight)
            torch.nn.init.normal_(layer.film.beta[2].weight)
    model.train()
    _forward(model).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            # A softmax over words does not change when all keys move by the same amount.
            assert float(parameter.grad.abs().sum()) > 0 or name.endswith("film.key.bias"), name
        else:
            assert name.endswith("codebook")
    assert all(p.grad is None for p in model.backbone.parameters())
    assert not any(module.training for module in model.backbone.modules())


def test_state_dict_holds_no_tower(model: CodecModel) -> None:
    assert {name.split(".")[0] for name in model.state_dict()} == {
        "layers",
        "quantizers",
        "decoder",
    }


def test_without_text_alignment_the_query_changes_nothing() -> None:
    model = _variant(film="none").eval()
    pictures = torch.rand(2, 3, 32, 32)

    def refuse(queries: list[str]) -> torch.Tensor:
        raise AssertionError("the text tower was asked")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.backbone, "tokenize", refuse)
        first = model.encode(pictures, ["Is there a cat?", "What colour is it?"])
        second = model.encode(pictures, ["How many?", "Where is my horse?"])
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    assert not any("film" in name or "text" in name for name in model.state_dict())


@pytest.mark.parametrize("film", ["cross_attention", "gated"])
def test_query_changes_indices_in_every_way_of_modulation(film: FilmMode) -> None:
    model = _variant(film=film).eval()
    for layer in model.alignments:
        assert layer.film is not None
        torch.nn.init.normal_(layer.film.beta[2].weight, std=3.0)
    pictures = torch.rand(1, 3, 32, 32)
    first = model.encode(pictures, ["Is there a cat?"])
    second = model.encode(pictures, ["Where is my horse, and who is riding it?"])
    assert any(not torch.equal(one, other) for one, other in zip(first, second, strict=True))
    # What another query of the batch says, or how long it is, does not matter.
    both = model.encode(
        pictures.expand(2, -1, -1, -1),
        ["Is there a cat?", "Where is my horse, and who is riding it?"],
    )
    for one, other in zip(first, both, strict=True):
        assert torch.equal(one[0], other[0])


@pytest.mark.parametrize("film", ["none", "pooled"])
def test_random_towers_are_trained_and_stored_with_the_codec(film: FilmMode) -> None:
    model = _variant(film=film, trainable=True)
    model.train()
    for layer in model.alignments:
        if layer.film is not None:
            torch.nn.init.normal_(layer.film.gamma[2].weight)
    _forward(model).backward()
    names = {name.split(".")[0] for name in model.state_dict()}
    towers = {"image_tower"} | ({"text_tower"} if film == "pooled" else set())
    assert names == {"layers", "quantizers", "decoder"} | towers
    for tower in towers:
        gradients = [p.grad for p in getattr(model, tower).parameters() if p.grad is not None]
        assert sum(float(g.abs().sum()) for g in gradients) > 0
        assert all(module.training for module in getattr(model, tower).modules())
    assert not any(module.training for module in model.eval().backbone.towers.visual.modules())


def test_trained_towers_come_back_from_the_checkpoint(tmp_path: Path) -> None:
    recipe = read_recipe(Path("tiny"))
    model = _variant(film="pooled", trainable=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    file = tmp_path / "codec.safetensors"
    write_checkpoint(file, recipe.model_copy(update={"codec": model.config}), model, {}, "0" * 64)
    loaded, _, _ = read_checkpoint(file)
    for name, value in model.state_dict().items():
        if not name.endswith(".total"):
            torch.testing.assert_close(loaded.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    pictures, queries = torch.rand(2, 3, 32, 32), ["Is there a cat?", "How many?"]
    with torch.inference_mode():
        for index, values in model.backbone.image_features(pictures).items():
            again = loaded.backbone.image_features(pictures)[index]
            torch.testing.assert_close(again, values, atol=0.02, rtol=0.02)
        torch.testing.assert_close(
            loaded.query_features(queries).vectors,
            model.query_features(queries).vectors,
            atol=0.02,
            rtol=0.02,
        )


@pytest.mark.slow
def test_the_papers_codec_takes_a_step_with_all_its_terms() -> None:
    """ViT-B/16 in full, with random weights and the embedded judge: structure, no quality."""
    data = read_recipe(Path("paper_vitb16")).model_dump()
    data["codec"]["backbone"] |= {"weights_file": None, "weights_sha256": None}
    data["training"]["intent"] |= {"judge": "tower", "path": None}
    recipe = Recipe.model_validate(data)
    torch.manual_seed(0)
    model = CodecModel(recipe.codec).train()
    assert recipe.training.intent is not None
    assert recipe.training.adversarial is not None
    judge = load_intent_judge(recipe.training.intent, recipe.codec.image_size)
    adversary = Adversary(recipe.training.adversarial, 0, torch.device("cpu"))
    pictures, queries = (
        torch.rand(2, 3, 224, 224),
        ["Is there a horse?", "Are my kids on the farm?"],
    )
    result = model(model.backbone.image_features(pictures), model.query_features(queries))
    assert [tuple(layer.shape) for layer in result.indices] == [(2, 196, 16)] * 4
    assert result.pictures.shape == pictures.shape
    distances = intent_distances(judge, pictures, result.pictures, queries)
    config = recipe.training
    assert config.intent is not None
    intent = intent_terms(distances, torch.ones(2), config.intent)
    terms = loss_terms(pictures, result.pictures, result.quantization_loss, config, intent)
    terms = add_adversarial(terms, result.pictures, model.last_layer, adversary, config)
    assert {"l1", "quantization", "intent", "adversarial"} <= terms.keys()
    terms["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    assert all(p.grad is None for p in model.backbone.parameters())
    learnt = adversary.learn(pictures, result.pictures, 1.0)
    assert np.isfinite(learnt["discriminator"])


def test_erased_indices_pass_no_gradient_to_the_encoder(model: CodecModel) -> None:
    shapes = [(3, layer.tokens, layer.segments) for layer in model.config.layer_geometry]
    everything = IndexDamage(
        [torch.ones(shape, dtype=torch.bool) for shape in shapes],
        [torch.full(shape, -1) for shape in shapes],
    )
    maps = model.backbone.image_features(torch.rand(3, 3, 32, 32))
    result = model(maps, model.query_features(["a", "b", "c"]), damage=everything)
    result.pictures.square().mean().backward()
    assert model.alignments[0].project_image[0].weight.grad is None or not float(
        model.alignments[0].project_image[0].weight.grad.abs().sum()
    )
    # What is wholly erased decodes to the same picture whatever was sent.
    torch.testing.assert_close(result.pictures[0], result.pictures[1])


def test_wrong_indices_are_looked_up(model: CodecModel) -> None:
    model.eval()
    pictures = torch.rand(1, 3, 32, 32)
    indices = model.encode(pictures, ["a"])
    wrong = [(layer + 1) % 16 for layer in indices]
    damage = IndexDamage([torch.zeros_like(i, dtype=torch.bool) for i in indices], wrong)
    maps = model.backbone.image_features(pictures)
    with torch.inference_mode():
        result = model(maps, model.query_features(["a"]), damage=damage)
        expected = model.decode(wrong)
    torch.testing.assert_close(result.pictures.clamp(0, 1), expected)


def test_training_damage_comes_in_runs_of_the_transmission_order() -> None:
    recipe = read_recipe(Path("embedded"))
    layers = recipe.codec.layer_geometry
    config = TrainingConfig.model_validate(
        {**recipe.training.model_dump(), "erasure_probability": 1, "index_error_probability": 0}
    )
    damage = draw_damage(layers, 256, 6, config, np.random.default_rng(0))
    geometry = FrameGeometry("00000000", 160, 8, layers)
    for number in range(6):
        # The frame's own flattening must show few, long runs.
        flags = tuple(mask[number].numpy().astype(np.uint16) for mask in damage.erased)
        bits = IndexFrame(0, geometry, flags).to_bits().reshape(-1, 8)[:, 7]
        runs = int((np.diff(bits.astype(int), prepend=0) == 1).sum())
        assert 1 <= runs <= 4
        assert bits.sum() >= 0.009 * len(bits)
    assert all(bool((replaced == -1).all()) for replaced in damage.replaced)


def test_loss_terms() -> None:
    config = read_recipe(Path("embedded_start")).training
    pictures, found = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    terms = loss_terms(pictures, found, torch.tensor(2.0), config)
    assert float(terms["l1"]) == pytest.approx(0.5)
    assert float(terms["mse"]) == pytest.approx(0.25)
    assert float(terms["total"]) == pytest.approx(
        config.l1_weight * 0.5 + config.mse_weight * 0.25 + config.quantization_weight * 2.0
    )
