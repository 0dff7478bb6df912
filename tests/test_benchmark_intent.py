"""``uoisc benchmark intent``: pairs, signs and symbols against the same sums written down by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import RunCommand, at, rate_at
from PIL import Image

from benchmarks.intent import (
    IntentReport,
    _figures,
    _Received,
    benchmark_intent,
)
from benchmarks.named_objects import NamedRegion, read_named_regions
from blocks.modem import waveform as wf
from blocks.modem.budget import air_symbols
from semantic.asked_photos import PhotosError
from semantic.codec.detail_checkpoint import load_two_layer
from semantic.codec.settings import Box, EncoderSettings
from semantic.codec.vq_codec import Codec, load_vq_codec
from semantic.demo_photos import load_photo
from semantic.pictures import load_picture
from semantic.systems.picture_coders import PICTURE_CODERS

FOCUS = 0.95
ASKING = EncoderSettings(bits_per_pixel=0.45, focus=FOCUS)
KEYS = {
    *("photos", "pairs", "asked_gain_db", "ci95", "psnr_db", "psnr_without_query_db", "symbols"),
    *("codec_id", "mcs", "bits", "bits_per_pixel", "focus", "search_steps"),
    *("search_likeness", "sets", "machine", "box", "rivals"),
}


def save_cat_beside(folder: Path, other: str, name: str) -> Path:
    """A data set of one photo, half cat and half something else."""
    (folder / "images").mkdir(parents=True)
    two = Image.new("RGB", (320, 320))
    two.paste(load_photo("chelsea", 320).crop((80, 0, 240, 320)), (0, 0))
    two.paste(load_photo(other, 320).crop((80, 0, 240, 320)), (160, 0))
    two.save(folder / "images" / "two.png")
    objects = [
        {"name": "cat", "box": [0.0, 0.1, 0.5, 0.9]},
        {"name": name, "box": [0.5, 0.1, 1.0, 0.9]},
        {"name": "flea", "box": [0.1, 0.1, 0.15, 0.15]},  # too small to ask for, not to ask about
    ]
    row = {"image": "two.png", "objects": objects}
    (folder / "objects.jsonl").write_text(json.dumps(row))
    return folder


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_vq_codec(device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cat_beside(tmp_path_factory.mktemp("pair") / "data", "coffee", "cup")


@pytest.fixture(scope="module")
def report(codec: Codec, data: Path) -> IntentReport:
    regions = read_named_regions(data)
    return benchmark_intent(codec, regions, settings=ASKING, mcs=4)


def test_gain_by_hand(codec: Codec, data: Path, report: IntentReport) -> None:
    rate = rate_at(codec, 0.45)
    source = load_picture(data / "images" / "two.png", codec.image_size)

    def error(question: str, left: bool) -> float:
        """Mean squared error inside the cat's box or the cup's, exactly half a picture wide."""
        picture = codec.decode(codec.encode(source, question, at(rate, focus=FOCUS)))
        squared = np.square(np.asarray(source, float) - np.asarray(picture, float)).mean(2)
        return float(squared[16:144, :80].mean() if left else squared[16:144, 80:].mean())

    cat, cup, flea = (f"Is there a {name}?" for name in ("cat", "cup", "flea"))
    gains = {
        "cat, not cup": error(cup, True) / error(cat, True),
        "cup, not cat": error(cat, False) / error(cup, False),
        "cat, not flea": error(flea, True) / error(cat, True),
        "cup, not flea": error(flea, False) / error(cup, False),
    }
    by_hand = [10 * math.log10(gain) for gain in gains.values()]
    found = report.sets["all"].asked_gain_db
    assert found is not None
    assert found.cases == 4
    assert found.mean == pytest.approx(np.mean(by_hand), abs=0.02)
    # The cat's gain alone would already fail were bits not to follow the question.
    assert by_hand[0] + by_hand[1] > 1


def test_everything_is_sent_in_as_many_symbols(codec: Codec, report: IntentReport) -> None:
    values = report.to_json()
    assert values.keys() == KEYS
    assert (values["photos"], values["pairs"]) == (1, 4)
    assert values["bits"] == rate_at(codec, 0.45).payload_bits
    plan = wf.plan_blocks(values["bits"], 4)
    assert values["symbols"] == air_symbols(values["bits"], 4)
    payload = sum(wf.blocks_per_burst(plan)) * plan.symbols
    assert payload < values["symbols"] < 2 * payload
    assert values["sets"]["person"]["asked_gain_db"] is None
    assert values["sets"]["even"] == values["sets"]["all"]


def test_without_focus_nothing_is_gained(codec: Codec, data: Path) -> None:
    """What is left is how the query modulates the features, not where bits go."""
    regions = read_named_regions(data)
    blind = benchmark_intent(codec, regions, settings=replace(ASKING, focus=0.0))
    gain = blind.sets["all"].asked_gain_db
    assert gain is not None
    assert abs(gain.mean) < 0.5
    assert blind.psnr_db.mean == pytest.approx(blind.psnr_without_query_db.mean, abs=0.5)


def test_signs_and_who_is_compared() -> None:
    boxes = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))
    left, right = (
        NamedRegion(0, Path("a.png"), name, (box,))
        for name, box in zip(("cat", "dog"), boxes, strict=True)
    )
    halves = np.zeros((20, 20))
    halves[:, :10], halves[:, 10:] = 1.0, 100.0  # asked for the cat, on the left
    received = {0: _Received(halves, 20.0), 1: _Received(halves[:, ::-1], 20.0)}
    free = {0: _Received(np.full((20, 20), 10.0), 21.0)}
    figures = _figures([left, right], [(0, 1), (1, 0)], received, free, seed=0)
    assert figures.asked_gain_db is not None
    assert figures.against_query_free_db is not None
    assert figures.asked_gain_db.mean == pytest.approx(20)
    assert figures.against_query_free_db.mean == pytest.approx(10)


def test_persons_are_counted_apart(codec: Codec, tmp_path: Path) -> None:
    data = save_cat_beside(tmp_path / "data", "astronaut", "person")
    report = benchmark_intent(codec, read_named_regions(data), settings=ASKING)
    counted = {
        name: None if one.asked_gain_db is None else one.asked_gain_db.cases
        for name, one in report.sets.items()
    }
    # The cat against person and flea; the person against cat and flea.
    assert counted == {"all": 2, "even": 2, "odd": None, "person": 2}


def test_rivals_in_the_same_boxes_by_hand(data: Path) -> None:
    two = load_two_layer(device="cpu")
    settings = EncoderSettings(bits=6400)
    report = benchmark_intent(
        two, read_named_regions(data), settings=settings, box=True, rivals=("jpeg2000",)
    )
    source = load_picture(data / "images" / "two.png", 160)
    rival = PICTURE_CODERS["jpeg2000"].code_within(source, 800, container=False)
    assert rival is not None

    def squared(picture: Image.Image) -> np.ndarray:
        return np.square(np.asarray(source, float) - np.asarray(picture, float)).mean(2)

    inside, whole = [], []
    for box, question in (((0, 16, 80, 128), "cat"), ((80, 16, 80, 128), "cup")):
        drawn = EncoderSettings(bits=6400, boxes=(Box(*box),))
        ours = squared(two.decode(two.encode(source, f"Is there a {question}?", drawn)))
        theirs = squared(rival.decoded)
        x, y, width, height = box
        part = slice(y, y + height), slice(x, x + width)
        inside.append(10 * math.log10(theirs[part].mean() / ours[part].mean()))
        whole.append(10 * math.log10(theirs.mean() / ours.mean()))
    found = report.to_json()["rivals"]["jpeg2000"]
    assert found["objects"] == 2
    assert found["gain_db"] == pytest.approx(np.mean(inside), abs=0.02)
    assert found["whole_gain_db"] == pytest.approx(np.mean(whole), abs=0.02)
    assert found["inside_db"] == pytest.approx(found["codec_inside_db"] - found["gain_db"])
    assert found["gain_db"] > 2
    assert report.to_json()["box"] is True


def test_photos_without_a_pair_are_refused(codec: Codec, data: Path) -> None:
    cat = read_named_regions(data)[:1]
    with pytest.raises(PhotosError, match="two objects of different names"):
        benchmark_intent(codec, cat, settings=ASKING)


@pytest.mark.slow
def test_command_prints_one_json_object(data: Path, uoisc: RunCommand) -> None:
    done = uoisc("benchmark", "intent", "--data", data, "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values.keys() == KEYS
    assert values["pairs"] == 4


def test_command_names_what_is_wrong(uoisc: RunCommand, tmp_path: Path) -> None:
    done = uoisc("benchmark", "intent", "--data", tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "objects.jsonl" in line
