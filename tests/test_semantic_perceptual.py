"""Perceptual measures: their scales at known places, and a plain error where they are not installed."""

from __future__ import annotations

import sys

import pytest
from PIL import Image, ImageFilter

from semantic.demo_photos import load_photo
from semantic.perceptual import MeasureError, check_installed, flip_error, ssimulacra2_score


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return load_photo("chelsea", 160)


def test_identical_pictures_are_perfect(photo: Image.Image) -> None:
    check_installed()
    assert ssimulacra2_score(photo, photo) == pytest.approx(100, abs=1e-6)
    assert flip_error(photo, photo) == 0


def test_worse_pictures_score_worse(photo: Image.Image) -> None:
    blurred = [photo.filter(ImageFilter.GaussianBlur(radius)) for radius in (0.5, 1, 2, 4)]
    scores = [ssimulacra2_score(photo, one) for one in blurred]
    errors = [flip_error(photo, one) for one in blurred]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 50 > 30 > scores[-1]
    assert errors == sorted(errors)
    assert 0 < errors[0] < errors[-1] < 1


def test_black_and_white_are_as_far_apart_as_flip_goes() -> None:
    black, white = (Image.new("RGB", (64, 64), colour) for colour in ("black", "white"))
    assert flip_error(black, white) > 0.95


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ssimulacra2", None)
    with pytest.raises(MeasureError, match=r"ssimulacra2 is not installed.*perceptual"):
        check_installed()
