"""The baselines at equal bits: within budget, fairly counted, as good as their settings allow."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from semantic.demo_photos import load_photo, photo_names
from semantic.metrics import psnr_db
from semantic.systems.picture_coders import (
    PICTURE_CODERS,
    CodedPicture,
    PictureCoderError,
    coded_sides,
)

SIDE = 160
# 0.04, 0.1 and 1 bit per pixel.
TINY, SMALL, LARGE = 125, 320, 3200
CODERS = list(PICTURE_CODERS)


def code(coder: str, photo: str, budget: int, container: bool = False) -> CodedPicture:
    coded = PICTURE_CODERS[coder].code_within(load_photo(photo, SIDE), budget, container=container)
    assert coded is not None
    return coded


def noise_picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_registry() -> None:
    assert CODERS == ["jpeg2000", "webp", "avif"]
    assert all(coder.name == name for name, coder in PICTURE_CODERS.items())
    assert coded_sides(160) == (160, 120, 80, 60, 40, 30, 20)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("budget", [TINY, SMALL, LARGE])
def test_fits_the_budget_and_uses_it(coder: str, budget: int) -> None:
    coded = code(coder, "flower", budget)
    assert coded.name == coder
    assert 0.8 * budget < coded.payload_bytes <= budget
    assert coded.decoded.size == (SIDE, SIDE)
    assert coded.decoded.mode == "RGB"


@pytest.mark.parametrize("coder", CODERS)
def test_the_container_counts_when_asked(coder: str) -> None:
    without = code(coder, "coffee", 800)
    with_container = code(coder, "coffee", 800, container=True)
    assert len(without.data) > 800 >= len(with_container.data)
    source = load_photo("coffee", SIDE)
    assert psnr_db(source, with_container.decoded) < psnr_db(source, without.decoded)


@pytest.mark.parametrize(("coder", "budget"), [("jpeg2000", 120), ("webp", 60), ("avif", 290)])
def test_a_rate_out_of_reach_is_none(coder: str, budget: int) -> None:
    """A file is not smaller than its headers, a payload not than a few bytes."""
    source = load_photo("china", SIDE)
    assert PICTURE_CODERS[coder].code_within(source, budget, container=True) is None
    assert PICTURE_CODERS[coder].code_within(source, 2, container=False) is None


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("photo", photo_names())
def test_the_payload_makes_the_file_again(coder: str, photo: str) -> None:
    coded = code(coder, photo, TINY if len(photo) % 2 else SMALL)
    payload = PICTURE_CODERS[coder].strip(coded.data, coded.side)
    assert len(payload) == coded.payload_bytes
    # `restore` knows nothing of the file but its payload and the side.
    assert PICTURE_CODERS[coder].restore(payload, coded.side) == coded.data


@pytest.mark.parametrize("coder", CODERS)
def test_payloads_of_extreme_pictures(coder: str) -> None:
    flat = Image.new("RGB", (SIDE, SIDE), (250, 10, 90))
    for source, budget in itertools.product((flat, noise_picture(1)), (100, 40_000)):
        coded = PICTURE_CODERS[coder].code_within(source, budget, container=False)
        if coded is None:
            continue
        payload = PICTURE_CODERS[coder].strip(coded.data, coded.side)
        assert PICTURE_CODERS[coder].restore(payload, coded.side) == coded.data
        assert len(payload) <= budget


@pytest.mark.parametrize("coder", CODERS)
def test_decoded_is_what_pillow_shows_of_the_file(coder: str) -> None:
    coded = code(coder, "rocket", SMALL)
    with Image.open(io.BytesIO(coded.data)) as opened:
        assert opened.size == (coded.side, coded.side)
        shown = opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    assert shown.tobytes() == coded.decoded.tobytes()


@pytest.mark.parametrize("coder", CODERS)
def test_quality_rises_with_the_budget(coder: str) -> None:
    source = load_photo("motorcycle_left", SIDE)
    found = [
        psnr_db(source, code(coder, "motorcycle_left", n).decoded) for n in (80, 125, 320, 800)
    ]
    assert found == sorted(found)
    assert found[0] + 2 < found[-1]


@pytest.mark.parametrize("coder", CODERS)
def test_scaled_down_where_bits_are_few(coder: str) -> None:
    assert code(coder, "chelsea", TINY).side < SIDE
    assert code(coder, "chelsea", 8000).side == SIDE


def test_what_the_containers_weigh() -> None:
    # RIFF, chunk header, tag bits, start code, sides: 30 bytes without the first partition's size and
    # with or without a byte of padding.
    assert 28 <= code("webp", "china", SMALL).container_bytes <= 30
    # SOC, SIZ (3 components), COD, QCD of five resolutions, SOT, SOD, EOC; empty packets at the end.
    assert 110 <= code("jpeg2000", "china", SMALL).container_bytes <= 126
    assert 280 <= code("avif", "china", SMALL).container_bytes <= 300


@pytest.mark.parametrize("coder", CODERS)
def test_profiles_and_metadata_are_left_out(coder: str) -> None:
    plain = load_photo("coffee", SIDE)
    tagged = plain.copy()
    tagged.info.update(icc_profile=bytes(500), exif=bytes(300), comment="by hand")
    first = PICTURE_CODERS[coder].code_within(plain, TINY, container=False)
    second = PICTURE_CODERS[coder].code_within(tagged, TINY, container=False)
    assert first is not None
    assert second is not None
    assert first.data == second.data


@pytest.mark.parametrize("coder", CODERS)
def test_bad_input_is_refused(coder: str) -> None:
    picture_coder = PICTURE_CODERS[coder]
    with pytest.raises(PictureCoderError, match="0 bytes allowed"):
        picture_coder.code_within(load_photo("china", SIDE), 0, container=False)
    with pytest.raises(PictureCoderError, match="160x80 pixels, expected a square"):
        picture_coder.code_within(Image.new("RGB", (160, 80)), SMALL, container=False)
    with pytest.raises(PictureCoderError, match="8x8 pixels"):
        picture_coder.code_within(Image.new("RGB", (8, 8)), SMALL, container=False)


@pytest.mark.parametrize("coder", CODERS)
def test_other_files_are_not_stripped(coder: str) -> None:
    picture_coder = PICTURE_CODERS[coder]
    coded = code(coder, "china", SMALL)
    others = [code(other, "china", SMALL).data for other in CODERS if other != coder]
    for data in (b"", b"\xff", bytes(500), coded.data[:-1], coded.data + b"\0", *others):
        with pytest.raises(PictureCoderError):
            picture_coder.strip(data, coded.side)
    with pytest.raises(PictureCoderError):
        picture_coder.strip(coded.data, coded.side + 1)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("side", [16, 50, 224])
def test_other_sides_of_the_source(coder: str, side: int) -> None:
    source = load_photo("flower", side)
    coded = PICTURE_CODERS[coder].code_within(source, 400, container=False)
    assert coded is not None
    assert coded.decoded.size == (side, side)
    payload = PICTURE_CODERS[coder].strip(coded.data, coded.side)
    assert PICTURE_CODERS[coder].restore(payload, coded.side) == coded.data


@pytest.mark.parametrize("coder", CODERS)
def test_a_receiver_shows_the_picture_or_nothing(coder: str) -> None:
    """The payload as it was made, then damaged in every way: never an exception, never another size."""
    coded = code(coder, "coffee", 320)
    by_name = PICTURE_CODERS[coder]
    payload = by_name.strip(coded.data, coded.side)
    shown = by_name.receive(payload, coded.side, SIDE)
    assert shown is not None
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(coded.decoded))
    random = np.random.default_rng(0)
    damaged = [payload[:1], payload[: len(payload) // 2], bytes(len(payload)), b"\xff" * 40]
    for _ in range(20):
        wrong = np.frombuffer(payload, np.uint8).copy()
        wrong[random.integers(len(wrong), size=8)] ^= random.integers(1, 256, 8, dtype=np.uint8)
        damaged.append(wrong.tobytes())
    for data in damaged:
        found = by_name.receive(data, coded.side, SIDE)
        assert found is None or (found.size == (SIDE, SIDE) and found.mode == "RGB")
