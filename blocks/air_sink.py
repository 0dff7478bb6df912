"""AirSink: the transmitting end of the virtual air.

It exists because gr-zeromq's blocks cannot do what a virtual air needs: PUB either drops samples or waits
for ever for a receiver that has frozen, PUSH gives every chunk to one receiver only, and neither lets a key
be set. One Python block of few calls: a whole chunk of samples is one message.
"""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pmt
import zmq
from gnuradio import gr
from numpy.typing import NDArray

from blocks.air_listeners import Listeners
from blocks.air_messages import (
    CHUNK_SAMPLES,
    MAX_READY_BYTES,
    pack_chunk,
    parse_ready,
)
from blocks.burst_modulator import LENGTH_TAG
from blocks.guarded_sockets import GuardedSockets
from blocks.worker_thread import WorkerThread
from blocks.zmq_messages import (
    MessageReader,
    MessageWriter,
    SocketLimits,
    bound_address,
)
from blocks.zmq_security import CurveKeys

_LOG = logging.getLogger(__name__)

# Chunks on their way to a receiver: 2 MiB, 65 ms at 4 Msps.
WINDOW_CHUNKS = 8
MAX_RECEIVERS = 16
# A receiver that was left behind and comes back may still have a window of old chunks in its queue.
_HIGH_WATER_MARK = 4 * WINDOW_CHUNKS
_WAIT_MS = 50
# Between bursts, when nobody calls the block, receivers are heard so often.
_HEAR_S = 0.2
# Messages taken at a time: a receiver that shouts must not keep the samples from going out.
_READIES_AT_A_TIME = 256


class AirSink(gr.sync_block):
    """Stream sink: complex samples to every receiver that listens.

    A burst with a length tag goes out as soon as it is complete; a stream without tags as it comes. The
    slowest receiver holds up the flowgraph; one that takes nothing for ``receiver_timeout_s`` is left
    behind and counted, and may come back.

    Args:
        address: ZMQ address to bind.
        sample_rate_hz: told to the receivers.
        receiver_timeout_s: longest wait for a receiver, in seconds.
        wait_for_receiver: without any receiver hold up the flowgraph; otherwise samples are sent to nobody,
            and counted.
        keys: whose holders may listen; None: anybody who can reach the address.

    Raises:
        AddressError: the address is in use.
    """

    def __init__(
        self,
        address: str,
        sample_rate_hz: float,
        receiver_timeout_s: float = 5.0,
        wait_for_receiver: bool = True,
        keys: CurveKeys | None = None,
    ) -> None:
        gr.sync_block.__init__(self, name="AirSink", in_sig=[np.complex64], out_sig=None)
        self.samples_sent = 0
        self.samples_unheard = 0
        self.waits = 0
        self._rate_hz = sample_rate_hz
        self._wait = wait_for_receiver
        self._listeners = Listeners(WINDOW_CHUNKS, receiver_timeout_s, MAX_RECEIVERS)
        self._writer = MessageWriter()
        self._reader = MessageReader(MAX_READY_BYTES)
        self._tag = pmt.intern(LENGTH_TAG)
        self._chunk = np.empty(CHUNK_SAMPLES, np.complex64)
        self._filled = 0
        self._burst_samples = 0
        self._left = 0
        # The scheduler's thread and the one that listens in between take turns at the socket.
        self._lock = threading.Lock()
        self._listener = WorkerThread("AirSink", self._listen)
        self._sockets = GuardedSockets(keys, binds=True)
        limits = SocketLimits(_HIGH_WATER_MARK, 0, MAX_READY_BYTES)
        self._socket = self._sockets.open(zmq.ROUTER, bind=address, limits=limits)
        # A receiver that has gone is an error at the next send, not samples into the void.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._sockets.start()
        self.address = bound_address(self._socket)

    @property
    def failure(self) -> BaseException | None:
        """Why receivers are no longer heard."""
        return self._listener.failure or self._sockets.guard.failure

    def start(self) -> bool:
        """Called by the scheduler: begin to listen."""
        self._listener.start()
        return True

    def stop(self) -> bool:
        """Called by the scheduler: stop listening."""
        self._listener.stop()
        return True

    def close(self) -> None:
        """Give the socket back; the block cannot be started again."""
        self.stop()
        self._sockets.close()

    def to_json(self) -> dict[str, int]:
        """What was sent, to how many, and what was refused by cause."""
        return {
            "samples_sent": self.samples_sent,
            "samples_unheard": self.samples_unheard,
            "waits": self.waits,
            **self._listeners.to_json(),
            **self._reader.to_json(),
            **self._sockets.guard.to_json(),
        }

    def work(self, inputs: list[NDArray[np.complex64]], _outputs: list[object]) -> int:
        """Cut into chunks and send; takes only what could be sent."""
        with self._lock:
            return self._take_all(inputs[0])

    def _take_all(self, samples: NDArray[np.complex64]) -> int:
        starts = self._starts(samples.size)
        done = 0
        while done < samples.size:
            if done in starts and self._filled == 0:
                self._burst_samples = self._left = starts[done]
            end = self._end(done, samples.size, starts)
            complete = self._filled + end - done == CHUNK_SAMPLES or (
                # Of a burst that is announced the rest is awaited.
                self._left == 0 or self._left == end - done or end in starts
            )
            if complete and not self._may_send():
                break
            before = self._filled, self._left
            self._take(samples[done:end])
            if complete and not self._send():
                self._filled, self._left = before
                break
            done = end
        return done

    def _starts(self, count: int) -> dict[int, int]:
        """Bursts that begin among the next samples: place and length."""
        first = self.nitems_read(0)
        tags = self.get_tags_in_range(0, first, first + count, self._tag)
        return {
            int(tag.offset - first): max(0, pmt.to_long(tag.value))
            for tag in tags
            if pmt.is_integer(tag.value)
        }

    def _end(self, done: int, count: int, starts: dict[int, int]) -> int:
        """Where the piece that begins at ``done`` ends: chunk full, burst over, next burst, or no more."""
        end = min(count, done + CHUNK_SAMPLES - self._filled)
        if self._left:
            end = min(end, done + self._left)
        return min([end, *(start for start in starts if start > done)])

    def _take(self, samples: NDArray[np.complex64]) -> None:
        self._chunk[self._filled : self._filled + samples.size] = samples
        self._filled += samples.size
        self._left = max(0, self._left - samples.size)

    def _may_send(self) -> bool:
        """Whether a chunk may go out, after waiting a little where it may not yet."""
        self._hear()
        if self._is_free():
            return True
        self.waits += 1
        if self._socket.poll(_WAIT_MS):
            self._hear()
        return self._is_free()

    def _is_free(self) -> bool:
        free = self._listeners.may_send(self._writer.next_number, time.monotonic())
        return free and (bool(self._listeners.peers) or not self._wait)

    def _listen(self) -> None:
        """While nothing is sent, receivers still say that they are there: an unread queue would fill up."""
        while not self._listener.stopping.wait(_HEAR_S):
            with self._lock:
                self._hear()

    def _hear(self) -> None:
        """Take what receivers have said."""
        for _ in range(_READIES_AT_A_TIME):
            if not self._socket.poll(0):
                return
            peer, *parts = self._reader.receive(self._socket)
            ready = self._reader.check(parts, parse_ready)
            if ready is not None:
                self._listeners.ready(peer, ready, self._writer.sender, self._writer.next_number)

    def _send(self) -> bool:
        """Send the chunk; False where it reached nobody and has to wait for somebody."""
        parts = pack_chunk(
            self._writer,
            self._chunk[: self._filled],
            position=self.samples_sent,
            sample_rate_hz=self._rate_hz,
            burst_samples=self._burst_samples,
            left=self._left,
        )
        for peer in self._listeners.peers:
            try:
                self._socket.send_multipart([peer, *parts], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                # Gone (EHOSTUNREACH), or its queue is full of chunks from before it was left behind.
                _LOG.info("a receiver has gone: %s", error)
                self._listeners.remove(peer)
        if not self._listeners.peers:
            if self._wait:
                return False
            self.samples_unheard += self._filled
        self.samples_sent += self._filled
        self._filled = 0
        self._burst_samples = 0
        return True
