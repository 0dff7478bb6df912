"""The two-layer codec: any shape, any number of bits exactly, losses, damage, boxes, and how good it is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semantic.codec.detail_checkpoint import TWO_LAYER_CHECKPOINT, load_two_layer
from semantic.codec.entropy import SEAL_BITS
from semantic.codec.loader import checkpoint_file, load_codec
from semantic.codec.settings import Box, EncoderSettings
from semantic.codec.two_layer import TwoLayerCodec
from semantic.codec.vq_codec import Codec, WeightsError, load_vq_codec
from semantic.demo_photos import load_photo, photo_path
from semantic.frame.slices import usual_slices
from semantic.index_frame import IndexFrame, IndexFrameError, NothingReceivedError
from semantic.metrics import psnr_db
from semantic.pictures import read_picture

QUERY = "Is there a cat?"


@pytest.fixture(scope="module")
def codec() -> TwoLayerCodec:
    return load_two_layer(device="cpu")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return load_photo("chelsea", 160)


def received(
    frame: IndexFrame, erased: np.ndarray | None = None, flips: tuple[int, ...] = ()
) -> IndexFrame:
    """The frame after its bits went over the air."""
    bits = frame.to_bits()
    bits[list(flips)] ^= 1
    return IndexFrame.from_bits(frame.geometry, bits, frame_id=0, erased_bits=erased)


def block_of(frame: IndexFrame, number: int, blocks: int) -> np.ndarray:
    """The bits of one code block, as the air interface cuts them."""
    total = frame.geometry.payload_bits
    part = -(-total // blocks)
    lost = np.zeros(total, np.bool_)
    lost[number * part : (number + 1) * part] = True
    return lost


# bits and shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [904, 1304, 2560, 6400, 12_800, 40_000])
def test_any_number_of_bits_exactly(codec: TwoLayerCodec, photo: Image.Image, bits: int) -> None:
    frame = codec.encode(photo, QUERY, EncoderSettings(bits=bits))
    assert frame.geometry.payload_bits == len(frame.to_bits()) == bits
    assert frame.picture_size == (160, 160)
    shown = codec.decode(received(frame))
    assert shown.size == (160, 160)
    np.testing.assert_array_equal(
        np.asarray(shown), np.asarray(codec.decode(IndexFrame.from_bytes(frame.to_bytes())))
    )
    # The room is used: what is left would hardly pay for another coefficient in each slice.
    used = np.flatnonzero(frame.to_bits())[-1] + 1
    assert bits - used <= max(0.02 * bits, SEAL_BITS)


def test_more_bits_are_better_from_the_base_alone_upwards(codec: TwoLayerCodec) -> None:
    photos = [load_photo(name, 160) for name in ("astronaut", "chelsea", "coffee", "flower")]
    means = []
    for bits_per_pixel in (0.035, 0.07, 0.1, 0.25, 0.5, 1.0, 1.5):
        settings = EncoderSettings(bits_per_pixel=bits_per_pixel, focus=0)
        shown = [codec.decode(codec.encode(one, QUERY, settings)) for one in photos]
        means.append(np.mean([psnr_db(*pair) for pair in zip(photos, shown, strict=True)]))
    assert means == sorted(means)
    assert means[-1] > means[0] + 12


def test_fewer_bits_than_the_base_takes_are_refused(
    codec: TwoLayerCodec, photo: Image.Image
) -> None:
    with pytest.raises(IndexFrameError, match="base layer alone takes"):
        codec.encode(photo, QUERY, EncoderSettings(bits=640))


@pytest.mark.parametrize("size", [(16, 16), (16, 300), (97, 33), (640, 120)])
def test_photos_in_their_own_shape(codec: TwoLayerCodec, size: tuple[int, int]) -> None:
    picture = read_picture(photo_path("astronaut")).resize(size)
    settings = EncoderSettings(bits=max(3000, size[0] * size[1] // 2 // 8 * 8))
    frame = codec.encode(picture, "What is the woman wearing?", settings)
    shown = codec.decode(received(frame))
    assert frame.picture_size == shown.size == size
    assert psnr_db(picture, shown) > 20


def test_a_panorama_keeps_its_left_end(codec: TwoLayerCodec) -> None:
    """No centre crop that nobody is told of."""
    wide = Image.new("RGB", (480, 160), (90, 110, 90))
    wide.paste(load_photo("coffee", 160), (0, 0))
    shown = codec.decode(codec.encode(wide, "Is there a cup of coffee?"))
    assert psnr_db(wide.crop((0, 0, 160, 160)), shown.crop((0, 0, 160, 160))) > 30


def test_larger_photos_are_scaled_to_the_longest_side(codec: TwoLayerCodec) -> None:
    picture = read_picture(photo_path("chelsea"))
    assert picture.width > picture.height > 200
    frame = codec.encode(picture, QUERY, EncoderSettings(bits_per_pixel=0.2, max_side=200))
    assert frame.picture_size == codec.prepare(picture, 200).size
    assert max(codec.prepare(Image.new("RGB", (3000, 400))).size) == 1024
    with pytest.raises(IndexFrameError, match=r"3000x40 pixels is 512x7 .* at least 16"):
        codec.prepare(Image.new("RGB", (3000, 40)), 512)


# losses and damage -------------------------------------------------------------------------------


def test_a_lost_block_costs_its_own_part(codec: TwoLayerCodec) -> None:
    photo = load_photo("astronaut", 160)
    settings = EncoderSettings(bits=25_600, focus=0, base_copies=True)
    frame = codec.encode(photo, QUERY, settings)
    blocks = usual_slices(25_600)
    assert blocks == 4
    whole = np.asarray(codec.decode(received(frame)), float)
    source = np.asarray(photo, float)
    for number in range(blocks):
        found = codec.receive(received(frame, block_of(frame, number, blocks)))
        assert (found.slices, found.damaged) == (blocks, 0)
        shown = np.asarray(codec.picture(found), float)
        inside = np.kron(found.inside[0, 0].numpy(), np.ones((8, 8))).astype(bool)
        assert 0.4 < inside.mean() < 0.95
        arrived = np.square(shown - source).mean(2)[inside].mean()
        # Errors reach a little over the border.
        assert arrived < 2.0 * np.square(whole - source).mean(2)[inside].mean() + 4
        # What is missing is still there coarsely, and is not there at all without copies.
        without = codec.encode(photo, QUERY, replace(settings, base_copies=False))
        bare = codec.receive(received(without, block_of(without, number, blocks)))
        grey = np.asarray(codec.picture(bare), float)
        empty = ~np.kron(bare.inside[0, 0].numpy(), np.ones((8, 8))).astype(bool)
        coarse = np.square(shown - source).mean(2)[~inside].mean()
        assert found.tokens_known.all()
        assert not bare.tokens_known.all()
        assert coarse < 0.65 * np.square(grey - source).mean(2)[empty].mean()
    nothing = received(frame, np.ones(25_600, np.bool_))
    with pytest.raises(NothingReceivedError):
        codec.decode(nothing)


def test_damage_is_counted_and_shown_as_lost(codec: TwoLayerCodec, photo: Image.Image) -> None:
    frame = codec.encode(photo, QUERY, EncoderSettings(bits=25_600))
    hit = received(frame, flips=(3000,))
    before = codec.slices_damaged
    found = codec.receive(hit)
    assert (found.damaged, found.slices) == (1, 4)
    assert codec.slices_damaged == before + 1
    assert not found.inside.all()
    assert psnr_db(photo, codec.decode(hit)) > 15


def test_random_bytes_never_crash(codec: TwoLayerCodec) -> None:
    generator = np.random.default_rng(0)
    for size in (1, 9, 100, 800, 5000):
        for _ in range(3):
            data = generator.integers(0, 256, (size, 1)).astype(np.uint16)
            geometry = replace(
                codec.geometry, layers=(replace(codec.geometry.layers[0], tokens=size),)
            )
            frame = IndexFrame(0, geometry, (data,))
            try:
                shown = codec.decode(frame)
            except NothingReceivedError:
                continue
            assert max(shown.size) <= 1024


def test_frames_of_another_codec_are_refused(codec: TwoLayerCodec, photo: Image.Image) -> None:
    frame = codec.encode(photo, QUERY, EncoderSettings(bits=3000))
    foreign = replace(frame, geometry=replace(frame.geometry, codec_id="0badc0de"))
    with pytest.raises(IndexFrameError, match="0badc0de"):
        codec.decode(foreign)


def test_frames_of_the_base_codec_still_decode(codec: TwoLayerCodec, photo: Image.Image) -> None:
    """Old recordings replay with the new default."""
    old = load_vq_codec(device="cpu")
    frame = old.encode(photo, QUERY, EncoderSettings(bits_per_pixel=0.5))
    np.testing.assert_array_equal(np.asarray(codec.decode(frame)), np.asarray(old.decode(frame)))
    assert set(old.geometries) < set(codec.geometries)


@pytest.mark.slow
def test_the_same_bits_mean_the_same_picture_elsewhere(
    codec: TwoLayerCodec, photo: Image.Image, tmp_path: Path
) -> None:
    """Encoded here on one thread, decoded in another process on two."""
    frame = codec.encode(photo, QUERY, EncoderSettings(bits=12_800))
    (tmp_path / "frame.uoisc").write_bytes(frame.to_bytes())
    program = (
        "import sys, torch; torch.set_num_threads(2)\n"
        "from pathlib import Path\n"
        "from semantic.codec.loader import load_codec\n"
        "from semantic.index_frame import IndexFrame\n"
        "found = load_codec(device='cpu', towers=False).receive(IndexFrame.read(Path(sys.argv[1])))\n"
        "assert found.damaged == 0 and bool(found.inside.all())\n"
        "print(int(found.values.sum() * 16), int((found.values != 0).sum()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "frame.uoisc"],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    here = codec.receive(frame).values
    assert done.stdout.split() == [str(int(here.sum() * 16)), str(int((here != 0).sum()))]


@pytest.mark.slow
def test_a_megapixel_in_two_gigabytes(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from semantic.codec.loader import EncoderSettings, load_codec\n"
        "from semantic.demo_photos import photo_path\n"
        "from semantic.pictures import read_picture\n"
        "picture = read_picture(photo_path('astronaut')).resize((1024, 1024))\n"
        "codec = load_codec(device='cpu')\n"
        "frame = codec.encode(picture, 'What is it?', EncoderSettings(bits_per_pixel=0.5))\n"
        "codec.decode(frame)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 2_000_000


# where bits go -----------------------------------------------------------------------------------


def two_halves() -> Image.Image:
    two = Image.new("RGB", (160, 160))
    for left, name in ((0, "chelsea"), (80, "coffee")):
        two.paste(load_photo(name, 160).crop((40, 0, 120, 160)), (left, 0))
    return two


LEFT = (0, 0, 80, 160)


def test_bits_follow_the_question(codec: TwoLayerCodec) -> None:
    two = two_halves()
    settings = EncoderSettings(bits=6400)
    shown = [
        codec.decode(codec.encode(two, f"Is there a {name}?", settings)) for name in ("cat", "cup")
    ]
    left = [psnr_db(two.crop(LEFT), one.crop(LEFT)) for one in shown]
    assert left[0] > left[1] + 1


def test_bits_follow_a_box(codec: TwoLayerCodec) -> None:
    two = two_halves()
    plain = codec.decode(codec.encode(two, QUERY, EncoderSettings(bits=6400, focus=0)))
    for box, area in ((Box(0, 0, 80, 160), LEFT), (Box(80, 0, 80, 160), (80, 0, 160, 160))):
        drawn = EncoderSettings(bits=6400, boxes=(box,))
        shown = codec.decode(codec.encode(two, QUERY, drawn))
        gain = psnr_db(two.crop(area), shown.crop(area)) - psnr_db(two.crop(area), plain.crop(area))
        assert gain > 0.7


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "-1,0,5,5", "0,0,0,5", "1,2,3,4,5"])
def test_boxes_that_are_none(text: str) -> None:
    with pytest.raises(IndexFrameError, match="box"):
        Box.parse(text)


def test_a_box_beside_the_picture(codec: TwoLayerCodec, photo: Image.Image) -> None:
    with pytest.raises(IndexFrameError, match="200,0 lies outside the picture of 160x160"):
        codec.encode(photo, QUERY, EncoderSettings(boxes=(Box(200, 0, 8, 8),)))


# checkpoints -------------------------------------------------------------------------------------


def test_the_door_tells_codecs_apart(tmp_path: Path) -> None:
    assert isinstance(load_codec(None, "cpu", towers=False), TwoLayerCodec)
    assert isinstance(load_codec("embedded", "cpu", towers=False), Codec)
    assert checkpoint_file("two_layer") == TWO_LAYER_CHECKPOINT
    with pytest.raises(WeightsError, match="no shipped codec of that name"):
        load_codec("nonsense")
    with pytest.raises(WeightsError, match=r"absent\.safetensors"):
        load_codec(tmp_path / "absent.safetensors")


def test_altered_weights_are_noticed(tmp_path: Path) -> None:
    data = bytearray(TWO_LAYER_CHECKPOINT.read_bytes())
    data[-1000] ^= 1
    for name in ("embedded.safetensors", "embedded.json"):
        (tmp_path / name).symlink_to(TWO_LAYER_CHECKPOINT.with_name(name))
    altered = tmp_path / "two_layer.safetensors"
    altered.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged or was altered"):
        load_codec(altered, "cpu", towers=False)
    altered.write_bytes(TWO_LAYER_CHECKPOINT.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="two_layer"):
        load_codec(altered, "cpu", towers=False)


def test_settings_out_of_range() -> None:
    for wrong in (
        {"bits": 0},
        {"bits_per_pixel": 0.0},
        {"bits_per_pixel": float("nan")},
        {"focus": 1.5},
        {"max_side": 8},
        {"slice_bits": 0},
    ):
        with pytest.raises(IndexFrameError, match=next(iter(wrong)).split("_")[0]):
            EncoderSettings(**wrong)  # type: ignore[arg-type]


def test_decoding_in_bfloat16_is_the_same_to_about_a_level(
    codec: TwoLayerCodec, photo: Image.Image
) -> None:
    half = load_two_layer(device="cpu", towers=False, amp=True)
    frame = codec.encode(photo, QUERY, EncoderSettings(bits=12_800))
    one, other = (np.asarray(c.decode(frame), float) for c in (codec, half))
    assert np.abs(one - other).mean() < 1.5
    assert torch.equal(codec.receive(frame).values, half.receive(frame).values)
