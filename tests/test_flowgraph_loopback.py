"""The whole link in one process: frames in over a socket, through the simulated air, frames out.

Each run is a real flowgraph with real sockets on ports that the system chooses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from blocks.zmq_messages import AddressError
from flowgraphs.loopback import Loopback, LoopbackError, LoopbackResult, run_loopback
from sdr_config.load import load_profile
from semantic.index_frame import FrameGeometry, IndexFrame, LayerGeometry
from semantic.link_statistics import Fate
from tests.link_parts import ANY_PORT, PATIENCE_S, random_frame, same_indices

# A picture of 33,600 bits, 1.3 bit per pixel: four code blocks at rate 1/2.
PICTURE = FrameGeometry(
    "0123abcd",
    160,
    8,
    (LayerGeometry(400, 8), LayerGeometry(100, 8), LayerGeometry(25, 8)),
)
SMALL = FrameGeometry("beef0000", 32, 6, (LayerGeometry(36, 4), LayerGeometry(9, 4)))
GEOMETRIES = (PICTURE, SMALL)

QUICK_SEEDS = range(4)
SLOW_SEEDS = range(4, 20)


def run(frames: list[IndexFrame], **changes: object) -> LoopbackResult:
    """One loopback; ``changes`` are profile values, ``section__key``."""
    settings = {
        "zmq.frames_in": ANY_PORT,
        "zmq.pictures_out": ANY_PORT,
        "zmq.watch_out": ANY_PORT,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    profile = load_profile("loopback", [f"{key}={value}" for key, value in settings.items()])
    result = run_loopback(profile, GEOMETRIES, frames)
    check_books(result)
    return result


def check_books(result: LoopbackResult) -> None:
    """sent = sum of fates + undetected, and nothing was heard that was not sent."""
    report = result.statistics.to_json(result.bursts_sent)
    assert report["bursts_sent"] == sum(report["fates"].values()) + report["undetected"]
    assert report["undetected"] >= 0
    assert report["samples_dropped"] == 0
    assert len(result.records) == report["bursts_detected"]
    if not report["fates"][Fate.UNKNOWN_CODEC]:
        assert report["code_blocks_ok"] == sum(picture.blocks_ok for picture in result.pictures)


def picture(seed: int, frame_id: int = 1) -> IndexFrame:
    return random_frame(frame_id, seed=seed, geometry=PICTURE)


def index_error_rate(result: LoopbackResult, frame: IndexFrame) -> float:
    """Wrong or erased indices of the one frame received."""
    (received,) = result.received
    wrong = 0
    erased = received.erased or tuple(np.zeros(a.shape, np.bool_) for a in received.indices)
    for got, mask, sent in zip(received.indices, erased, frame.indices, strict=True):
        wrong += int((mask | (got != sent)).sum())
    return wrong / frame.geometry.indices


# The list of the release's smoke runs: rate, Es/N0, carrier offset of 5 % of the symbol rate, clocks.
SMOKE = {
    "rate 1/2, 20 dB": {"transmitter__mcs": 4, "channel__snr_db": 20.0},
    "rate 1/2, 12 dB": {"transmitter__mcs": 4, "channel__snr_db": 12.0},
    "rate 1/4, 3 dB": {"transmitter__mcs": 1, "channel__snr_db": 3.0},
    "rate 1/2, 15 dB, +5 %, +40 ppm": {
        "transmitter__mcs": 4, "channel__snr_db": 15.0, "channel__cfo_hz": 50e3, "channel__sro_ppm": 40.0,
    },
    "rate 1/2, 15 dB, -5 %, -40 ppm": {
        "transmitter__mcs": 4, "channel__snr_db": 15.0, "channel__cfo_hz": -50e3, "channel__sro_ppm": -40.0,
    },
}  # fmt: skip


def check_smoke(name: str, seed: int) -> None:
    settings = SMOKE[name]
    frame = picture(seed)
    result = run([frame], channel__seed=seed, **settings)
    assert index_error_rate(result, frame) == 0
    assert [one.complete for one in result.pictures] == [True]
    assert result.statistics.detected == result.bursts_sent
    assert result.statistics.snr_db_mean == pytest.approx(settings["channel__snr_db"], abs=0.6)
    cfo_hz = settings.get("channel__cfo_hz", 0.0)
    assert result.statistics.cfo_hz_mean == pytest.approx(cfo_hz, abs=20)
    for record in result.records:
        assert record.sample_rate_offset_ppm == pytest.approx(
            settings.get("channel__sro_ppm", 0.0), abs=8
        )


@pytest.mark.parametrize("seed", QUICK_SEEDS)
@pytest.mark.parametrize("name", SMOKE)
def test_smoke(name: str, seed: int) -> None:
    check_smoke(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SLOW_SEEDS)
@pytest.mark.parametrize("name", SMOKE)
def test_smoke_long(name: str, seed: int) -> None:
    check_smoke(name, seed)


def test_symbols_are_counted() -> None:
    frame = picture(1)
    result = run([frame])
    # 33,600 bits in 4 blocks of 8400 and 24 CRC bits at rate 1/2: 5616 symbols each.
    assert result.payload_symbols == 4 * 5616
    assert result.bursts_sent == 2
    body = 512 + 2 * 5616
    assert result.symbols == 2 * (16 + 256 + body + 8 * -(-body // 128))
    assert result.constellation is not None
    assert result.air_s > 0


@pytest.mark.parametrize("mcs", [0, 4])
@pytest.mark.parametrize("seed", QUICK_SEEDS)
def test_far_below_the_limit_there_is_no_picture_and_no_error(mcs: int, seed: int) -> None:
    """-6 dB: an honest failure."""
    result = run([picture(seed)], channel__snr_db=-6.0, channel__seed=seed, transmitter__mcs=mcs)
    assert result.received == []
    assert all(one.frame is None for one in result.pictures)
    assert result.statistics.code_blocks_ok == 0
    assert result.statistics.fates[Fate.DECODED] == 0


def test_nothing_at_all_is_heard_at_minus_20_db() -> None:
    result = run([picture(1)], channel__snr_db=-20.0)
    assert (result.received, result.pictures, result.records) == ([], [], [])
    assert result.statistics.undetected(result.bursts_sent) == result.bursts_sent
    assert result.constellation is None


def fingerprint(result: LoopbackResult) -> object:
    return (
        [record.to_json() for record in result.records],
        result.statistics.to_json(result.bursts_sent),
        [frame.to_message() for frame in result.received],
        None if result.constellation is None else result.constellation.tobytes(),
    )


@pytest.mark.parametrize("fading", ["none", "rayleigh"])
def test_same_seed_same_result(fading: str) -> None:
    """To the last bit, although the scheduler cuts the stream anew every time."""
    settings = {
        "channel__snr_db": 5.0, "channel__cfo_hz": 12_345.0, "channel__sro_ppm": 7.0,
        "channel__fading": fading,
    }  # fmt: skip
    frames = [picture(1), picture(2, frame_id=2)]
    one = run(frames, channel__seed=9, **settings)
    assert fingerprint(run(frames, channel__seed=9, **settings)) == fingerprint(one)
    assert fingerprint(run(frames, channel__seed=10, **settings)) != fingerprint(one)


def test_partial_frame_near_the_threshold() -> None:
    """Where some blocks of a picture fail, the mask covers exactly those and the rest is right."""
    partial = 0
    for seed in range(12):
        frame = picture(seed)
        result = run([frame], channel__snr_db=3.75, channel__seed=seed, transmitter__mcs=4)
        (assembled,) = result.pictures
        if not result.received:
            continue
        (received,) = result.received
        erased = received.erased or tuple(np.zeros(a.shape, np.bool_) for a in received.indices)
        for got, mask, sent in zip(received.indices, erased, frame.indices, strict=True):
            assert np.array_equal(got[~mask], sent[~mask])
        # Blocks of 8400 bits are 1050 indices in the order on the air: all of a block or none of it.
        flags = np.concatenate([mask.T.reshape(-1) for mask in erased]).reshape(4, 1050)
        assert np.array_equal(flags.all(axis=1), flags.any(axis=1))
        assert int((~flags.any(axis=1)).sum()) == assembled.blocks_ok
        if 0 < assembled.blocks_ok < assembled.blocks:
            partial += 1
            assert not received.complete
            assert received.bit_llrs is not None
            # What is not known for certain is still known better than nothing.
            lost = np.repeat(flags.reshape(-1), 8)
            assert ((received.bit_llrs < 0) == frame.to_bits())[lost].mean() > 0.6
    assert partial >= 3, "too few partial pictures to show anything: choose another Es/N0"


def test_several_frames_in_one_run() -> None:
    """More frames than the source lets into the flowgraph at a time, of two codecs."""
    frames = [
        random_frame(number, geometry=PICTURE if number % 3 == 0 else SMALL)
        for number in range(1, 11)
    ]
    result = run(frames, channel__snr_db=15.0, channel__cfo_hz=-20e3, channel__sro_ppm=10.0)
    assert [frame.frame_id for frame in result.received] == [frame.frame_id for frame in frames]
    for got, sent in zip(result.received, frames, strict=True):
        assert got.complete
        assert same_indices(got, sent)


@pytest.mark.parametrize("samples_per_symbol", [2, 3, 4, 5, 8])
def test_any_number_of_samples_per_symbol(samples_per_symbol: int) -> None:
    frame = random_frame(1, geometry=SMALL)
    result = run(
        [frame],
        waveform__samples_per_symbol=samples_per_symbol,
        channel__snr_db=8.0,
        channel__cfo_hz=40e3,
        channel__sro_ppm=-30.0,
    )
    assert index_error_rate(result, frame) == 0
    assert result.statistics.snr_db_mean == pytest.approx(8, abs=1.2)


@pytest.mark.parametrize("gap_symbols", [0, 1, 5000])
def test_any_gap_between_bursts(gap_symbols: int) -> None:
    frame = picture(3)
    result = run(
        [frame], transmitter__gap_symbols=gap_symbols, transmitter__max_burst_symbols=8000,
        channel__snr_db=10.0,
    )  # fmt: skip
    assert result.bursts_sent == 4
    assert index_error_rate(result, frame) == 0


@pytest.mark.parametrize("amplitude", [1.0, 0.001])
def test_any_level(amplitude: float) -> None:
    frame = random_frame(1, geometry=SMALL)
    result = run([frame], waveform__amplitude=amplitude, channel__snr_db=10.0)
    assert index_error_rate(result, frame) == 0
    assert result.records[0].level == pytest.approx(amplitude, rel=0.1)


@pytest.mark.parametrize("fading", ["rayleigh", "rician"])
def test_fading(fading: str) -> None:
    """Some bursts are lost, what comes out is right, the measured Es/N0 follows the gains."""
    frames = [random_frame(number, geometry=SMALL) for number in range(40)]
    result = run(frames, channel__fading=fading, channel__snr_db=10.0, channel__seed=5)
    assert result.bursts_sent == 40
    for got in result.received:
        assert got.complete
        assert same_indices(got, frames[got.frame_id])
    snr_db = [record.snr_db for record in result.records if record.frame_id is not None]
    # 20 log10 |h| has a standard deviation of 5.6 dB for Rayleigh, 2 dB for Rician with K = 10 dB.
    assert np.std(snr_db) > (3.0 if fading == "rayleigh" else 0.8)
    lost = 40 - len(result.received)
    if fading == "rayleigh":
        # Rate 1/2 needs about 5 dB for a short block: P(|h|^2 < -5 dB) = 27 %, 11 of 40.
        assert 3 <= lost <= 20
    else:
        assert lost <= 3


def test_multipath() -> None:
    """A second path one symbol later, 10 dB down, costs a few dB but no picture at 15 dB."""
    frame = picture(4)
    result = run([frame], channel__taps="[1, 0, 0, 0, [0.2, 0.24]]", channel__snr_db=15.0)
    assert index_error_rate(result, frame) == 0


def test_dc_blocker_off() -> None:
    frame = picture(5)
    assert index_error_rate(run([frame], receiver__dc_block_length=0), frame) == 0


def test_no_frames() -> None:
    result = run([])
    assert (result.bursts_sent, result.received) == (0, [])


def in_thread(work: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    return thread, errors


def test_two_links_at_the_same_time() -> None:
    results: dict[int, LoopbackResult] = {}

    def link(seed: int) -> Callable[[], None]:
        def work() -> None:
            results[seed] = run([picture(seed)], channel__snr_db=12.0, channel__seed=seed)

        return work

    pairs = [in_thread(link(seed)) for seed in (1, 2)]
    for thread, errors in pairs:
        thread.join(timeout=3 * PATIENCE_S)
        assert not thread.is_alive()
        assert errors == []
    for seed, result in results.items():
        assert index_error_rate(result, picture(seed)) == 0
    assert fingerprint(results[1]) == fingerprint(
        run([picture(1)], channel__snr_db=12.0, channel__seed=1)
    )


def test_port_in_use_is_one_error_and_leaves_nothing_open() -> None:
    profile = load_profile(
        "loopback",
        [f"zmq.{name}={ANY_PORT}" for name in ("frames_in", "pictures_out", "watch_out")],
    )
    first = Loopback(profile, GEOMETRIES)
    try:
        taken = first.index_sink.pictures_address
        for name in ("frames_in", "pictures_out", "watch_out"):
            addresses = dict.fromkeys(
                ("zmq__frames_in", "zmq__pictures_out", "zmq__watch_out"), ANY_PORT
            )
            addresses[f"zmq__{name}"] = taken
            words = rf"^zmq\.{name}: .*already in use; .*--set zmq\.{name}=tcp"
            with pytest.raises(AddressError, match=words):
                run([], **addresses)
    finally:
        first.close()
    frame = random_frame(1, geometry=SMALL)
    assert index_error_rate(run([frame], zmq__pictures_out=taken), frame) == 0


def test_a_profile_without_a_channel() -> None:
    profile = load_profile("loopback", []).model_copy(update={"channel": None})
    with pytest.raises(LoopbackError, match="no section channel"):
        Loopback(profile, GEOMETRIES)


def test_unknown_codec_is_counted_and_gives_no_picture() -> None:
    strange = FrameGeometry("dead0000", 32, 6, SMALL.layers)
    result = run([random_frame(1, geometry=strange)])
    assert result.received == []
    assert result.statistics.fates[Fate.UNKNOWN_CODEC] == result.bursts_sent
