"""Transmitter and receiver on the virtual radio, with sockets at both ends; shared by the radio's tests."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from blocks.zmq_messages import (
    TOPIC_FRAME,
    MessageWriter,
    SocketLimits,
    open_socket,
)
from flowgraphs.receiver import Receiver
from flowgraphs.transmitter import Transmitter
from sdr_config.load import load_profile
from sdr_config.schema import Profile
from semantic.index_frame import IndexFrame
from semantic.link_statistics import LinkStatistics, TransmitStatistics
from tests.link_parts import ANY_PORT, GEOMETRY, PATIENCE_S, Decoder

DRIVER = "uoiscvirtual"
KINDS = ("uhd", "soapy")
_LIMITS = SocketLimits(100, 1000)
_numbers = itertools.count()


@contextmanager
def air(name: str | None = None) -> Iterator[str]:
    """A name for an air of one's own, unless one is given; what is left of it afterwards is removed."""
    name = name or f"test-{os.getpid()}-{next(_numbers)}"
    yield name
    # Devices live as long as the blocks that use them.
    gc.collect()
    Path(f"/dev/shm/uoisc-air-{name}").unlink(missing_ok=True)


def device_overrides(kind: str, name: str, *device_args: str) -> list[str]:
    """Overrides that put a profile of a kind on the virtual radio, one that waits long for a busy machine.

    An argument of the caller's takes the place of one of the same name.
    """
    patient = (f"air={name}", "rx_buffer_s=8", "tx_latency_s=1")
    by_name = {one.partition("=")[0]: one for one in (*patient, *device_args)}
    arguments = ",".join(by_name.values())
    if kind == "uhd":
        return [f"radio.device_args=type=soapy,driver={DRIVER},{arguments}"]
    return [f"radio.driver={DRIVER}", f"radio.device_args={arguments}"]


def virtual_profile(
    kind: str, name: str, device_args: Iterable[str] = (), overrides: Iterable[str] = ()
) -> Profile:
    """A profile on the virtual radio at 62.5 ksym/s, a rate for which a busy machine has the time.

    Args:
        kind: uhd or soapy.
        name: of the air.
        device_args: of the virtual radio.
        overrides: of the profile.
    """
    patience = ["receiver.when_full=block"]
    if kind == "uhd":
        patience.append("radio.lead_time_s=1")
    return load_profile(
        {"uhd": "usrp", "soapy": "soapy"}[kind],
        [
            *device_overrides(kind, name, *device_args),
            f"zmq.frames_in={ANY_PORT}",
            f"zmq.pictures_out={ANY_PORT}",
            f"zmq.watch_out={ANY_PORT}",
            "waveform.symbol_rate_hz=62.5e3",
            "radio.tx.antenna=TX/RX",
            "radio.rx.antenna=RX2",
            "radio.tx.lo_offset_hz=0",
            "radio.rx.lo_offset_hz=0",
            # With the virtual radio's 30 dB of attenuation the level comes out as it went in.
            "radio.tx.gain_db=10",
            "radio.rx.gain_db=20",
            *patience,
            *overrides,
        ],
    )


class RadioLink:
    """Both flowgraphs, running, in this process.

    Args:
        profile: of both.
    """

    def __init__(self, profile: Profile) -> None:
        self.receiver = Receiver(profile, [GEOMETRY])
        self.transmitter = Transmitter(profile)
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._push = open_socket(
            self._context, zmq.DEALER, connect=self.transmitter.index_source.address, limits=_LIMITS
        )
        self._pull = Decoder(self.receiver.index_sink.pictures_address)
        self._writer = MessageWriter()
        self.receiver.start()
        self._wait_for_samples()
        self.transmitter.start()

    def _wait_for_samples(self) -> None:
        """The start-up that a receiver passes over must be over before anything is sent."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.receiver.receiver.statistics.samples == 0 and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def send(self, frames: Iterable[IndexFrame]) -> None:
        """Hand frames to the transmitter."""
        for frame in frames:
            self._push.send_multipart(self._writer.pack_frame(TOPIC_FRAME, frame))

    def pictures(self, count: int) -> list[IndexFrame]:
        """The next pictures, or those that come before patience ends."""
        found = []
        deadline_s = time.monotonic() + PATIENCE_S
        while len(found) < count and (left_s := deadline_s - time.monotonic()) > 0:
            if self._pull.poll(1000 * left_s):
                found.append(self._pull.frame())
        return found

    def close(self) -> None:
        """Stop both, and let go of the devices."""
        self.transmitter.stop()
        self.transmitter.wait()
        self.receiver.stop()
        self.receiver.wait()
        self.transmitter.close()
        self.receiver.close()
        self._push.close()
        self._pull.close()
        self._context.term()


@contextmanager
def radio_link(
    kind: str, device_args: Iterable[str] = (), overrides: Iterable[str] = ()
) -> Iterator[RadioLink]:
    """A running link over the virtual radio."""
    with air() as name:
        link = RadioLink(virtual_profile(kind, name, device_args, overrides))
        try:
            yield link
        finally:
            link.close()
            del link


def fell_behind(link: RadioLink, screen: str) -> bool:
    """The radio has told of samples that this machine was too slow for.

    Args:
        link: with ``write_errors=1``.
        screen: what was printed; gr-soapy says no more than a letter.
    """
    return too_slow(link.transmitter.statistics, link.receiver.receiver.statistics, screen)


def too_slow(sent: TransmitStatistics | None, heard: LinkStatistics, screen: str) -> bool:
    """The same from the totals of both sides."""
    late = sent is not None and sent.failed > 0
    return late or "sU" in screen or heard.overflows > 0
