"""Writing recordings: what is there at every moment, and what SigMF's own library says of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sigmf

from captures import writer as writer_module
from captures.datatypes import parse_datatype
from captures.errors import CaptureError
from captures.recording import Gap, load_recording, open_recording
from captures.sent_frames import SentFrame, gather_sent, known_geometries, load_sent, sent_folder
from captures.verify import verify_recording
from captures.writer import RecordingHeader, RecordingWriter
from semantic.link_statistics import BurstRecord, Fate, LinkStatistics
from tests.link_parts import GEOMETRY, random_frame, same_indices

SAMPLES = (np.arange(1, 1001) * (0.0005 + 0.0007j)).astype(np.complex64)
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def header(**changes: Any) -> RecordingHeader:
    values: dict[str, Any] = {
        "datatype": "ci16_le",
        "sample_rate_hz": 1000.0,
        "symbol_rate_hz": 250.0,
        "frequency_hz": 2.4e9,
        "started": STARTED,
        "hardware": "a radio",
        "profile": "mine",
    }
    return RecordingHeader(**{**values, **changes})


def record(start: int = 0, fate: Fate = Fate.DECODED, **changes: Any) -> BurstRecord:
    values: dict[str, Any] = {
        "snr_db": 12.5,
        "cfo_hz": -3.25,
        "level": 0.1,
        "frame_id": 7,
        "burst_number": 2,
        "mcs": 4,
        "code_blocks": 2,
        "code_blocks_ok": 2,
        "symbols": 20,
        "sample_rate_offset_ppm": 1.5,
    }
    return BurstRecord(fate, start, **{**values, **changes})


def put_samples(writer: RecordingWriter, count: int = 1000) -> None:
    kind = parse_datatype(writer.header.datatype)
    writer.data_path.write_bytes(kind.encode(SAMPLES[:count]))


def statistics_of(records: list[BurstRecord]) -> dict[str, Any]:
    statistics = LinkStatistics()
    for one in records:
        statistics.add(one)
    return statistics.to_json()


def check_with_sigmf(path: Path) -> sigmf.SigMFFile:
    """SigMF's own library reads it, finds it valid and its checksum right."""
    file = sigmf.fromfile(str(path))
    file.validate()
    return file


@pytest.mark.parametrize("datatype", ["cf32_le", "ci16_le"])
def test_a_whole_recording(tmp_path: Path, datatype: str) -> None:
    records = [
        record(5), record(30, Fate.BLOCKS_FAILED, code_blocks_ok=1),
        record(60, Fate.HEADER_FAILED, frame_id=None, burst_number=None, mcs=None, code_blocks=0,
               code_blocks_ok=0, sample_rate_offset_ppm=None),
    ]  # fmt: skip
    writer = RecordingWriter(
        tmp_path / "r", header(datatype=datatype, author="A. B.", description="a test")
    )
    put_samples(writer)
    for number in (1, 0, 2):  # in any order
        writer.add_burst(records[number], 100 * number, 80)
    sent = {"mcs": 4, "bursts": 4, "code_blocks": 8, "symbols": 1, "payload_symbols": 1}
    writer.finish(1000, statistics_of(records), sent)
    file = check_with_sigmf(writer.path)
    info = file.get_global_info()
    assert info["core:datatype"] == datatype
    assert info["core:hw"] == "a radio"
    assert info["core:author"] == "A. B."
    assert info["core:recorder"].startswith("uoisc-air ")
    (capture,) = file.get_captures()
    assert capture["core:datetime"] == "2026-01-02T03:04:05.000000Z"
    assert capture["core:frequency"] == 2.4e9
    recording = open_recording(tmp_path / "r")
    assert recording.records == records
    assert recording.metadata.info.transmission is not None
    assert np.allclose(recording.read_all(), SAMPLES, atol=1 / 32768)
    assert verify_recording(writer.path) == []
    first = file.get_annotations()[0]
    assert first["core:label"] == "7/2 decoded"
    # 1.25 symbol rates around the carrier as it was heard.
    edges = first["core:freq_lower_edge"], first["core:freq_upper_edge"]
    assert edges == (2.4e9 - 3.25 - 156.25, 2.4e9 - 3.25 + 156.25)


def test_the_metadata_is_whole_at_every_moment(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", header())
    check_with_sigmf_schema(writer.path)
    assert load_recording(writer.path).samples == 0
    put_samples(writer, 600)
    writer.add_burst(record(), 10, 80)
    writer.refresh(500)
    check_with_sigmf_schema(writer.path)
    recording = open_recording(writer.path)
    assert recording.partial
    assert (recording.samples, recording.spare_bytes) == (500, 400)
    assert recording.read_all().size == 500
    assert recording.records == [record()]
    (problem,) = verify_recording(writer.path)
    assert "readable up to sample 500, 100 more samples" in problem
    # The data file may have been cut more than that, inside a sample.
    writer.data_path.write_bytes(writer.data_path.read_bytes()[:1601])
    assert load_recording(writer.path).problems == ("truncated: 400 samples, 500 were recorded",)


def check_with_sigmf_schema(path: Path) -> None:
    sigmf.SigMFFile(metadata=json.loads(path.read_text())).validate()


def test_gaps_are_segments(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", header())
    put_samples(writer)
    writer.add_gap(400, 1000)
    writer.add_gap(700, 50)
    writer.finish(1000, statistics_of([]))
    file = check_with_sigmf(writer.path)
    assert [one["core:sample_start"] for one in file.get_captures()] == [0, 400, 700]
    assert [one["core:global_index"] for one in file.get_captures()] == [0, 1400, 1750]
    # 1400 samples at 1000 per second.
    assert file.get_captures()[1]["core:datetime"] == "2026-01-02T03:04:06.400000Z"
    assert open_recording(writer.path).gaps == (Gap(400, 1000), Gap(700, 50))


def test_places_in_the_stream_become_places_in_the_file(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", header())
    writer.add_gap(400, 1000)
    # Of samples that were lost: the first that was not.
    places = {-5: 0, 0: 0, 399.4: 399, 400: 400, 900: 400, 1400: 400, 1401: 401, 2000: 1000}
    assert {index: writer.file_sample(index) for index in places} == places


def test_what_lies_beyond_the_end_is_cut(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", header())
    put_samples(writer)
    writer.add_burst(record(1), 10, 80)
    writer.add_burst(record(2), 450, 80)
    writer.add_burst(record(3), 500, 80)
    writer.add_gap(600, 10)
    writer.finish(500, statistics_of([]))
    recording = open_recording(writer.path)
    assert recording.samples == 500
    assert [(one.sample_start, one.sample_count) for one in recording.bursts] == [
        (10, 80),
        (450, 50),
    ]
    assert recording.gaps == ()


def test_less_written_than_promised(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", header())
    put_samples(writer, 999)
    with pytest.raises(CaptureError, match="is the disk full"):
        writer.finish(1000, {})


def test_annotations_are_limited_and_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_ANNOTATIONS", 3)
    writer = RecordingWriter(tmp_path / "r", header())
    put_samples(writer)
    records = [record(number) for number in range(5)]
    for number, one in enumerate(records):
        writer.add_burst(one, 10 * number, 5)
    writer.finish(1000, statistics_of(records))
    recording = open_recording(writer.path)
    assert len(recording.bursts) == 3
    assert recording.metadata.info.annotations_left_out == 2
    assert verify_recording(writer.path) == []


@pytest.mark.parametrize("there", ["r.sigmf-meta", "r.sigmf-data", "r.sent"])
def test_nothing_is_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(CaptureError, match="exists already"):
        RecordingWriter(tmp_path / "r", header())
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_names_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="its folder does not exist"):
        RecordingWriter(tmp_path / "none" / "r", header())
    with pytest.raises(CaptureError, match="expected a name"):
        RecordingWriter(tmp_path / ".sigmf-meta", header())
    with pytest.raises(CaptureError, match="expected one of cf32_le, ci16_le"):
        RecordingWriter(tmp_path / "r", header(datatype="ci8"))
    assert list(tmp_path.iterdir()) == []


def test_discarding_leaves_nothing(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", header(), [SentFrame(random_frame(1))])
    assert len(list(tmp_path.iterdir())) == 3
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_sent_frames_lie_beside(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    frames = [random_frame(3), random_frame(1)]
    for name, frame in zip(("b", "a"), frames, strict=True):
        (source / f"{name}.uoisc").write_bytes(frame.to_bytes())
    (source / "a.png").write_bytes(b"a picture")
    gathered = gather_sent([source / "b.uoisc", source])
    assert [one.frame.frame_id for one in gathered] == [3, 1, 3]
    writer = RecordingWriter(tmp_path / "r", header(), gathered)
    put_samples(writer)
    writer.finish(1000, statistics_of([]))
    recording = open_recording(writer.path)
    loaded = load_sent(recording)
    assert [one.frame.frame_id for one in loaded] == [3, 1, 3]
    assert same_indices(loaded[0].frame, frames[0])
    assert [one.picture is not None for one in loaded] == [False, True, False]
    assert loaded[1].picture is not None
    assert loaded[1].picture.read_bytes() == b"a picture"
    assert GEOMETRY in known_geometries(loaded)
    # Sent frames that were changed are worse than none: errors would be counted against them.
    file = sent_folder(writer.path) / "0001-0000000001.uoisc"
    file.write_bytes(random_frame(2).to_bytes())
    with pytest.raises(CaptureError, match="SHA-256"):
        load_sent(recording)
    assert any("SHA-256" in problem for problem in verify_recording(writer.path))
    file.unlink()
    with pytest.raises(CaptureError, match="no such file"):
        load_sent(recording)


def test_nothing_to_send(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="0 index frames"):
        gather_sent([tmp_path])


def test_verify_finds_what_is_wrong(tmp_path: Path) -> None:
    records = [record(5), record(30)]
    writer = RecordingWriter(tmp_path / "r", header())
    put_samples(writer)
    for number, one in enumerate(records):
        writer.add_burst(one, 100 * number, 80)
    writer.finish(1000, statistics_of([records[0]]))
    problems = verify_recording(writer.path)
    assert problems == [
        "2 bursts are annotated, the receiver counted 1",
        "2 bursts are annotated as decoded, the receiver counted 1",
    ]
    raw = json.loads(writer.path.read_text())
    raw["global"]["core:hw"] = 5
    raw["annotations"].reverse()
    writer.path.write_text(json.dumps(raw))
    (problem,) = verify_recording(writer.path)[-1:]
    assert "core:hw" in problem


def test_verify_sees_clipping_and_what_is_no_number(tmp_path: Path) -> None:
    for datatype, value, expected in (
        ("ci16_le", 2.0, "clipped: 100 of 1000 samples"),
        ("cf32_le", np.nan, "100 samples are not numbers"),
    ):
        writer = RecordingWriter(tmp_path / datatype, header(datatype=datatype))
        samples = SAMPLES.copy()
        samples[::10] = value
        samples = samples if datatype == "cf32_le" else np.nan_to_num(samples)
        writer.data_path.write_bytes(parse_datatype(datatype).encode(samples))
        writer.finish(1000, statistics_of([]))
        (problem,) = verify_recording(writer.path)
        assert expected in problem


def test_a_full_disk_leaves_no_empty_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        raise CaptureError(f"{path}: cannot write: No space left on device")

    for module in ("writer", "sent_frames"):
        with monkeypatch.context() as patched:
            patched.setattr(f"captures.{module}.replace_file", full)
            with pytest.raises(CaptureError, match="No space left"):
                RecordingWriter(tmp_path / "r", header(), [SentFrame(random_frame(1))])
        assert list(tmp_path.iterdir()) == []
