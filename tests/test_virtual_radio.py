"""The virtual radio itself: a timed burst arrives at the sample it was timed for, and at the right level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pmt
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr

from blocks.burst_modulator import LENGTH_TAG
from blocks.burst_timer import TIME_TAG
from blocks.rx_time import RX_TIME_TAG
from flowgraphs.radios import make_sink, make_source
from tests.link_parts import wait_until
from tests.radio_link import air, virtual_profile

pytestmark = pytest.mark.usefixtures("virtual_radio")

RATE_HZ = 250e3
BURST = 20_000


@pytest.fixture
def name() -> Iterator[str]:
    with air() as unique:
        yield unique


def tag(offset: int, key: str, value: pmt.pmt_base) -> gr.tag_t:
    return gr.tag_utils.python_to_tag(
        {"offset": offset, "key": pmt.intern(key), "value": value, "srcid": pmt.PMT_F}
    )


def hear_burst(
    name: str, device_args: list[str], level: float = 0.25, overrides: tuple[str, ...] = ()
) -> tuple[np.ndarray[Any, Any], float]:
    """Send a burst of constant level a second ahead, through gr-uhd.

    Returns:
        What was heard in three seconds, and the sample at which the burst was to begin.
    """
    profile = virtual_profile("uhd", name, device_args, overrides)
    source, sink = make_source(profile), make_sink(profile)
    at_s = sink.get_time_now().get_real_secs() + 1.5
    time_value = pmt.make_tuple(pmt.from_uint64(int(at_s)), pmt.from_double(at_s % 1))
    # The source must not end: GNU Radio would close the sink before its burst is over.
    samples = gr_blocks.vector_source_c(
        [level] * BURST,
        False,
        1,
        [tag(0, LENGTH_TAG, pmt.from_long(BURST)), tag(0, TIME_TAG, time_value)],
    )
    heard = gr_blocks.vector_sink_c()
    top = gr.top_block()
    top.connect(samples, sink)
    top.connect(source, gr_blocks.head(gr.sizeof_gr_complex, int(3 * RATE_HZ)), heard)
    top.start()
    wait_until(lambda: heard.nitems_read(0) == int(3 * RATE_HZ), "three seconds of samples")
    top.stop()
    top.wait()
    (first,) = (t.value for t in heard.tags() if pmt.symbol_to_string(t.key) == RX_TIME_TAG)
    begins_s = pmt.to_uint64(pmt.tuple_ref(first, 0)) + pmt.to_double(pmt.tuple_ref(first, 1))
    return np.asarray(heard.data(), np.complex64), (at_s - begins_s) * RATE_HZ


@pytest.mark.parametrize("delay", [0, 1234])
def test_timed_burst_comes_back_at_its_time(name: str, delay: int) -> None:
    heard, expected = hear_burst(name, ["noise_dbfs=-inf", f"delay_samples={delay}"])
    (places,) = np.nonzero(heard)
    assert places.size == BURST
    assert places[0] == pytest.approx(expected + delay, abs=1)
    assert places[-1] - places[0] == BURST - 1
    assert np.allclose(heard[places], 0.25, atol=1e-5)


def test_gains_attenuation_and_antenna(name: str) -> None:
    """10 + 20 dB of gain against 42 dB of cable, and 40 dB more past the wrong port."""
    heard, _ = hear_burst(
        name, ["noise_dbfs=-inf", "loss_db=42"], overrides=("radio.rx.antenna=TX/RX",)
    )
    level = np.abs(heard[np.nonzero(heard)])
    assert np.allclose(20 * np.log10(level / 0.25), -12 - 40, atol=0.01)


def test_too_much_signal_is_clipped(name: str) -> None:
    heard, _ = hear_burst(name, ["noise_dbfs=-inf", "loss_db=10"])
    assert np.abs(heard).max() == 1.0


def test_noise_is_as_strong_as_asked(name: str) -> None:
    heard, _ = hear_burst(name, ["noise_dbfs=-30", "seed=7"], level=0.0)
    assert 10 * np.log10(np.mean(np.abs(heard) ** 2)) == pytest.approx(-30, abs=0.05)
    assert abs(np.mean(heard)) < 1e-3


def test_carrier_offset(name: str) -> None:
    heard, _ = hear_burst(name, ["noise_dbfs=-inf", "cfo_hz=5000"])
    burst = heard[np.nonzero(heard)]
    turned = np.angle(np.vdot(burst[:-1], burst[1:])) / (2 * np.pi) * RATE_HZ
    assert turned == pytest.approx(5000, abs=1)
