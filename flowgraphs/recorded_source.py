"""A recording as a source that knows how to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pmt
from gnuradio import blocks as gr_blocks
from gnuradio import gr

from blocks.burst_modulator import END_TAG

# Silence between the recording's last sample and the mark, so that what is there is well past every
# filter; and how often mark and silence come again.
_MARK_AFTER_SAMPLES = 8192
_SILENCE_SAMPLES = 65_536
_MOST_SAMPLES = 2**31 - 1


class RecordedSource(gr.hier_block2):
    """Samples of a file, then an end mark, and silence for ever.

    A source that just ends takes the blocks behind message ports down with it, before they have got what
    the receiver still holds. With the mark the receiver says when it has worked off everything
    (``END_MESSAGE``), and the flowgraph can be stopped.

    Args:
        path: file of ``complex64``.

    Raises:
        ValueError: not a whole number of samples, none, or more than 2**31 - 1.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        output = gr.io_signature(1, 1, gr.sizeof_gr_complex)
        gr.hier_block2.__init__(self, "RecordedSource", gr.io_signature(0, 0, 0), output)
        samples, rest = divmod(path.stat().st_size, gr.sizeof_gr_complex)
        if rest or not 0 < samples <= _MOST_SAMPLES:
            raise ValueError(f"{path}: {samples} samples and {rest} bytes")
        mark = gr.tag_t()
        mark.offset, mark.key, mark.value = _MARK_AFTER_SAMPLES, pmt.intern(END_TAG), pmt.PMT_T
        silence = np.zeros(_SILENCE_SAMPLES, np.complex64)
        after = gr_blocks.vector_source_c(silence, True, 1, [mark])
        one_by_one = gr_blocks.stream_mux(gr.sizeof_gr_complex, [samples, _MOST_SAMPLES])
        self.connect(gr_blocks.file_source(gr.sizeof_gr_complex, str(path)), (one_by_one, 0))
        self.connect(after, (one_by_one, 1))
        self.connect(one_by_one, self)
