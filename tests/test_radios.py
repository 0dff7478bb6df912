"""Radios that are not there: one clear error, soon, and nobody else on the network is bothered."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import zmq
from gnuradio import gr

from blocks.modem.burst import build_bursts
from blocks.modem.stream_receiver import Outcome, StreamReceiver
from flowgraphs import radio_settings, radio_soapy
from flowgraphs.radios import RadioError, make_sink, make_source, read_settings
from flowgraphs.receiver import Receiver, warm_up
from flowgraphs.transmitter import Transmitter
from sdr_config.load import load_profile
from sdr_config.schema import Profile
from semantic.geometries import shipped_geometries
from tests.radio_link import KINDS, air, virtual_profile


def make_transmitter(profile: Profile) -> gr.top_block:
    return Transmitter(profile)


def make_receiver(profile: Profile) -> gr.top_block:
    return Receiver(profile, shipped_geometries())


@pytest.mark.parametrize("make", [make_sink, make_source, make_transmitter, make_receiver])
@pytest.mark.parametrize(
    ("profile", "override", "expected"),
    [
        # Addresses of this machine alone: a test asks nothing of the network it runs in.
        ("usrp", "radio.device_args=addr=127.0.0.1", "'addr=127.0.0.1'"),
        ("usrp", "radio.device_args=type=x300,addr=127.0.0.1", "'type=x300,addr=127.0.0.1'"),
        ("usrp", "radio.device_args=type=b200,serial=NONE", "'type=b200,serial=NONE'"),
        ("soapy", "radio.driver=nosuch", "'driver=nosuch'"),
        ("soapy", "radio.device_args=serial=NONE", "'driver=lime,serial=NONE'"),
    ],
)
def test_missing_device(
    make: Callable[[Profile], gr.basic_block], profile: str, override: str, expected: str
) -> None:
    loaded = load_profile(profile, [override])
    started = time.monotonic()
    with pytest.raises(RadioError) as caught:
        make(loaded)
    assert time.monotonic() - started < 10
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith("no ")
    assert expected in message
    assert "check power" in message


def test_missing_device_leaves_no_socket_behind() -> None:
    profile = load_profile(
        "usrp", ["radio.device_args=type=b200,serial=NONE", "zmq.frames_in=tcp://127.0.0.1:25551"]
    )
    with pytest.raises(RadioError):
        Transmitter(profile)
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.bind("tcp://127.0.0.1:25551")


@pytest.mark.parametrize("make", [make_sink, make_source])
def test_simulated_channel_is_no_radio(make: Callable[[Profile], gr.basic_block]) -> None:
    with pytest.raises(RadioError, match="uoisc loopback"):
        make(load_profile("loopback"))


@pytest.mark.parametrize("profile", ["usrp", "soapy"])
def test_radio_with_one_side(profile: str) -> None:
    with pytest.raises(RadioError, match=r"no radio\.tx"):
        make_sink(load_profile(profile, ["radio.tx=null"]))
    with pytest.raises(RadioError, match=r"no radio\.rx"):
        make_source(load_profile(profile, ["radio.rx=null"]))


REFUSALS = [
    # what the virtual radio is told, overrides for both sides, what the message says
    (
        "",
        ["waveform.symbol_rate_hz=7e5"],
        r"rate of 2800000|2782608\.7 samples per second of 2800000",
    ),
    ("", ["waveform.symbol_rate_hz=7e5"], r"it offers .*2782608\.696"),
    (
        "refuse=rate",
        [],
        r"refuses a rate of 250000 Hz; it offers .*250000.*this radio refuses its rate",
    ),
    ("", ["radio.SIDE.antenna=RX9"], r"no antenna port 'RX9': expected one of TX/RX"),
    ("refuse=antenna", [], r"refuses antenna '.*'; it offers TX/RX"),
    ("", ["radio.SIDE.gain_db=80"], r"no gain of 80 dB: expected gain_db from 0 to 60"),
    ("refuse=gain", [], r"refuses a gain of [12]0 dB"),
    (
        "",
        ["radio.SIDE.frequency_hz=9e9"],
        r"tunes to 6000000000\.0 Hz .*offers 70000000 to 6000000000 Hz",
    ),
    ("refuse=frequency", [], r"refuses 2450000000 Hz; it offers 70000000 to 6000000000 Hz"),
    ("refuse=bandwidth", ["radio.SIDE.bandwidth_hz=2e6"], r"refuses a bandwidth of 2000000 Hz"),
    (
        "",
        ["radio.clock_source=gpsdo"],
        r"no clock source 'gpsdo': expected one of internal, external",
    ),
    ("refuse=clock", ["radio.clock_source=external"], r"refuses clock source 'external'"),
    ("", ["radio.time_source=mimo"], r"no time source 'mimo': expected one of none, external"),
    ("", ["radio.master_clock_rate_hz=40e6"], r"master clock (runs at 64000000|of 40000000)"),
]


@pytest.mark.usefixtures("virtual_radio")
@pytest.mark.parametrize("make", [make_sink, make_source])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("told", "overrides", "expected"), REFUSALS)
def test_refused_setting_says_what_there_is_instead(
    make: Callable[[Profile], gr.basic_block],
    kind: str,
    told: str,
    overrides: list[str],
    expected: str,
) -> None:
    sides = [one.replace("SIDE", side) for one in overrides for side in ("tx", "rx")]
    both = ["radio.tx.frequency_hz=2.45e9", "radio.rx.frequency_hz=2.45e9"]
    with air() as name, pytest.raises(RadioError, match=expected) as caught:
        make(virtual_profile(kind, name, [told] if told else [], [*both, *sides]))
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("virtual_radio")
@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_are_taken_are_read_back(kind: str) -> None:
    overrides = [
        "radio.clock_source=external",
        "radio.time_source=external",
        "radio.master_clock_rate_hz=64e6",
        "radio.rx.bandwidth_hz=2e6",
    ]
    with air() as name:
        profile = virtual_profile(kind, name, overrides=overrides)
        settings = read_settings(profile, make_source(profile))
    assert settings is not None
    assert (settings.clock_source, settings.time_source) == ("external", "external")
    assert settings.bandwidth_hz == 2e6
    assert "filter 2 MHz, clock external, time external" in settings.text()
    assert read_settings(load_profile("loopback"), gr.top_block()) is None


def test_reference_that_is_not_there() -> None:
    radio_settings.check_lock("external", True)
    with pytest.raises(RadioError, match="no 10 MHz reference at its clock_source external"):
        radio_settings.check_lock("external", False)


def test_offers_are_the_nearest_ones() -> None:
    assert radio_settings.nearest_ranges(5, []) == ""
    assert radio_settings.nearest_ranges(5, [(1, 2), (4, 4)]) == "1 to 2, 4 Hz"
    many = [(float(rate), float(rate)) for rate in range(1, 100)]
    assert radio_settings.nearest_ranges(50.2, many).startswith("47, 48, 49, 50, 51")
    assert radio_settings.nearest_ranges(50.2, many).endswith(", ... Hz")


def test_settings_that_came_out_different_are_refused() -> None:
    radio_settings.check_rate(4e6, 4e6 + 4)
    with pytest.raises(RadioError, match=r"3200000\.0 samples per second of 3000000\.0"):
        radio_settings.check_rate(3e6, 3.2e6)
    radio_settings.check_frequency(2.45e9, 2.45e9 - 100)
    for came_hz in (2.4e9, float("nan")):
        with pytest.raises(RadioError, match="tunes to"):
            radio_settings.check_frequency(2.45e9, came_hz)
    radio_settings.check_antenna("RX2", ("TX/RX", "RX2"))
    with pytest.raises(RadioError, match="expected one of TX/RX, RX2"):
        radio_settings.check_antenna("RX3", ("TX/RX", "RX2"))
    radio_settings.check_gain(10, 0, 31.5)
    with pytest.raises(RadioError, match=r"from 0 to 31\.5"):
        radio_settings.check_gain(40, 0, 31.5)


def test_receiver_is_compiled_before_the_radio_starts() -> None:
    """What the warm-up leaves to compile would show as a first burst that takes seconds."""
    warm_up(max_iterations=25)
    bits = np.random.default_rng(1).integers(0, 2, 40_000).astype(np.uint8)
    bursts = list(build_bursts(bits, frame_id=1, codec_tag=2, mcs=4))
    samples = np.concatenate([burst.samples(2) for burst in bursts])
    receiver = StreamReceiver(25)
    started = time.process_time()
    heard = receiver.push(samples) + receiver.flush()
    assert time.process_time() - started < 2  # 0.1 s; compiling takes 30 s
    assert [found.outcome for found in heard] == [Outcome.DEMODULATED] * len(bursts)


class _Deaf(gr.basic_block):
    """Takes no samples, as gr-soapy's sink where its burst counter begins below zero."""

    def __init__(self) -> None:
        gr.basic_block.__init__(self, name="Deaf", in_sig=[np.complex64], out_sig=None)

    def general_work(self, _inputs: list[object], _outputs: list[object]) -> int:
        return 0


def test_sink_that_takes_no_samples_is_an_error_and_no_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(radio_soapy, "_EMPTY_BURST_TIMEOUT_S", 1.0)
    with pytest.raises(RadioError, match="took no samples for 1 s"):
        radio_soapy.send_empty_burst(_Deaf())
