"""Eq. (1) to (4) against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semantic.alignment import AlignedLayer, Film, Standardize, to_tokens


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


def test_film_starts_as_identity_and_follows_the_equation() -> None:
    torch.manual_seed(0)
    film = Film(6)
    features, text = torch.randn(2, 5, 6), torch.randn(2, 6)
    torch.testing.assert_close(film(features, text), features)
    for mlp in (film.gamma, film.beta):
        torch.nn.init.normal_(mlp[2].weight)
        torch.nn.init.normal_(mlp[2].bias)
    gamma, beta = film.gamma(text).detach().numpy(), film.beta(text).detach().numpy()
    expected = np.empty((2, 5, 6), np.float32)
    for b in range(2):
        for n in range(5):
            for d in range(6):
                expected[b, n, d] = (1 + gamma[b, d]) * features[b, n, d].item() + beta[b, d]
    np.testing.assert_allclose(
        film(features, text).detach().numpy(), expected, rtol=1e-5, atol=1e-6
    )


def test_query_reaches_the_features_once_film_has_learnt() -> None:
    torch.manual_seed(0)
    layer = AlignedLayer(channels=7, text_width=4, dim=6, hidden=8)
    tokens = torch.randn(1, 5, 7)
    first, second = torch.randn(1, 4), torch.randn(1, 4)
    torch.testing.assert_close(layer(tokens, first), layer(tokens, second))
    torch.nn.init.normal_(layer.film.gamma[2].weight)
    assert not torch.allclose(layer(tokens, first), layer(tokens, second))
