"""GNU Radio blocks of the link, one per module; :mod:`blocks.modem` is the waveform without GNU Radio."""

from blocks.caches import provide_caches

provide_caches()
