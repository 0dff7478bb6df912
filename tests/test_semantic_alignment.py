"""Eq. (1) to (4) against plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from semantic.alignment import (
    FILMS,
    AlignedLayer,
    CrossAttentionFilm,
    Film,
    GatedFilm,
    PooledFilm,
    Standardize,
    TextFeatures,
    to_tokens,
)
from semantic.codec_config import FilmMode


def test_to_tokens_keeps_every_value_in_its_place() -> None:
    fine = torch.arange(2 * 4 * 4, dtype=torch.float32).view(1, 2, 4, 4)
    coarse = torch.arange(3 * 2 * 2, dtype=torch.float32).view(1, 3, 2, 2) + 100
    tokens = to_tokens([fine, coarse], 2)
    assert tokens.shape == (1, 4, 2 * 4 + 3)
    for row in range(2):
        for column in range(2):
            token = tokens[0, 2 * row + column].numpy()
            patch = fine[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(-1)
            np.testing.assert_array_equal(token[:8], patch.numpy())
            np.testing.assert_array_equal(token[8:], coarse[0, :, row, column].numpy())


def test_to_tokens_refuses_a_map_that_does_not_fold() -> None:
    with pytest.raises(ValueError, match="does not fold"):
        to_tokens([torch.zeros(1, 1, 6, 6)], 4)


def test_standardize_is_measured_once() -> None:
    tokens = torch.randn(8, 50, 3) * torch.tensor([1.0, 5.0, 0.2]) + torch.tensor([0.0, 3.0, -1.0])
    layer = Standardize(3)
    layer.measure(tokens)
    out = layer(tokens)
    torch.testing.assert_close(out.mean(dim=(0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 1)), torch.ones(3))
    # Unlike a LayerNorm it keeps the level of a token.
    assert not torch.allclose(layer(tokens[:1] + 1), layer(tokens[:1]))


MODES: tuple[FilmMode, ...] = ("pooled", "cross_attention", "gated")


def _text(mode: FilmMode, width: int = 6) -> TextFeatures:
    """Two queries, the second one word shorter."""
    if mode == "pooled":
        return TextFeatures.pooled(torch.randn(2, width))
    mask = torch.tensor([[True, True, True], [True, True, False]])
    return TextFeatures(torch.randn(2, 3, width), mask)


def _learnt(mode: FilmMode) -> Film:
    """A modulation past its zero start."""
    torch.manual_seed(0)
    film = FILMS[mode](6)
    for mlp in (film.gamma, film.beta):
        torch.nn.init.normal_(mlp[2].weight)
        torch.nn.init.normal_(mlp[2].bias)
    return film


def _matrix(module: torch.nn.Module) -> tuple[np.ndarray, np.ndarray]:
    return module.weight.detach().numpy().astype(float), module.bias.detach().numpy().astype(float)


def _naive_mlp(mlp: torch.nn.Sequential, vector: np.ndarray) -> np.ndarray:
    (first, first_bias), (last, last_bias) = _matrix(mlp[0]), _matrix(mlp[2])
    hidden = first @ vector + first_bias
    hidden = np.array([0.5 * h * (1 + math.erf(h / math.sqrt(2))) for h in hidden])
    return last @ hidden + last_bias


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _naive_context(film: Film, feature: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, float]:
    """What gamma and beta look at for one image token, and the gate on them."""
    if isinstance(film, PooledFilm):
        return words[0], 1.0
    if isinstance(film, GatedFilm):
        weight, bias = _matrix(film.match)
        best = max(_cosine(weight @ feature + bias, word) for word in words)
        return words.mean(axis=0), 1 / (
            1 + np.exp(-(film.scale.item() * best + film.offset.item()))
        )
    assert isinstance(film, CrossAttentionFilm)
    (q, q_bias), (k, k_bias), (v, v_bias) = map(_matrix, (film.query, film.key, film.value))
    scores = np.array([(q @ feature + q_bias) @ (k @ w + k_bias) for w in words])
    weights = np.exp(scores / math.sqrt(len(feature)))
    weights /= weights.sum()
    return sum(w * (v @ word + v_bias) for w, word in zip(weights, words, strict=True)), 1.0


@pytest.mark.parametrize("mode", MODES)
def test_film_follows_the_equation(mode: FilmMode) -> None:
    film, text = _learnt(mode), _text(mode)
    if isinstance(film, GatedFilm):
        torch.nn.init.constant_(film.offset, -0.7)
    features = torch.randn(2, 5, 6)
    found = film(features, text.vectors, text.mask).detach().numpy()
    for b in range(2):
        words = text.vectors[b, text.mask[b]].numpy().astype(float)
        for n in range(5):
            feature = features[b, n].numpy().astype(float)
            context, gate = _naive_context(film, feature, words)
            gamma, beta = _naive_mlp(film.gamma, context), _naive_mlp(film.beta, context)
            expected = (1 + gate * gamma) * feature + gate * beta
            np.testing.assert_allclose(found[b, n], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_film_starts_as_identity(mode: FilmMode) -> None:
    text, features = _text(mode), torch.randn(2, 5, 6)
    assert torch.equal(FILMS[mode](6)(features, text.vectors, text.mask), features)


@pytest.mark.parametrize("mode", ["cross_attention", "gated"])
def test_padding_of_a_short_query_says_nothing(mode: FilmMode) -> None:
    film, text, features = _learnt(mode), _text(mode), torch.randn(2, 5, 6)
    before = film(features, text.vectors, text.mask)
    text.vectors[1, 2] = 100.0
    torch.testing.assert_close(film(features, text.vectors, text.mask), before)
    alone = film(features[1:], text.vectors[1:, :2], text.mask[1:, :2])
    torch.testing.assert_close(alone, before[1:])


@pytest.mark.parametrize("mode", ["cross_attention", "gated"])
def test_modulation_differs_from_place_to_place(mode: FilmMode) -> None:
    film, text, features = _learnt(mode), _text(mode), torch.randn(2, 5, 6)
    gamma, beta = film.modulation(features, text.vectors, text.mask)
    assert gamma.shape == beta.shape == (2, 5, 6)
    assert float(gamma.detach().std(dim=1).min()) > 0


@pytest.mark.parametrize("mode", MODES)
def test_query_reaches_the_features_once_film_has_learnt(mode: FilmMode) -> None:
    torch.manual_seed(0)
    layer = AlignedLayer(channels=7, text_width=4, dim=6, hidden=8, film=mode)
    tokens = torch.randn(2, 5, 7)
    first, second = _text(mode, 4), _text(mode, 4)
    torch.testing.assert_close(layer(tokens, first), layer(tokens, second))
    assert layer.film is not None
    torch.nn.init.normal_(layer.film.gamma[2].weight)
    assert not torch.allclose(layer(tokens, first), layer(tokens, second))


def test_without_text_alignment_there_is_only_the_projection() -> None:
    layer = AlignedLayer(channels=7, text_width=0, dim=6, hidden=8, film="none")
    tokens = torch.randn(2, 5, 7)
    assert torch.equal(layer(tokens, TextFeatures.nothing(2)), layer.project_image(tokens))
    assert not any("film" in name or "text" in name for name, _ in layer.named_parameters())
