"""``uoisc benchmark codec``: photos found, figures complete, one clear error for anything missing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import RunCommand, at, rate_at
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.codec import CodecReport, CodewordUse, benchmark_codec
from benchmarks.judge_temperature import imagenet_ids, labelled_gain, object_gain, read_labelled
from cli.benchmark_codec import print_report
from semantic.asked_photos import (
    DEFAULT_QUERY,
    AskedPhoto,
    PhotosError,
    read_photos,
    spread_evenly,
)
from semantic.checkpoint import EMBEDDED_CHECKPOINT
from semantic.codec.settings import EncoderSettings
from semantic.codec.vq_codec import Codec, load_vq_codec
from semantic.demo_photos import describe_photo, load_photo, photo_names, photo_path
from semantic.index_frame import FrameGeometry, IndexFrame, LayerGeometry, Rung
from semantic.judge import RecognitionJudge
from semantic.metrics import psnr_db
from semantic.pictures import PictureError

KEYS = {
    "photos",
    "bits_per_pixel",
    "psnr_db",
    "ms_ssim",
    "codebook_usage",
    "judge_agreement",
    "judge_chance",
    "judge_kappa",
    "encode_p95_ms",
    "decode_p95_ms",
}


@pytest.fixture(scope="module")
def judge() -> RecognitionJudge:
    return RecognitionJudge()


def save_photos(folder: Path, names: list[str], side: int = 180) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        load_photo(name, side).save(folder / f"{name}.png")


# which photos ------------------------------------------------------------------------------------


def test_a_folder_of_photos_in_the_order_of_names(tmp_path: Path) -> None:
    save_photos(tmp_path, ["rocket", "coffee"])
    (tmp_path / "readme.txt").write_text("no photo")
    assert read_photos(tmp_path) == [
        AskedPhoto(tmp_path / "coffee.png", DEFAULT_QUERY),
        AskedPhoto(tmp_path / "rocket.png", DEFAULT_QUERY),
    ]
    (tmp_path / "images").mkdir()
    save_photos(tmp_path / "images", ["china"])
    assert [row.file.name for row in read_photos(tmp_path, query="Is it old?")] == ["china.png"]


def test_a_listing_with_questions(tmp_path: Path) -> None:
    save_photos(tmp_path / "images", ["coffee"])
    listing = tmp_path / "rows.jsonl"
    row = {"image": "coffee.png", "question": "Is it hot?", "answer": "yes"}
    listing.write_text(f"{json.dumps(row)}\n\n{json.dumps({**row, 'question': 'Is it full?'})}\n")
    rows = read_photos(tmp_path, listing)
    assert [row.question for row in rows] == ["Is it hot?", "Is it full?"]
    assert {row.file for row in rows} == {tmp_path / "images" / "coffee.png"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 1"),
        ('{"image": "a.png"}', "line 1"),
        ('{"image": 3, "question": "x"}', "line 1"),
        ("[1, 2]", "line 1"),
        ("", "no questions"),
    ],
)
def test_listings_that_are_none(tmp_path: Path, line: str, message: str) -> None:
    listing = tmp_path / "rows.jsonl"
    listing.write_text(line)
    with pytest.raises(PhotosError, match=message):
        read_photos(tmp_path, listing)


def test_limits_are_spread_over_all_rows() -> None:
    assert spread_evenly(list(range(10)), 3) == [0, 3, 6]
    assert spread_evenly(list(range(3)), 10) == [0, 1, 2]
    assert len(set(spread_evenly(list(range(700)), 200))) == 200


# figures -----------------------------------------------------------------------------------------


ROWS = [
    AskedPhoto(photo_path(name), question)
    for name in ("chelsea", "coffee", "rocket")
    for question in describe_photo(name).questions
]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_vq_codec(device="cpu")


@pytest.fixture(scope="module")
def report(codec: Codec, judge: RecognitionJudge) -> CodecReport:
    return benchmark_codec(
        codec,
        judge,
        ROWS,
        settings=EncoderSettings(bits_per_pixel=0.1),
        rates=codec.usual_rates,
        rivals=("jpeg2000", "webp"),
        with_containers=True,
    )


def test_figures_by_hand(codec: Codec, judge: RecognitionJudge, report: CodecReport) -> None:
    values = report.to_json()
    assert values.keys() >= KEYS
    assert (report.photos, report.questions) == (3, 6)
    psnr, matches = [], 0
    for row in ROWS:
        source = load_photo(row.file.stem, codec.image_size)
        received = codec.decode(codec.encode(source, row.question, at(rate_at(codec, 0.1))))
        psnr.append(psnr_db(source, received))
        first, second = judge.answer([source, received], [row.question] * 2)
        matches += first.text == second.text
    main = report.main
    assert main.codec.psnr_db == pytest.approx(np.mean(psnr), abs=0.01)
    assert main.codec.agreement.match == pytest.approx(matches / 6)
    assert main.codec.bits_per_pixel == values["bits_per_pixel"] == 0.1
    assert len(main.encode_ms) == len(main.decode_ms) == 6
    assert min(main.encode_ms + main.decode_ms) > 1
    assert 0 < values["decode_median_ms"] <= values["decode_p95_ms"] < 60_000
    # Three photos cannot use every codeword: the coarsest grid has 25 tokens, its codebooks 256.
    assert 0.1 < main.codebook_usage < 0.9


def test_every_rung_stands_beside_its_rivals(codec: Codec, report: CodecReport) -> None:
    ladder = report.to_json()["ladder"]
    rates = [geometry.bits_per_pixel for geometry in codec.geometries]
    assert [rung["bits_per_pixel"] for rung in ladder] == rates
    for rung in ladder:
        assert rung.keys() >= KEYS
        for rivals in (rung["rivals"], rung["rivals_in_containers"]):
            assert list(rivals) == ["jpeg2000", "webp"]
            for rival in rivals.values():
                assert rival is None or 0.8 < rival["bits_per_pixel"] / rung["bits_per_pixel"] <= 1
    # A whole JPEG 2000 file cannot be as small as the lowest rung: no mean over those that could.
    assert ladder[0]["rivals_in_containers"]["jpeg2000"] is None
    best, least = ladder[-1]["rivals"]["webp"], ladder[0]["rivals"]["webp"]
    assert best["psnr_db"] > least["psnr_db"] + 5
    assert [one["psnr_db"] for one in ladder] == sorted(one["psnr_db"] for one in ladder)


def test_table_for_people(report: CodecReport, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report)
    text = capsys.readouterr().out
    assert f"{report.main.codec.psnr_db:.2f}" in text
    assert "n/a" in text
    assert "3 photos, 6 questions" in text


def test_codebook_usage_is_a_share_of_all_codewords() -> None:
    geometry = FrameGeometry("0badc0de", 16, 2, (LayerGeometry(3, 2), LayerGeometry(1, 1)))
    use = CodewordUse(geometry)
    assert use.share == 0
    first = (np.array([[0, 3], [0, 3], [1, 3]], np.uint16), np.array([[2]], np.uint16))
    use.add(IndexFrame(0, geometry, first))
    assert use.share == pytest.approx(4 / 12)  # {0, 1}, {3} and {2} of three times four
    use.add(IndexFrame(1, geometry, first))
    assert use.share == pytest.approx(4 / 12)


def test_what_is_not_sent_uses_no_codeword() -> None:
    layers = (LayerGeometry(4, 2), LayerGeometry(1, 1))
    geometry = FrameGeometry("0badc0de", 16, 2, layers, Rung(1, ((1, 1),)))
    use = CodewordUse(geometry)
    indices = (np.array([[0, 1], [1, 1], [2, 1], [2, 1]], np.uint16), np.array([[2]], np.uint16))
    use.add(IndexFrame.of_rate(0, geometry, indices, None, None))
    assert use.share == pytest.approx(4 / 8)  # {0, 1, 2} and {2}; the second segment is never sent


def test_broken_photos_are_named(codec: Codec, judge: RecognitionJudge, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    with pytest.raises(PictureError, match=r"broken\.jpg"):
        benchmark_codec(codec, judge, read_photos(tmp_path))


# the command -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_command_prints_one_json_object(uoisc: RunCommand, tmp_path: Path) -> None:
    save_photos(tmp_path / "data", ["chelsea", "coffee"])
    result = uoisc(
        "benchmark",
        "codec",
        "--data",
        tmp_path / "data",
        "--perceptual",
        "--json",
        "--device",
        "cpu",
    )
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert values.keys() >= KEYS
    assert values["photos"] == 2
    assert values["judge"] == "recognition"
    for coder in (values, values["rivals"]["jpeg2000"]):
        assert -100 < coder["ssimulacra2"] < 100
        assert 0 < coder["flip"] < 1
    assert values["rivals"]["jpeg2000"].keys() < values.keys()
    assert math.isfinite(values["psnr_db"])


@pytest.mark.slow
def test_the_judge_of_the_training_may_not_score(
    uoisc: RunCommand, judge: RecognitionJudge, tmp_path: Path
) -> None:
    with safe_open(EMBEDDED_CHECKPOINT, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = {**opened.metadata(), "intent_judge": judge.identity}
    save_file(tensors, tmp_path / "pleasing.safetensors", metadata)
    save_photos(tmp_path / "data", ["chelsea"])
    result = uoisc(
        *("benchmark", "codec", "--data", tmp_path / "data"),
        *("--checkpoint", tmp_path / "pleasing.safetensors"),
    )
    assert result.returncode == 1
    assert "trained to please this very judge" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--data", "."], "no photos"),
        (["--data", ".", "--questions", "none.jsonl"], "none.jsonl"),
        (["--data", ".", "--query", "x", "--questions", "none.jsonl"], "not both"),
        (["--data", "tests", "--rivals", "gif"], "jpeg2000, webp, avif"),
    ],
)
def test_command_names_what_is_wrong(uoisc: RunCommand, arguments: list[str], name: str) -> None:
    result = uoisc("benchmark", "codec", *arguments)
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert name in line


# the judge's temperature -------------------------------------------------------------------------


def test_gains_of_the_judges_temperature(judge: RecognitionJudge, tmp_path: Path) -> None:
    """A loud question makes any photo what is asked for, a silent one is not heard: no gain in either."""
    seen = judge.log_classes([load_photo(name, 160) for name in photo_names()])
    labels = seen.argmax(1).numpy()
    assert labelled_gain(judge.with_temperature(0.005), seen, labels, seed=0) == (1, 1)
    own, other = labelled_gain(judge.with_temperature(50), seen, labels, seed=0)
    assert (own, other) == (1, 0)
    objects = [{"woman"}, {"cat"}, {"coffee"}, {"rocket"}, {"motorcycle"}, {"temple"}, {"flower"}]
    shown, absent = object_gain(judge, seen, objects, seed=0)
    assert shown >= 4 / 7
    assert absent <= 3 / 7
    loud = object_gain(judge.with_temperature(0.005), seen, objects, seed=0)
    assert loud[0] == loud[1] >= 5 / 7
    ids = imagenet_ids()
    assert len(ids) == 1000
    save_photos(tmp_path, ["chelsea"])
    (tmp_path / "chelsea.png").rename(tmp_path / f"{ids[282]}_tiger_cat.png")
    files, found = read_labelled(tmp_path)
    assert judge.class_names[int(found[0])] == "tiger cat"
    assert len(files) == 1
