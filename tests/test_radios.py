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
from flowgraphs import radio_settings
from flowgraphs.radios import RadioError, make_sink, make_source
from flowgraphs.receiver import Receiver, warm_up
from flowgraphs.transmitter import Transmitter
from sdr_config.load import load_profile
from sdr_config.schema import Profile
from semantic.geometries import shipped_geometries


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
