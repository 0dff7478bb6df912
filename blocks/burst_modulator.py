"""BurstModulator: frames of bits in, shaped burst samples out.

A stream source fed by messages. Between bursts it emits a gap of silence that belongs to the burst's
packet, and otherwise nothing: a radio is keyed by the length tag and does not run dry, a simulation
takes no time while nothing is sent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator

import numpy as np
import pmt
from gnuradio import gr
from numpy.typing import NDArray

from blocks.index_source import pdu_to_bits
from blocks.modem import waveform as wf
from blocks.modem.burst import Burst, build_bursts

_LOG = logging.getLogger(__name__)

PORT_FRAMES = pmt.intern("frames")
PORT_SENT = pmt.intern("sent")
# Name of the length tag on the first sample of every burst, as the tagged-stream sinks expect it.
LENGTH_TAG = "packet_len"
# Marks, in a simulation, that nothing follows; see finish().
END_TAG = "end_of_stream"

_IDLE_SLEEP_S = 0.001
# Silence before the end mark, so that the last burst is well past every filter, and after it, so that
# filters that work in blocks let the mark through.
_TAIL_BEFORE_SYMBOLS = 512
_TAIL_AFTER_SYMBOLS = 8192


class BurstModulator(gr.sync_block):
    """Bits to bursts.

    Message ports: ``frames`` (in) PDUs of :class:`~blocks.index_source.IndexSource`; ``sent`` (out) one
    message after the last sample of a frame has been handed on: true, or false for one that was refused,
    in the order of the frames. Stream output: complex samples.

    Args:
        mcs: index of the code rate.
        samples_per_symbol: 2..8.
        amplitude: root-mean-square of the samples within a burst.
        gap_symbols: silence after each burst.
        max_burst_symbols: limit on the symbols of a burst.
        idle_silence: while there is nothing to send, emit silence without end instead of no samples: for
            a receiver that listens to this stream directly and must see what comes after a burst. The
            stream then needs something that slows it down (a throttle), and no sink may be keyed by
            the length tag.

    A frame that the waveform cannot express (or whose code blocks do not go into the burst limit) is
    refused and counted.

    Attributes:
        failure: why nothing more will be sent.

    Raises:
        WaveformError: an mcs that the waveform cannot express.
    """

    def __init__(
        self,
        mcs: int,
        samples_per_symbol: int = 4,
        amplitude: float = 0.25,
        gap_symbols: int = 64,
        max_burst_symbols: int = wf.MAX_BURST_SYMBOLS,
        idle_silence: bool = False,
    ) -> None:
        gr.sync_block.__init__(self, name="BurstModulator", in_sig=None, out_sig=[np.complex64])
        self._mcs = wf.check_mcs(mcs)
        self._samples_per_symbol = samples_per_symbol
        self._amplitude = np.float32(amplitude)
        self._gap = np.zeros(gap_symbols * samples_per_symbol, np.complex64)
        self._max_burst_symbols = max_burst_symbols
        self._idle_silence = idle_silence
        self.message_port_register_in(PORT_FRAMES)
        self.message_port_register_out(PORT_SENT)
        self.set_msg_handler(PORT_FRAMES, self._on_frame)
        self.frames_sent = 0
        self.frames_refused = 0
        self.bursts_sent = 0
        self.symbols_sent = 0
        self.payload_symbols_sent = 0
        self.code_blocks_sent = 0
        self._frames: deque[Iterator[Burst] | None] = deque()  # None: refused
        self._bursts: Iterator[Burst] = iter(())
        self._samples: NDArray[np.complex64] = np.empty(0, np.complex64)
        self._tag: str | None = None
        self._tail: deque[tuple[NDArray[np.complex64], str | None]] = deque()
        self._frame_open = False
        self._finish = threading.Event()
        self.failure: BaseException | None = None

    def set_mcs(self, mcs: int) -> None:
        """Use another code rate for the frames that arrive from now on.

        Raises:
            WaveformError: an mcs that the waveform cannot express; the old one stays.
        """
        self._mcs = wf.check_mcs(mcs)

    def get_bursts_sent(self) -> int:
        """Bursts sent so far: :attr:`bursts_sent` for a Function Probe, which can only call."""
        return self.bursts_sent

    def finish(self) -> None:
        """After the frames at hand: emit a tail of silence with an end mark, then nothing more."""
        self._finish.set()

    def _on_frame(self, pdu: pmt.pmt_base) -> None:
        try:
            frame_id, codec_tag, stream, bits = pdu_to_bits(pdu)
            # What the waveform cannot express must be refused here: work() could only fail.
            bursts = build_bursts(
                bits,
                frame_id=frame_id,
                codec_tag=codec_tag,
                mcs=self._mcs,
                max_burst_symbols=self._max_burst_symbols,
                stream=stream,
            )
            self._frames.append(bursts)
        except ValueError as error:
            self.frames_refused += 1
            _LOG.warning("frame refused: %s", error)
            self._frames.append(None)
        except Exception as error:
            self.failure = error
            raise

    def work(self, _inputs: list[object], outputs: list[NDArray[np.complex64]]) -> int:
        """Copy what is ready into the output buffer."""
        try:
            return self._work(outputs[0])
        except Exception as error:
            # GNU Radio would print it and go on without this block.
            self.failure = error
            raise

    def _work(self, out: NDArray[np.complex64]) -> int:
        done = 0
        while done < out.size:
            if self._samples.size == 0 and not self._next_samples():
                break
            if self._tag is not None:
                self._add_tag(self.nitems_written(0) + done)
            count = min(out.size - done, self._samples.size)
            out[done : done + count] = self._samples[:count]
            self._samples = self._samples[count:]
            done += count
        if self._idle_silence:
            out[done:] = 0
            return int(out.size)
        if done == 0:
            time.sleep(_IDLE_SLEEP_S)
        return done

    def _add_tag(self, offset: int) -> None:
        assert self._tag is not None
        self.add_item_tag(0, offset, pmt.intern(self._tag), pmt.from_long(self._samples.size))
        self._tag = None

    def _next_samples(self) -> bool:
        """Load the next burst, or the next piece of the tail; False where there is nothing to send."""
        burst = next(self._bursts, None)
        if burst is not None:
            shaped = burst.samples(self._samples_per_symbol) * self._amplitude
            self._samples = np.concatenate([shaped, self._gap])
            self._tag = LENGTH_TAG
            self.bursts_sent += 1
            self.symbols_sent += burst.header.burst_symbols
            self.payload_symbols_sent += burst.header.payload_symbols
            self.code_blocks_sent += burst.header.blocks
            return True
        if self._frame_open:
            self._frame_open = False
            self.frames_sent += 1
            self.message_port_pub(PORT_SENT, pmt.PMT_T)
        while self._frames:
            bursts = self._frames.popleft()
            if bursts is None:
                self.message_port_pub(PORT_SENT, pmt.PMT_F)
                continue
            self._bursts = bursts
            self._frame_open = True
            return self._next_samples()
        return self._next_tail()

    def _next_tail(self) -> bool:
        if self._tail:
            self._samples, self._tag = self._tail.popleft()
            return True
        if not self._finish.is_set():
            return False
        self._finish.clear()
        before = np.zeros(_TAIL_BEFORE_SYMBOLS * self._samples_per_symbol, np.complex64)
        after = np.zeros(_TAIL_AFTER_SYMBOLS * self._samples_per_symbol, np.complex64)
        self._tail.extend([(before, None), (after, END_TAG)])
        return self._next_tail()
