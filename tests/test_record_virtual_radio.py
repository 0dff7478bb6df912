"""Recording from the real gr-uhd and gr-soapy code: a replay counts what was counted on the air."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blocks.frame_assembler import AssembledFrame
from captures.recording import Gap
from captures.sent_frames import SentFrame, known_geometries, load_sent
from captures.verify import verify_recording
from cli.replay import replay_profile
from flowgraphs.replayer import ReplayResult, run_replay
from semantic.index_frame import IndexFrame
from semantic.link_statistics import Fate
from tests.link_parts import random_frame, same_indices
from tests.radio_link import KINDS, air, virtual_profile
from tests.radio_recording import LiveRecording, record_over_the_air

pytestmark = pytest.mark.usefixtures("virtual_radio")

FRAMES = [random_frame(number) for number in range(1, 6)]
# Not worth a burst, and odd: half of it is no whole number at the receiver's rate.
LOST = 10_001


def record(
    folder: Path, kind: str, device_args: Sequence[str] = (), overrides: Sequence[str] = ()
) -> LiveRecording:
    with air() as name:
        profile = virtual_profile(kind, name, device_args, overrides)
        return record_over_the_air(profile, folder / "r", [SentFrame(one) for one in FRAMES])


def replay(live: LiveRecording) -> ReplayResult:
    profile = replay_profile(live.recording, "replay", None, [])
    return run_replay(profile, known_geometries(load_sent(live.recording)), live.recording)


def as_values(picture: AssembledFrame) -> dict[str, Any]:
    """Everything about a picture, as something to compare."""
    frame = picture.frame
    return {
        "frame_id": picture.frame_id,
        "blocks": picture.blocks,
        "blocks_ok": picture.blocks_ok,
        "bursts": picture.bursts,
        "indices": None if frame is None else [layer.tolist() for layer in frame.indices],
        "erased": None if frame is None or frame.erased is None else [layer.tolist() for layer in frame.erased],
    }


def whole(pictures: Sequence[AssembledFrame]) -> list[int]:
    """Ids of the frames that came through without a mistake."""
    sent = {frame.frame_id: frame for frame in FRAMES}
    return [
        one.frame_id
        for one in pictures
        if one.complete and one.frame and same_indices(one.frame, sent[one.frame_id])
    ]


def check_replay_is_the_same(live: LiveRecording) -> None:
    """Sound on disk, every burst annotated, and nothing that a replay counts differs from the air."""
    recording = live.recording
    assert verify_recording(recording.path) == []
    assert recording.records == live.records
    assert recording.metadata.info.statistics == live.statistics.to_json()
    assert len(recording.bursts) == live.statistics.detected
    again = replay(live)
    assert again.statistics.to_json() == live.statistics.to_json()
    assert again.records == live.records
    assert [as_values(one) for one in again.pictures] == [as_values(one) for one in live.pictures]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_arrives(kind: str, tmp_path: Path) -> None:
    live = record(tmp_path, kind, ["noise_dbfs=-25", "cfo_hz=4321"])
    assert whole(live.pictures) == [1, 2, 3, 4, 5]
    assert live.recording.gaps == ()
    assert live.statistics.fates[Fate.DECODED] == len(FRAMES) == live.statistics.detected
    check_replay_is_the_same(live)


@pytest.mark.parametrize("samples_per_symbol", [2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_an_overflow(kind: str, samples_per_symbol: int, tmp_path: Path) -> None:
    """One gap of the length that was lost, one burst cut by it; the same in the replay."""
    live = record(
        tmp_path,
        kind,
        ["noise_dbfs=-25", "overflow_burst=3", f"overflow_samples={LOST}"],
        [f"waveform.samples_per_symbol={samples_per_symbol}", "waveform.symbol_rate_hz=200e3"],
    )
    assert [gap.lost for gap in live.recording.gaps] == [LOST]
    assert live.statistics.overflows == 1
    assert live.statistics.samples_lost == pytest.approx(2 * LOST / samples_per_symbol, abs=1)
    assert whole(live.pictures) == [1, 2, 4, 5]
    assert [record.fate for record in live.records] == [
        *(Fate.DECODED, Fate.DECODED, Fate.OVERFLOW, Fate.DECODED, Fate.DECODED)
    ]
    cut = live.recording.bursts[2]
    (gap,) = live.recording.gaps
    assert cut.sample_start < gap.sample_start <= cut.sample_start + (cut.sample_count or 0)
    check_replay_is_the_same(live)
