"""Tape: samples on their way to the receiver are written to a file; all in C++."""

from __future__ import annotations

from pathlib import Path

from gnuradio import blocks as gr_blocks
from gnuradio import gr

from blocks.burst_modulator import END_TAG
from blocks.rx_time import RX_TIME_TAG
from blocks.time_tags import pmt_to_time
from captures.datatypes import INT16_FULL_SCALE


class Tape(gr.hier_block2):
    """Complex samples in; the same out, as they stand in the file.

    With 16-bit integers what goes on to the receiver has been rounded as the file has: a replay hears
    exactly what the receiver heard.

    Args:
        path: data file; written from its start.
        datatype: ``cf32_le`` or ``ci16_le`` (full scale 1, beyond it clips).
    """

    def __init__(self, path: Path, datatype: str) -> None:
        signature = gr.io_signature(1, 1, gr.sizeof_gr_complex)
        gr.hier_block2.__init__(self, "Tape", signature, signature)
        # Before everything else, so that file and receiver end with the same sample.
        self._gate = gr_blocks.copy(gr.sizeof_gr_complex)
        self._times = self._tag_memory(RX_TIME_TAG)
        self._end = self._tag_memory(END_TAG)
        self.connect(self, self._gate)
        self.connect(self._gate, self._times)
        self.connect(self._gate, self._end)
        if datatype == "ci16_le":
            self._items_per_sample = 2
            self._sink = gr_blocks.file_sink(gr.sizeof_short, str(path))
            to_short = gr_blocks.complex_to_interleaved_short(False, INT16_FULL_SCALE)
            from_short = gr_blocks.interleaved_short_to_complex(False, False, INT16_FULL_SCALE)
            self.connect(self._gate, to_short, self._sink)
            self.connect(to_short, from_short, self)
        else:
            self._items_per_sample = 1
            self._sink = gr_blocks.file_sink(gr.sizeof_gr_complex, str(path))
            self.connect(self._gate, self._sink)
            self.connect(self._gate, self)
        # Handed to the system with every call: what a killed process has written stays.
        self._sink.set_unbuffered(True)

    @staticmethod
    def _tag_memory(key: str) -> gr_blocks.tag_debug:
        memory = gr_blocks.tag_debug(gr.sizeof_gr_complex, "Tape", key)
        memory.set_display(False)
        memory.set_save_all(True)
        return memory

    @property
    def position(self) -> int:
        """Samples that are in the file and whose tags are known."""
        return int(
            min(
                self._sink.nitems_read(0) // self._items_per_sample,
                self._times.nitems_read(0),
                self._end.nitems_read(0),
            )
        )

    @property
    def times(self) -> list[tuple[int, int, float]]:
        """Time tags so far: number of the sample in the file, whole seconds and the rest."""
        tags = sorted(self._times.current_tags(), key=lambda tag: tag.offset)
        return [(int(tag.offset), *pmt_to_time(tag.value)) for tag in tags]

    @property
    def end(self) -> int | None:
        """Samples before the end mark of a simulation, None where none has come."""
        tags = self._end.current_tags()
        return int(tags[0].offset) if tags else None

    @property
    def taken(self) -> int:
        """Samples that have come in."""
        return int(self._gate.nitems_written(0))

    def cut(self) -> None:
        """End the stream here, for file and receiver alike; what still comes is thrown away."""
        self._gate.set_enabled(False)

    def close(self) -> None:
        """Close the file, after the flowgraph has stopped."""
        self._sink.close()
