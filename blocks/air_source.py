"""AirSource: the receiving end of the virtual air.

Beside taking chunks off a socket it keeps up what a radio never fails to deliver: samples. Between bursts,
when nothing comes, it makes silence: a good piece at once, so that the receiver behind it gets to the end
of the last burst, and then a trickle. Samples that were missed, and another transmitter session, show as
an ``rx_time`` tag that jumps, as they do at a radio.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pmt
import zmq
from gnuradio import gr
from numpy.typing import NDArray

from blocks.air_messages import MAX_CHUNK_BYTES, Chunk, Ready, pack_ready, parse_chunk
from blocks.burst_modulator import LENGTH_TAG
from blocks.guarded_sockets import GuardedSockets
from blocks.rx_time import RX_TIME_TAG
from blocks.time_tags import time_to_pmt
from blocks.zmq_messages import MessageReader, MessageWriter, SocketLimits
from blocks.zmq_security import CurveKeys

_LOG = logging.getLogger(__name__)

_HIGH_WATER_MARK = 64
_WAIT_MS = 50
_TRICKLE_SAMPLES = 256
# A transmitter that has restarted hears of us after so long at most.
_REMIND_S = 0.5
# How much was missed when the transmitter restarted is not known; enough to be seen as a gap.
_UNKNOWN_GAP_SAMPLES = 1024


@dataclass
class _Piece:
    """Samples to hand on; ``burst_samples`` where a burst begins, ``missed`` samples before them."""

    samples: NDArray[np.complex64]
    burst_samples: int = 0
    missed: int = 0


class AirSource(gr.sync_block):
    """Stream source: complex samples of the transmitter at an address, which may come and go.

    Args:
        address: ZMQ address to connect to.
        sample_rate_hz: chunks with another rate are dropped and counted.
        tail_samples: silence made at once when nothing follows a burst.
        broken_after_s: a burst of which nothing more comes for so long is given up.
        keys: None where the transmitter has none.

    Raises:
        AddressError: an address that cannot be understood.
    """

    def __init__(
        self,
        address: str,
        sample_rate_hz: float,
        tail_samples: int = 16_384,
        broken_after_s: float = 10.0,
        keys: CurveKeys | None = None,
    ) -> None:
        gr.sync_block.__init__(self, name="AirSource", in_sig=None, out_sig=[np.complex64])
        self.samples_received = 0
        self.samples_missed = 0
        self.sessions = 0
        self.wrong_rate = 0
        self.bursts_broken = 0
        self._rate_hz = sample_rate_hz
        self._tail_samples = tail_samples
        self._broken_after_s = broken_after_s
        self._pieces: deque[_Piece] = deque()
        self._last: Chunk | None = None
        self._acknowledged = True
        self._owed = 0
        self._stream_gaps = 0
        self._told_s = -math.inf
        self._heard_s = time.monotonic()
        self._writer = MessageWriter()
        self._reader = MessageReader(MAX_CHUNK_BYTES)
        self._sockets = GuardedSockets(keys, binds=False)
        limits = SocketLimits(_HIGH_WATER_MARK, 0, MAX_CHUNK_BYTES)
        self._socket = self._sockets.open(zmq.DEALER, connect=address, limits=limits)
        self._sockets.start()

    def close(self) -> None:
        """Give the socket back; the block cannot be started again."""
        self._sockets.close()

    def to_json(self) -> dict[str, int]:
        """What was received, missed, and refused by cause."""
        return {
            "samples_received": self.samples_received,
            "samples_missed": self.samples_missed,
            "sessions": self.sessions,
            "bursts_broken": self.bursts_broken,
            "wrong_rate": self.wrong_rate,
            **self._reader.to_json(),
            **self._sockets.guard.to_json(),
        }

    def work(self, _inputs: list[object], outputs: list[NDArray[np.complex64]]) -> int:
        """Copy what has come into the output buffer."""
        out = outputs[0]
        if not self._pieces and not self._listen():
            return 0
        piece = self._pieces[0]
        place = self.nitems_written(0)
        if piece.missed or place == 0:
            self._stream_gaps += piece.missed
            piece.missed = 0
            self._tag_time(place)
        if piece.burst_samples:
            key, value = pmt.intern(LENGTH_TAG), pmt.from_long(piece.burst_samples)
            self.add_item_tag(0, place, key, value)
            piece.burst_samples = 0
        count = min(out.size, piece.samples.size)
        out[:count] = piece.samples[:count]
        piece.samples = piece.samples[count:]
        if piece.samples.size == 0:
            self._pieces.popleft()
        return int(count)

    def _tag_time(self, place: int) -> None:
        value = time_to_pmt(Fraction(place + self._stream_gaps) / Fraction(self._rate_hz))
        self.add_item_tag(0, place, pmt.intern(RX_TIME_TAG), value)

    def _listen(self) -> bool:
        """Wait a little for a chunk; True where there is something to hand on, be it silence."""
        # What came last has been handed on by now: the transmitter may send more.
        if not self._acknowledged or time.monotonic() - self._told_s > _REMIND_S:
            self._tell()
        if self._socket.poll(_WAIT_MS):
            chunk = self._reader.read(self._socket, parse_chunk)
            if chunk is not None:
                self._accept(chunk)
        else:
            self._idle()
        return bool(self._pieces)

    def _tell(self) -> None:
        last = self._last
        ready = Ready("", 0) if last is None else Ready(last.session, last.number + 1)
        try:
            self._socket.send_multipart(pack_ready(self._writer, ready), zmq.NOBLOCK)
        except zmq.Again:
            return  # no transmitter; told again when there is one
        self._acknowledged = True
        self._told_s = time.monotonic()

    def _accept(self, chunk: Chunk) -> None:
        last = self._last
        missed = 0
        if last is None or chunk.session != last.session:
            self.sessions += 1
            missed = 0 if last is None else _UNKNOWN_GAP_SAMPLES
        elif chunk.position > last.position + last.samples.size:
            missed = chunk.position - last.position - last.samples.size
            self.samples_missed += missed
        self._last = chunk
        self._acknowledged = False
        self._heard_s = time.monotonic()
        if abs(chunk.sample_rate_hz - self._rate_hz) > 1e-6 * self._rate_hz:
            self.wrong_rate += 1
            if self.wrong_rate == 1:
                _LOG.warning(
                    "the transmitter sends %.0f samples per second, this receiver's profile says %.0f: "
                    "dropped",
                    chunk.sample_rate_hz,
                    self._rate_hz,
                )
            return
        if missed:
            self._pieces.append(self._silence())
        self._owed = self._tail_samples
        self.samples_received += chunk.samples.size
        self._pieces.append(_Piece(chunk.samples, chunk.burst_samples, missed))

    def _silence(self) -> _Piece:
        return _Piece(np.zeros(self._tail_samples, np.complex64))

    def _idle(self) -> None:
        """Nothing has come for a while: silence, unless the middle of a burst is due."""
        in_burst = self._last is not None and self._last.left > 0 and self._owed > 0
        if in_burst:
            if time.monotonic() - self._heard_s < self._broken_after_s:
                return
            self.bursts_broken += 1
        piece = self._silence() if self._owed else _Piece(np.zeros(_TRICKLE_SAMPLES, np.complex64))
        self._owed = 0
        self._pieces.append(piece)
