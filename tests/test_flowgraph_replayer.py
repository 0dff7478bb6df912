"""Replaying: the same counts as live, the same bits every time, any sample rate and type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blocks.modem.simulated_air import resample
from captures.errors import CaptureError
from captures.recording import Gap, Recording, open_recording
from captures.sent_frames import known_geometries, load_sent
from flowgraphs.front_end import anti_alias_taps
from flowgraphs.radio_file import rate_ratio
from flowgraphs.replayer import ReplayResult, run_replay
from sdr_config.load import load_profile
from sdr_config.schema import Profile
from semantic.index_frame import FrameGeometry
from semantic.link_statistics import Fate
from tests.link_parts import GEOMETRY
from tests.recordings import burst_samples, change, write_foreign
from tests.test_flowgraph_recorder import PORTS, simulate

NO_CODECS: list[FrameGeometry] = []


def profile(*overrides: str) -> Profile:
    return load_profile("replay", [*PORTS, *overrides])


def replay(recording: Recording, *overrides: str, items: int = 100_000_000) -> ReplayResult:
    return run_replay(profile(*overrides), known_geometries(load_sent(recording)), recording, items)


def fingerprint(result: ReplayResult) -> object:
    """Everything but the time it took."""
    return (
        [record.to_json() for record in result.records],
        result.statistics.to_json(),
        [(one.frame_id, one.blocks, one.blocks_ok, one.bursts) for one in result.pictures],
        [one.frame.to_message() for one in result.pictures if one.frame is not None],
        None if result.constellation is None else result.constellation.tobytes(),
    )


@pytest.mark.parametrize("datatype", ["cf32_le", "ci16_le"])
@pytest.mark.parametrize("loss", [None, (45_000, 3000)])
def test_live_and_replay_count_the_same(
    tmp_path: Path, datatype: str, loss: tuple[int, int] | None
) -> None:
    """To the last digit of every measurement, near the threshold, where blocks fail."""
    recording, live = simulate(
        tmp_path, "channel.snr_db=3.7", "channel.cfo_hz=-1e4", "channel.sro_ppm=10",
        "waveform.amplitude=0.1", datatype=datatype, loss=loss, frames=12,
    )  # fmt: skip
    result = replay(recording)
    assert result.records == live.records == recording.records
    assert result.statistics.to_json() == live.statistics.to_json()
    assert [one.frame.to_message() for one in result.pictures if one.frame is not None] == [
        frame.to_message() for frame in live.received
    ]
    assert {Fate.DECODED, Fate.BLOCKS_FAILED} <= {record.fate for record in live.records}
    if loss is not None:
        assert result.statistics.samples_lost == loss[1] // 2
        assert Fate.OVERFLOW in {record.fate for record in live.records}


@pytest.mark.parametrize("samples_per_symbol", [2, 3, 4])
def test_every_time_the_same(tmp_path: Path, samples_per_symbol: int) -> None:
    """However the scheduler cuts the stream."""
    sps = f"waveform.samples_per_symbol={samples_per_symbol}"
    recording, _ = simulate(
        tmp_path, sps, "channel.snr_db=3.5", "channel.fading=rician", loss=(20_000, 1000)
    )
    first = fingerprint(replay(recording, sps))
    for items in (100_000_000, 50, 999, 4096):
        assert fingerprint(replay(recording, sps, items=items)) == first


@pytest.mark.parametrize(
    "datatype", ["cf32_le", "cf32_be", "cf64_le", "ci16_le", "ci16_be", "ci8", "cu8", "cu16_be", "ci32_be"]
)  # fmt: skip
def test_any_type(tmp_path: Path, datatype: str) -> None:
    recording = open_recording(write_foreign(tmp_path, burst_samples(), datatype))
    result = replay(recording)
    assert [record.frame_id for record in result.records] == [0, 1, 2]
    assert all(record.code_blocks_ok == record.code_blocks == 1 for record in result.records)
    assert result.statistics.fates[Fate.UNKNOWN_CODEC] == 3
    assert result.records[0].level == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(
    ("rate_hz", "samples_per_symbol"),
    [
        *((4e6, 4), (2.4e6, 4), (20e6, 4), (2e6, 2), (3e6, 5), (2.048e6, 4)),
        *((10e6 / 3, 4), (3333333.3, 4), (61.44e6, 8)),
    ],
)
def test_any_rate(tmp_path: Path, rate_hz: float, samples_per_symbol: int) -> None:
    """The sample rate of the file need not be the profile's; nothing is lost by resampling."""
    air = burst_samples()
    if rate_hz != 4e6:
        step = 4e6 / rate_hz
        air = resample(air, 0.0, step, int(air.size / step)).astype(np.complex64)
    path = write_foreign(tmp_path, air)
    change(path, "global", **{"core:sample_rate": rate_hz})
    result = replay(open_recording(path), f"waveform.samples_per_symbol={samples_per_symbol}")
    assert [record.frame_id for record in result.records] == [0, 1, 2]
    assert all(record.code_blocks_ok == 1 for record in result.records)


@pytest.mark.parametrize(
    ("rate_hz", "expected"),
    [(1.9e6, "less than two samples per symbol"), (4e6 * (1 + 1 / 1500), "ratio of whole numbers")],
)
def test_rates_that_will_not_do(tmp_path: Path, rate_hz: float, expected: str) -> None:
    path = write_foreign(tmp_path, burst_samples(1))
    change(path, "global", **{"core:sample_rate": rate_hz})
    with pytest.raises(CaptureError, match=expected) as caught:
        rate_ratio(open_recording(path), profile().waveform)
    assert str(path) in str(caught.value)


def test_the_filter_of_the_resampler_is_bounded() -> None:
    assert len(anti_alias_taps(1000 * 256)) < 10_000_000


def test_a_recording_without_bursts(tmp_path: Path) -> None:
    path = write_foreign(tmp_path, np.full(50_000, 0.1, np.complex64))
    result = replay(open_recording(path))
    assert (result.records, result.pictures, result.constellation) == ([], [], None)
    assert result.statistics.samples == 25_000


def test_what_settled_live_is_passed_over_again(tmp_path: Path) -> None:
    """The receiver did not listen to the first burst either."""
    samples = burst_samples()
    settle_s = 13_000 / 4e6
    path = write_foreign(tmp_path, samples, info={"uoisc:settle_s": settle_s})
    result = replay(open_recording(path))
    assert [record.frame_id for record in result.records] == [1, 2]
    everything = replay(open_recording(write_foreign(tmp_path, samples)))
    # Where it begins to search differs, and with it the last digits of what it measures.
    places = [(record.start_sample, record.fate) for record in result.records]
    assert places == [(record.start_sample, record.fate) for record in everything.records[1:]]
    assert result.statistics.samples == everything.statistics.samples - 6500


def test_a_break_of_unknown_length(tmp_path: Path) -> None:
    """Of a radio without a clock: no burst is put together from both sides; later gaps are still right."""
    samples = burst_samples(4)
    whole = [
        record.start_sample
        for record in replay(open_recording(write_foreign(tmp_path, samples))).records
    ]
    second, last = 2 * whole[1] + 4000, 2 * whole[3] - 500
    captures = [
        {"core:sample_start": 0, "core:global_index": 0},
        {"core:sample_start": second, "core:global_index": second, "uoisc:unknown_loss": True},
        {"core:sample_start": last, "core:global_index": last + 600},
    ]
    recording = open_recording(write_foreign(tmp_path, samples, captures=captures))
    assert recording.gaps == (Gap(second, 0), Gap(last, 600))
    result = replay(recording)
    assert (result.statistics.overflows, result.statistics.samples_lost) == (2, 300)
    starts = [record.start_sample for record in result.records]
    assert starts == [*whole[:3], whole[3] + 300]
    assert result.records[1].fate is Fate.OVERFLOW


def test_not_numbers_are_silence(tmp_path: Path) -> None:
    samples = burst_samples()
    samples[:100] = np.nan
    samples[-100:] = np.inf
    result = replay(open_recording(write_foreign(tmp_path, samples)))
    assert [record.frame_id for record in result.records] == [0, 1, 2]


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    recording = open_recording(write_foreign(tmp_path, burst_samples()))
    with recording.data_path.open("r+b") as file:
        file.truncate(8 * 40_000)
    with pytest.raises(CaptureError, match="ended while it was read"):
        replay(recording)


def test_more_pictures_than_the_sink_keeps(tmp_path: Path) -> None:
    recording, live = simulate(tmp_path, frames=80)
    result = replay(recording)
    assert [one.frame_id for one in result.pictures] == list(range(1, 81))
    assert all(one.complete for one in result.pictures)
    assert result.statistics.fates == live.statistics.fates
    assert result.pictures[0].frame is not None
    assert result.pictures[0].frame.geometry == GEOMETRY


@pytest.mark.parametrize("bad", [np.nan, complex(0, np.inf), -np.inf, 1e30, complex(1e30, np.nan)])
@pytest.mark.parametrize("dc_block_length", [0, 64])
def test_a_bad_sample_costs_no_later_burst(
    tmp_path: Path, bad: complex, dc_block_length: int
) -> None:
    """A running sum would keep it for the rest of the stream."""
    samples = burst_samples(count=2)
    stream = np.concatenate([samples, samples])
    place = samples.size - 500  # the silence behind the second burst of four
    stream[place] = bad
    result = replay(
        open_recording(write_foreign(tmp_path, stream)),
        f"receiver.dc_block_length={dc_block_length}",
    )
    assert [record.frame_id for record in result.records] == [0, 1, 0, 1]
    assert all(record.code_blocks_ok == record.code_blocks == 1 for record in result.records)
    assert result.statistics.samples_blanked >= 1
    if dc_block_length:  # before a filter makes several of it
        assert result.statistics.samples_blanked == 1


@pytest.mark.parametrize("nominal_hz", [2e6, 4e6, 8e6, 3.2e6])
def test_a_measured_rate_counts_as_the_nominal_one(tmp_path: Path, nominal_hz: float) -> None:
    settings = profile("waveform.symbol_rate_hz=1e6", "waveform.samples_per_symbol=2")
    ratios = [
        rate_ratio(
            open_recording(
                write_foreign(tmp_path, burst_samples(1), info={"core:sample_rate": rate_hz})
            ),
            settings.waveform,
        )
        for rate_hz in (nominal_hz, nominal_hz - 1, nominal_hz + 1)
    ]
    assert set(ratios) == {ratios[0]}
