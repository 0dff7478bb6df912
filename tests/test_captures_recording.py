"""Reading recordings: other people's, damaged ones, and files made to do harm."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captures import metadata
from captures.errors import CaptureError
from captures.library import find_recording, recordings_in
from captures.recording import Gap, load_recording, open_recording
from tests.recordings import change, write_foreign

SAMPLES = (np.arange(1, 101) * (0.001 + 0.002j)).astype(np.complex64)


def error_of(path: Path) -> str:
    """The one line that opening the recording ends in."""
    with pytest.raises(CaptureError) as caught:
        open_recording(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_a_foreign_recording(tmp_path: Path) -> None:
    path = write_foreign(tmp_path, SAMPLES, info={"core:hw": "a radio", "antenna:gain": 3})
    recording = open_recording(path)
    assert np.array_equal(recording.read_all(), SAMPLES)
    assert (recording.samples, recording.gaps, recording.problems) == (100, (), ())
    assert recording.records == []
    assert not recording.partial
    assert recording.metadata.info.hardware == "a radio"
    assert recording.duration_s == 100 / 4e6


@pytest.mark.parametrize("name", ["foreign", "foreign.sigmf-data", "foreign.sigmf-meta"])
def test_any_ending_will_do(tmp_path: Path, name: str) -> None:
    write_foreign(tmp_path, SAMPLES)
    assert open_recording(tmp_path / name).samples == 100


@pytest.mark.parametrize("most", [1, 7, 99, 100, 1000])
def test_pieces_of_any_size(tmp_path: Path, most: int) -> None:
    recording = open_recording(write_foreign(tmp_path, SAMPLES, "ci16_be"))
    pieces = list(recording.pieces(most))
    assert max(piece.size for piece in pieces) <= most
    assert np.array_equal(np.concatenate(pieces), recording.read_all())


def test_no_captures_means_one(tmp_path: Path) -> None:
    recording = open_recording(write_foreign(tmp_path, SAMPLES, captures=[]))
    assert [segment.sample_start for segment in recording.segments] == [0]


def test_gaps(tmp_path: Path) -> None:
    captures = [
        {"core:sample_start": 0, "core:global_index": 1000},
        {"core:sample_start": 30, "core:global_index": 1030, "core:frequency": 1e9},
        {"core:sample_start": 40, "core:global_index": 1540},
    ]
    recording = open_recording(write_foreign(tmp_path, SAMPLES, captures=captures))
    assert recording.gaps == (Gap(40, 500),)


def test_offset_moves_all_indices(tmp_path: Path) -> None:
    """Of a recording that was split over several files."""
    captures = [{"core:sample_start": 500}, {"core:sample_start": 520, "core:global_index": 600}]
    path = write_foreign(
        tmp_path, SAMPLES, info={"core:offset": 500}, captures=captures,
        annotations=[{"core:sample_start": 510, "core:sample_count": 90}],
    )  # fmt: skip
    recording = open_recording(path)
    assert [segment.sample_start for segment in recording.segments] == [0, 20]
    assert recording.gaps == (Gap(20, 80),)


def test_a_file_that_is_not_only_samples(tmp_path: Path) -> None:
    """SigMF's non-conforming datasets: a name of its own, bytes before and behind the samples."""
    path = write_foreign(
        tmp_path, SAMPLES, "ci16_le", info={"core:dataset": "x.dat", "core:trailing_bytes": 5},
        captures=[{"core:sample_start": 0, "core:header_bytes": 44}],
    )  # fmt: skip
    data = tmp_path / "foreign.sigmf-data"
    (tmp_path / "x.dat").write_bytes(bytes([9] * 44) + data.read_bytes() + bytes(5))
    data.unlink()
    recording = open_recording(path)
    assert recording.samples == 100
    assert np.allclose(recording.read_all(), SAMPLES, atol=1e-4)


def test_a_checksum_is_checked_where_there_is_one(tmp_path: Path) -> None:
    path = write_foreign(tmp_path, SAMPLES)
    data = path.with_suffix(".sigmf-data")
    change(path, "global", core__sha512=hashlib.sha512(data.read_bytes()).hexdigest().upper())
    assert open_recording(path).samples == 100
    content = bytearray(data.read_bytes())
    content[17] ^= 1
    data.write_bytes(content)
    assert "SHA-512" in error_of(path)
    assert open_recording(path, check_hash=False).samples == 100


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"core:datatype": "rf32_le"}, "real samples"),
        ({"core:datatype": None}, "core:datatype"),
        ({"core:datatype": 5}, "core:datatype"),
        ({"core:version": None}, "core:version"),
        ({"core:num_channels": 2}, "expected one channel"),
        ({"core:num_channels": 10**30}, "core:num_channels"),
        ({"core:sample_rate": None}, "core:sample_rate is missing"),
        ({"core:sample_rate": 0}, "core:sample_rate"),
        ({"core:sample_rate": -4e6}, "core:sample_rate"),
        ({"core:sample_rate": "4e6"}, "core:sample_rate"),
        ({"core:sample_rate": True}, "core:sample_rate"),
        ({"core:sample_rate": 1e300}, "core:sample_rate"),
        ({"core:offset": -1}, "core:offset"),
        ({"core:offset": 5}, "before core:offset"),
        ({"core:trailing_bytes": 10**6}, "shorter than"),
        ({"core:trailing_bytes": -1}, "core:trailing_bytes"),
        ({"core:trailing_bytes": 3}, "ends inside a sample"),
        ({"core:sha512": "abc"}, "core:sha512"),
        ({"core:dataset": "../foreign.sigmf-data"}, "plain name"),
        ({"core:dataset": "/etc/passwd"}, "plain name"),
        ({"core:dataset": ".."}, "plain name"),
        ({"core:dataset": "a\x00b"}, "plain name"),
        ({"core:dataset": "x" * 300}, "core:dataset"),
        ({"core:dataset": "gone.dat"}, "no such file"),
        ({"core:extensions": [{"name": "a", "version": "1", "optional": False}]}, "'a'"),
        ({"core:extensions": [{"name": "uoisc", "version": "2.0.0", "optional": True}]}, "2.0.0"),
        ({"core:extensions": "uoisc"}, "core:extensions"),
        ({"uoisc:samples": 101}, "truncated: 100 samples, 101 were recorded"),
        ({"uoisc:samples": -1}, "uoisc:samples"),
        ({"uoisc:samples": 99, "uoisc:state": "complete"}, "99 were recorded"),
        ({"uoisc:state": "odd"}, "uoisc:state"),
        ({"uoisc:symbol_rate_hz": 0}, "uoisc:symbol_rate_hz"),
        ({"uoisc:state": "recording", "uoisc:samples": 0}, "no samples"),
        ({"uoisc:receiver": 3}, "uoisc:receiver"),
        ({"uoisc:receiver": {"dc_block_length": -1}}, "uoisc:receiver.dc_block_length"),
        ({"uoisc:receiver": {"max_iterations": 201}}, "uoisc:receiver.max_iterations"),
        ({"uoisc:sent_frames": [{"file": "../x", "sha256": "0" * 64}]}, "uoisc:sent_frames"),
        ({"uoisc:sent_frames": [{"file": ".x", "sha256": "0" * 64}]}, "uoisc:sent_frames"),
        ({"uoisc:sent_frames": [{"file": "x", "sha256": "0"}]}, "uoisc:sent_frames"),
    ],
)
def test_global_values_that_will_not_do(
    tmp_path: Path, info: dict[str, Any], expected: str
) -> None:
    path = write_foreign(tmp_path, SAMPLES)
    raw = json.loads(path.read_text())
    for key, value in info.items():
        raw["global"].pop(key, None) if value is None else raw["global"].update({key: value})
    path.write_text(json.dumps(raw))
    message = error_of(path)
    assert expected in message
    assert "foreign" in message or "gone.dat" in message


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"global": None}, "global: expected an object"),
        ({"global": []}, "global: expected an object"),
        ({"captures": {}}, "captures: expected a list"),
        ({"captures": [3]}, "captures[0]: expected an object"),
        ({"captures": [{}]}, "captures[0]: core:sample_start"),
        ({"captures": [{"core:sample_start": -1}]}, "captures[0]: core:sample_start"),
        ({"captures": [{"core:sample_start": 1.5}]}, "captures[0]: core:sample_start"),
        ({"captures": [{"core:sample_start": 2**70}]}, "captures[0]: core:sample_start"),
        ({"captures": [{"core:sample_start": 101}]}, "begins at sample 101 of 100"),
        ({"captures": [{"core:sample_start": 5}, {"core:sample_start": 5}]}, "come after the last"),
        ({"captures": [{"core:sample_start": 9}, {"core:sample_start": 5}]}, "come after the last"),
        (
            {
                "captures": [
                    {"core:sample_start": 0, "core:global_index": 50},
                    {"core:sample_start": 10, "core:global_index": 20},
                ]
            },
            "core:global_index goes back",
        ),
        (
            {"captures": [{"core:sample_start": 0, "core:global_index": -3}]},
            "captures[0]: core:global_index",
        ),
        (
            {"captures": [{"core:sample_start": 0, "core:header_bytes": 10**9}]},
            "shorter than the 1000000000 bytes",
        ),
        (
            {"captures": [{"core:sample_start": 0}, {"core:sample_start": 5, "core:header_bytes": 8}]},
            "later segment",
        ),
        ({"annotations": "x"}, "annotations: expected a list"),
        ({"annotations": [{"core:sample_start": "0"}]}, "annotations[0]: core:sample_start"),
        (
            {"annotations": [{"core:sample_start": 50, "core:sample_count": 51}]},
            "annotations[0]: reaches beyond the 100 samples",
        ),
        (
            {"annotations": [{"core:sample_start": 0, "core:sample_count": -5}]},
            "annotations[0]: core:sample_count",
        ),
        ({"annotations": [{"core:sample_start": 0, "uoisc:fate": "eaten"}]}, "uoisc:fate"),
        (
            {"annotations": [{"core:sample_start": 0, "uoisc:fate": "decoded", "uoisc:snr_db": "x"}]},
            "uoisc:snr_db",
        ),
    ],
)  # fmt: skip
def test_sections_that_will_not_do(tmp_path: Path, sections: dict[str, Any], expected: str) -> None:
    assert expected in error_of(write_foreign(tmp_path, SAMPLES, **sections))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "expected a JSON object"),
        (b'{"global": NaN}', "NaN is not a number"),
        (b'{"global": {"core:sample_rate": 1e999}}', "global"),
        (b'{"global": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"{}", "global: expected an object"),
    ],
)
def test_files_that_are_no_metadata(tmp_path: Path, content: bytes, expected: str) -> None:
    path = write_foreign(tmp_path, SAMPLES)
    path.write_bytes(content)
    assert expected in error_of(path)


def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_foreign(tmp_path, SAMPLES, annotations=[{"core:sample_start": 0}] * 30)
    monkeypatch.setattr(metadata, "MAX_ANNOTATIONS", 29)
    assert "annotations: 30 entries, expected at most 29" in error_of(path)
    monkeypatch.setattr(metadata, "MAX_METADATA_BYTES", 100)
    assert "longer than 100 bytes" in error_of(path)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe would be waited on for ever."""
    path = write_foreign(tmp_path, SAMPLES)
    data = path.with_suffix(".sigmf-data")
    data.unlink()
    assert "no such file: the samples are missing" in error_of(path)
    os.mkfifo(data)
    assert "not an ordinary file" in error_of(path)
    path.unlink()
    os.mkfifo(path)
    assert "not an ordinary file" in error_of(path)
    assert "no such file" in error_of(tmp_path / "nothing")
    assert "archive" in error_of(tmp_path / "packed.sigmf")


def test_metadata_alone(tmp_path: Path) -> None:
    path = write_foreign(tmp_path, SAMPLES, info={"core:metadata_only": True})
    path.with_suffix(".sigmf-data").unlink()
    assert "core:metadata_only" in error_of(path)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    recording = open_recording(write_foreign(tmp_path, SAMPLES))
    os.truncate(recording.data_path, 400)
    with pytest.raises(CaptureError, match="ended while it was read"):
        recording.read_all()


def test_problems_do_not_keep_a_recording_from_being_looked_at(tmp_path: Path) -> None:
    path = write_foreign(tmp_path, SAMPLES, info={"uoisc:samples": 1000, "uoisc:state": "complete"})
    recording = load_recording(path)
    assert recording.samples == 100
    assert recording.problems == ("truncated: 100 samples, 1000 were recorded",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
KEYS = [
    *("core:datatype", "core:sample_rate", "core:num_channels", "core:offset", "core:dataset"),
    *("core:trailing_bytes", "core:extensions", "core:sha512", "core:sample_start"),
    *("core:sample_count", "core:global_index", "core:header_bytes", "core:frequency"),
    *("uoisc:state", "uoisc:samples", "uoisc:fate", "uoisc:sent_frames", "uoisc:transmission"),
]


@settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    section=st.sampled_from(["global", "captures", "annotations"]),
    key=st.sampled_from(KEYS),
    value=json_values,
)
def test_whatever_stands_there_it_is_read_or_refused(
    tmp_path: Path, section: str, key: str, value: object
) -> None:
    path = write_foreign(tmp_path, SAMPLES, annotations=[{"core:sample_start": 0}])
    raw = json.loads(path.read_text())
    target = raw[section] if section == "global" else raw[section][0]
    target[key] = value
    path.write_text(json.dumps(raw))
    try:
        recording = open_recording(path)
    except CaptureError:
        return
    assert recording.read_all().size == recording.samples
    assert all(gap.lost > 0 for gap in recording.gaps)


def test_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_foreign(tmp_path, SAMPLES, name="b")
    write_foreign(tmp_path, SAMPLES, name="a.1")
    assert [path.name for path in recordings_in(tmp_path)] == ["a.1.sigmf-meta", "b.sigmf-meta"]
    monkeypatch.chdir(tmp_path)
    assert find_recording("a.1") == Path("a.1.sigmf-meta")
    assert open_recording(find_recording("a.1")).name == "a.1"
    with pytest.raises(CaptureError, match="no such file"):
        find_recording("c")
    with pytest.raises(CaptureError, match="no such folder"):
        recordings_in(tmp_path / "none")
