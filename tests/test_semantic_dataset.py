"""Training sets in their three forms, and what is wrong with broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from semantic.dataset import DEFAULT_QUESTION, DatasetError, read_photo_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder ``images`` with two photos of COCO, below it a third of another year."""
    images = tmp_path / "images"
    (images / "val").mkdir(parents=True)
    for number, name in enumerate(("COCO_train2014_000000000009", "COCO_train2014_000000000025")):
        Image.new("RGB", (50, 40), (10 + number, 20, 30)).save(images / f"{name}.jpg", quality=95)
    Image.new("RGB", (32, 32), (200, 20, 30)).save(images / "val" / "COCO_val2014_000000000042.jpg")
    (images / "notes.txt").write_text("not a photo")
    return tmp_path


def _listing(folder: Path, *rows: object) -> Path:
    listing = folder / "train.jsonl"
    listing.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return listing


def _vqa(folder: Path, questions: object) -> Path:
    file = folder / "v2_OpenEnded_mscoco_train2014_questions.json"
    file.write_text(json.dumps({"data_type": "mscoco", "questions": questions}))
    return file


def test_json_lines(folder: Path) -> None:
    name = "COCO_train2014_000000000025.jpg"
    rows = [{"image": name, "question": "Is it dark?"}, {"image": name, "question": "Why?"}]
    photos = read_photo_set(_listing(folder, *rows), 32)
    assert photos.questions == (("Is it dark?", "Why?"),)
    assert photos.pictures.shape == (1, 3, 32, 32)
    assert abs(int(photos.pictures[0, 0, 16, 16]) - 11) <= 2
    assert photos.digest == read_photo_set(_listing(folder, *rows), 16).digest
    assert photos.digest != read_photo_set(_listing(folder, *rows[:1]), 32).digest


def test_vqa_questions(folder: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image_id": 42, "question": "Is it red?", "question_id": 42000},
        {"image_id": 9, "question": "Is it dark?", "question_id": 9000},
        {"image_id": 42, "question": "What is it?", "question_id": 42001},
    ]
    photos = read_photo_set(_vqa(folder, rows), 32)
    assert photos.questions == (("Is it red?", "What is it?"), ("Is it dark?",))
    assert photos.pictures[0, 0, 16, 16] > 190
    assert photos.pictures[1, 0, 16, 16] < 20


def test_a_folder_of_photos(folder: Path) -> None:
    for source in (folder, folder / "images"):
        photos = read_photo_set(source, 32)
        assert photos.questions == ((DEFAULT_QUESTION,),) * 2
    before = photos.digest
    first = folder / "images" / "COCO_train2014_000000000009.jpg"
    first.rename(first.with_name("z.jpg"))
    assert read_photo_set(folder, 32).digest != before


GOOD = {"image": "COCO_train2014_000000000009.jpg", "question": "Why?"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"train\.jsonl: no photos in it"),
        ([GOOD, "{no json"], r"train\.jsonl, line 2: not JSON"),
        ([GOOD, [1]], r"line 2: expected an object with image .* found \[1\]"),
        ([{"image": "a.png"}], r"line 1: expected an object with image .* and question"),
        ([{"image": 3, "question": "?"}], "line 1: expected an object"),
        ([{**GOOD, "question": " "}], "line 1: expected an object"),
        ([{**GOOD, "image": "../secret.png"}], "line 1: expected an object"),
        ([{**GOOD, "image": "/etc/photo.png"}], "line 1: expected an object"),
        ([{**GOOD, "image": "absent.png"}], r"train\.jsonl: photo .*absent\.png: No such file"),
        ([{**GOOD, "image": "notes.txt"}], r"train\.jsonl: photo .*notes\.txt: not a picture"),
    ],
)
def test_broken_listings(folder: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_photo_set(_listing(folder, *rows), 32)


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([], "no photos in it"),
        ({"a": 1}, "expected an object with a list questions"),
        ([{"image_id": 9}], r"questions\[0\]: expected an object with image_id and question"),
        ([{"image_id": "9", "question": "?"}], r"questions\[0\]: expected an object"),
        (
            [{"image_id": 9, "question": "Why?"}, {"image_id": 7, "question": "?"}],
            r"questions\[1\]: no photo COCO_\*_000000000007\.jpg in .*images",
        ),
    ],
)
def test_broken_vqa_questions(folder: Path, questions: object, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_photo_set(_vqa(folder, questions), 32)


def test_nothing_where_data_should_be(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no photos in it"):
        read_photo_set(tmp_path, 32)
    with pytest.raises(DatasetError, match=r"absent\.jsonl: No such file"):
        read_photo_set(tmp_path / "absent.jsonl", 32)
    (tmp_path / "questions.json").write_text("{")
    with pytest.raises(DatasetError, match=r"questions\.json: not JSON"):
        read_photo_set(tmp_path / "questions.json", 32)


def test_a_bad_photo_in_a_folder_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "c"):
        Image.new("RGB", (40, 40), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    found = read_photo_set(tmp_path, 32)
    assert len(found) == len(found.pictures) == 2
    assert "b.png" in caplog.text
    assert "1 of 3 photos left out" in caplog.text
    for name in ("a", "c"):
        (tmp_path / f"{name}.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="none of its 3 photos can be read"):
        read_photo_set(tmp_path, 32)
