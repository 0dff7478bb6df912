"""Transmitter and receivers of profile virtual: real flowgraphs, real sockets, real noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from blocks.zmq_messages import (
    TOPIC_FRAME,
    MessageWriter,
    SocketLimits,
    open_socket,
)
from blocks.zmq_security import KeyFileError, load_keys, write_key_pair
from flowgraphs.receiver import Receiver
from flowgraphs.transmitter import Transmitter
from sdr_config.load import load_profile
from semantic.link_statistics import Fate
from tests.link_parts import (
    ANY_PORT,
    GEOMETRY,
    PATIENCE_S,
    Decoder,
    random_frame,
    same_indices,
    wait_until,
)

_WAIT_MS = int(1000 * PATIENCE_S)
_LIMITS = SocketLimits(1000, _WAIT_MS)
_ANY_PORTS = [f"zmq.{name}={ANY_PORT}" for name in ("frames_in", "pictures_out", "watch_out")]


class Air:
    """One transmitter and any number of receivers in this process."""

    def __init__(self, *overrides: str) -> None:
        self.overrides = [*_ANY_PORTS, *overrides]
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.transmitter = Transmitter(self._profile(ANY_PORT))
        self.transmitter.start()
        self.push = open_socket(
            self.context, zmq.DEALER, connect=self.transmitter.index_source.address, limits=_LIMITS
        )
        self.writer = MessageWriter()
        self.receivers: list[Receiver] = []
        self.pulls: list[Decoder] = []

    def _profile(self, address: str, *more: str):  # type: ignore[no-untyped-def]
        return load_profile("virtual", [*self.overrides, f"radio.address={address}", *more])

    def add(self, *more: str) -> Receiver:
        """A receiver, started and heard by the transmitter, with a decoder behind it."""
        receiver = Receiver(self._profile(self.transmitter.radio.address, *more), [GEOMETRY])
        self.receivers.append(receiver)
        self.pulls.append(Decoder(receiver.index_sink.pictures_address))
        receiver.start()
        return receiver

    def send(self, *frame_ids: int) -> None:
        for frame_id in frame_ids:
            self.push.send_multipart(self.writer.pack_frame(TOPIC_FRAME, random_frame(frame_id)))

    def expect(self, number: int, *frame_ids: int) -> None:
        """The next pictures of a receiver: these, whole and right."""
        for frame_id in frame_ids:
            assert self.pulls[number].poll(_WAIT_MS), f"picture {frame_id} did not come"
            frame = self.pulls[number].frame()
            assert (frame.frame_id, frame.complete) == (frame_id, True)
            assert same_indices(frame, random_frame(frame_id))

    def close(self) -> None:
        for top in (self.transmitter, *self.receivers):
            top.stop()
            top.wait()
            top.close()
        for decoder in self.pulls:
            decoder.close()
        self.context.destroy(linger=0)


@pytest.fixture
def air() -> Iterator[Air]:
    made = Air()
    yield made
    made.close()


def test_two_receivers_hear_every_picture_through_their_own_noise(air: Air) -> None:
    air.add("channel.snr_db=12", "channel.seed=1", "channel.cfo_hz=10e3")
    air.add("channel.snr_db=16", "channel.seed=2", "channel.cfo_hz=-3e3")
    # Nothing is sent before both are there only if the first picture waits for the second receiver:
    # it need not, so both are heard of first.
    air.send(0)
    air.expect(0, 0)
    wait_until(lambda: air.transmitter.radio.to_json()["receivers"] >= 1, "a receiver")
    air.send(1)
    wait_until(lambda: air.transmitter.radio.to_json()["receivers"] == 2, "the other receiver")
    air.send(*range(2, 12))
    air.expect(0, *range(1, 12))
    frames = []
    while not frames or frames[-1] != 11:
        assert air.pulls[1].poll(_WAIT_MS)
        frames.append(air.pulls[1].frame().frame_id)
    assert frames[-10:] == list(range(2, 12))
    for receiver, snr_db, cfo_hz in zip(air.receivers, (12, 16), (10e3, -3e3), strict=True):
        statistics = receiver.receiver.statistics
        assert statistics.snr_db_mean == pytest.approx(snr_db, abs=0.5)
        assert statistics.cfo_hz_mean == pytest.approx(cfo_hz, abs=50)
        assert statistics.fates[Fate.DECODED] == statistics.detected
        assert receiver.radio.to_json()["samples_missed"] == 0


def test_the_last_burst_does_not_wait_for_the_next(air: Air) -> None:
    """One picture and then nothing: it still comes, though nothing pushes it through the filters."""
    air.add("channel=null")
    for frame_id in range(3):
        air.send(frame_id)
        air.expect(0, frame_id)


def test_pictures_wait_for_a_receiver(air: Air) -> None:
    air.send(0, 1, 2)
    wait_until(lambda: air.transmitter.radio.to_json()["waits"] > 2, "the transmitter to wait")
    assert air.transmitter.radio.to_json()["samples_sent"] == 0
    air.add()
    air.expect(0, 0, 1, 2)


def test_a_receiver_comes_back(air: Air) -> None:
    receiver = air.add()
    air.send(0)
    air.expect(0, 0)
    receiver.stop()
    receiver.wait()
    receiver.close()
    air.receivers.clear()
    air.send(1)
    air.add()
    air.expect(1, 1)
    # Its own connection, or the one of before: the transmitter has noticed.
    wait_until(lambda: air.transmitter.radio.to_json()["receivers"] == 1, "the old one to go")


def test_fading_is_that_of_each_burst(air: Air) -> None:
    receiver = air.add("channel.fading=rayleigh", "channel.snr_db=30", "channel.seed=3")
    air.send(*range(8))
    wait_until(lambda: receiver.receiver.statistics.detected >= 6, "bursts")
    levels = [record.level for record in receiver.receiver.records]
    assert max(levels) > 1.5 * min(levels)


def test_keys_of_a_profile(tmp_path: Path) -> None:
    _, secret_file, _ = write_key_pair(tmp_path, "lab")
    made = Air(f"zmq.keys.own={secret_file}")
    try:
        keys = load_keys(str(secret_file))
        receiver = made.add()
        made.push = open_socket(
            made.context,
            zmq.DEALER,
            connect=made.transmitter.index_source.address,
            limits=_LIMITS,
            keys=keys,
        )
        made.send(0)
        assert not made.pulls[0].poll(500), "a decoder without a key got a picture"
        made.pulls[0].close()
        made.pulls[0] = Decoder(receiver.index_sink.pictures_address, keys)
        made.send(1)
        assert made.pulls[0].poll(_WAIT_MS)
        assert receiver.index_sink.socket_counts()["handshakes_failed"] >= 1
        counts = receiver.radio.to_json()
        assert (counts["keys_refused"], counts["handshakes_failed"]) == (0, 0)
    finally:
        made.close()


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    profile = load_profile("virtual", [f"zmq.keys.own={tmp_path}/none", *_ANY_PORTS])
    with pytest.raises(KeyFileError, match="none: No such file"):
        Transmitter(profile)
