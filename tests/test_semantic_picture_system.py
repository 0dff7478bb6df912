"""Picture files as systems: within the budget, whole over a perfect link, harmless when damaged."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from blocks.modem import waveform as wf
from semantic.demo_photos import load_photo, photo_names
from semantic.index_frame import IndexFrameError
from semantic.metrics import psnr_db
from semantic.systems.picture_coders import PICTURE_CODERS
from semantic.systems.picture_system import LosslessSystem, PictureSystem
from semantic.systems.system import Received, UnreachableError
from tests.received import whole, with_noise, without_bits

SIDE = 160
CODERS = list(PICTURE_CODERS)


def make(coder: str, budget: int) -> PictureSystem:
    return PictureSystem(f"{coder} {budget}", coder, budget, SIDE)


def noise_picture(side: int) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("budget", [125, 1600])
def test_what_is_sent_fits_and_what_is_shown_is_what_was_coded(coder: str, budget: int) -> None:
    system, source = make(coder, budget), load_photo("flower", SIDE)
    frame = system.encode(source, "Is this a flower?", 7)
    assert frame.frame_id == 7
    assert frame.geometry.payload_bits % 8 == 0
    assert 0.8 * budget < frame.geometry.payload_bits / 8 <= budget
    shown = system.decode(whole(frame), "Is this a flower?")
    coded = PICTURE_CODERS[coder].code_within(source, budget, container=False)
    assert shown is not None
    assert coded is not None
    assert shown.tobytes() == coded.decoded.tobytes()
    assert frame.geometry.payload_bits / 8 == coded.payload_bytes


@pytest.mark.parametrize("coder", CODERS)
def test_one_byte_less_than_the_least_is_out_of_reach(coder: str) -> None:
    source = noise_picture(SIDE)
    least = next(
        budget
        for budget in range(1, 400)
        if PICTURE_CODERS[coder].code_within(source, budget, container=False) is not None
    )
    assert least > 1
    frame = make(coder, least).encode(source, "What is this?", 0)
    assert frame.geometry.payload_bits <= 8 * least
    with pytest.raises(UnreachableError, match=f"{coder} {least - 1}: .* {least - 1} bytes"):
        make(coder, least - 1).encode(source, "What is this?", 0)


@pytest.mark.parametrize("coder", CODERS)
def test_no_question_changes_anything(coder: str) -> None:
    system, source = make(coder, 500), load_photo("coffee", SIDE)
    assert not system.hears_query
    one, other = (system.encode(source, query, 0) for query in ("Is there a spoon?", "Any dogs?"))
    assert one.geometry == other.geometry
    assert np.array_equal(one.to_bits(), other.to_bits())


@pytest.mark.parametrize("coder", [*CODERS, "lossless"])
def test_damage_shows_a_picture_or_nothing(coder: str) -> None:
    system = LosslessSystem("lossless", SIDE) if coder == "lossless" else make(coder, 1600)
    source = load_photo("rocket", SIDE)
    frame = system.encode(source, "Is the sky dark?", 0)
    size = frame.geometry.payload_bits
    assert system.decode(Received(None, False), "Is the sky dark?") is None
    damaged = [without_bits(frame, start, size // 4) for start in range(0, size, size // 8)]
    damaged += [with_noise(frame, seed, 0.002) for seed in range(10)]
    damaged += [without_bits(frame, 0, size)]
    for received in damaged:
        shown = system.decode(received, "Is the sky dark?")
        assert shown is None or (shown.size == (SIDE, SIDE) and shown.mode == "RGB")
        assert shown is None or shown.tobytes() != source.tobytes()


def test_a_jpeg_2000_that_lost_its_last_bytes_is_still_shown() -> None:
    """Packets come coarsest first and what is lost reads zero: the decoder makes something of it."""
    system, source = make("jpeg2000", 3200), load_photo("china", SIDE)
    frame = system.encode(source, "Is this a temple?", 0)
    whole_db, hurt_db = (
        psnr_db(source, shown)
        for received in (whole(frame), without_bits(frame, frame.geometry.payload_bits - 64, 64))
        if (shown := system.decode(received, "Is this a temple?")) is not None
    )
    assert 15 < hurt_db < whole_db


@pytest.mark.parametrize("photo", photo_names())
def test_lossless_is_lossless(photo: str) -> None:
    system, source = LosslessSystem("lossless", SIDE), load_photo(photo, SIDE)
    frame = system.encode(source, "What is this?", 1)
    shown = system.decode(whole(frame), "What is this?")
    assert shown is not None
    assert shown.tobytes() == source.tobytes()
    assert frame.geometry.payload_bits / 8 < 0.65 * 3 * SIDE**2


def test_lossless_noise_takes_more_than_its_pixels_and_still_goes_over_the_air() -> None:
    system, source = LosslessSystem("lossless", SIDE), noise_picture(SIDE)
    frame = system.encode(source, "What is this?", 1)
    assert frame.geometry.payload_bits > 8 * 3 * SIDE**2
    shown = system.decode(whole(frame), "What is this?")
    assert shown is not None
    assert shown.tobytes() == source.tobytes()
    for mcs in range(10):
        plan = wf.plan_blocks(frame.geometry.payload_bits, mcs)
        assert sum(wf.blocks_per_burst(plan)) == plan.blocks


def test_a_lossless_picture_longer_than_a_frame_is_out_of_reach() -> None:
    with pytest.raises(UnreachableError, match=r"lossless: 1\d{5} bytes .* holds 131071"):
        LosslessSystem("lossless", 208).encode(noise_picture(208), "What is this?", 0)


def test_other_pictures_and_other_systems_frames_are_refused() -> None:
    system = make("webp", 500)
    with pytest.raises(ValueError, match="80x80, expected 160x160"):
        system.encode(load_photo("coffee", 80), "What is this?", 0)
    frame = make("avif", 500).encode(load_photo("coffee", SIDE), "What is this?", 0)
    with pytest.raises(IndexFrameError, match="not by webp"):
        system.decode(whole(frame), "What is this?")


def test_the_same_length_at_another_side_is_another_codec() -> None:
    """The side is told for nothing, so a burst header has to tell it: in the codec's tag."""
    system = make("jpeg2000", 125)
    ids = set()
    for photo in photo_names():
        frame = system.encode(load_photo(photo, SIDE), "What is this?", 0)
        ids.add(frame.geometry.codec_id)
        assert system.decode(whole(frame), "What is this?") is not None
    assert len(ids) > 1


def test_what_it_was_told_for_nothing_is_noted() -> None:
    (note,) = make("avif", 321).notes()
    assert "avif 321" in note
    assert "321 bytes" in note
    assert "told for nothing" in note
