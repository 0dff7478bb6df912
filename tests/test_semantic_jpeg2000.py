"""The JPEG 2000 baseline: never over budget, close below it, safe for any bytes."""

from __future__ import annotations

import numpy as np
import pytest

from semantic.demo_photos import load_photo
from semantic.metrics import psnr_db
from semantic.systems import jpeg2000


@pytest.mark.parametrize("budget", [400, 1500, 4625, 12000])
def test_largest_stream_within_the_budget(budget: int) -> None:
    photo = load_photo("astronaut", 160)
    data = jpeg2000.encode(photo, budget)
    assert 0.9 * budget < len(data) <= budget
    assert data[:2] == b"\xff\x4f", "a raw codestream starts with SOC, a JP2 container does not"
    assert jpeg2000.decode(data) is not None


def test_quality_rises_with_the_budget() -> None:
    photo = load_photo("china", 160)
    found = []
    for budget in (500, 1000, 2000, 4000, 8000):
        picture = jpeg2000.decode(jpeg2000.encode(photo, budget))
        assert picture is not None
        found.append(psnr_db(photo, picture))
    assert found == sorted(found)
    assert found[3] > 28


def test_budget_that_cannot_be_met() -> None:
    with pytest.raises(jpeg2000.Jpeg2000Error, match="50 are allowed"):
        jpeg2000.encode(load_photo("coffee", 160), 50)


def test_a_generous_budget_is_not_exceeded_by_a_flat_picture() -> None:
    flat = load_photo("coffee", 160).point(lambda _: 128)
    assert len(jpeg2000.encode(flat, 50_000)) < 1000


def test_any_bytes_decode_to_a_picture_or_none() -> None:
    random = np.random.default_rng(2)
    data = jpeg2000.encode(load_photo("rocket", 160), 3000)
    assert jpeg2000.decode(b"") is None
    assert jpeg2000.decode(b"no codestream") is None
    decoded = 0
    for trial in range(150):
        damaged = bytearray(data)
        span = len(damaged) if trial % 2 else 150
        for place in random.integers(0, span, 3):
            damaged[place] = random.integers(256)
        if trial % 3 == 0:
            damaged = damaged[: random.integers(0, len(damaged))]
        picture = jpeg2000.decode(bytes(damaged))
        assert picture is None or picture.mode == "RGB"
        decoded += picture is not None
    assert 0 < decoded < 150


def test_a_huge_announced_size_is_not_decoded() -> None:
    data = bytearray(jpeg2000.encode(load_photo("rocket", 160), 3000))
    # SIZ: Xsiz and Ysiz stand 8 and 12 bytes after the start of the stream.
    data[8:16] = (30_000).to_bytes(4, "big") * 2
    assert jpeg2000.decode(bytes(data)) is None
