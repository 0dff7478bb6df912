"""The front end's response, measured with tones through the real flowgraph, and what it does to bursts."""

from __future__ import annotations

import numpy as np
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.stream_receiver import Outcome, StreamReceiver
from flowgraphs.front_end import FrontEnd, anti_alias_taps
from tests.simulated_air import bursts_of, noise, random_bits

ALL_SPS = range(2, 9)


def through(
    samples: NDArray[np.complex64], samples_per_symbol: int, dc_block_length: int = 0
) -> NDArray[np.complex64]:
    front_end = FrontEnd(samples_per_symbol, dc_block_length)
    sink = gr_blocks.vector_sink_c()
    top = gr.top_block()
    top.connect(gr_blocks.vector_source_c(samples.tolist()), front_end, sink)
    top.run()
    return np.array(sink.data(), np.complex64)


def response_db(frequency: float, samples_per_symbol: int) -> float:
    """Power of a tone at ``frequency`` symbol rates behind the front end, wherever it comes out."""
    time = np.arange(1500 * samples_per_symbol) / samples_per_symbol
    out = through(np.exp(2j * np.pi * frequency * time).astype(np.complex64), samples_per_symbol)
    return float(10 * np.log10(np.mean(np.abs(out[300:-300]) ** 2) + 1e-30))


@pytest.mark.parametrize("samples_per_symbol", ALL_SPS)
def test_pass_band_is_flat(samples_per_symbol: int) -> None:
    """To 0.7 symbol rates, signal and offset: within 0.05 dB of gain 1."""
    for frequency in (0.0, 0.1, -0.31, 0.5, -0.625, 0.675, 0.7):
        assert abs(response_db(frequency, samples_per_symbol)) < 0.05, frequency


@pytest.mark.parametrize("samples_per_symbol", [sps for sps in ALL_SPS if sps > 2])
def test_stop_band_is_silent(samples_per_symbol: int) -> None:
    """From 1.3 symbol rates to the end of the band: what folds into the pass band is 50 dB down."""
    end = samples_per_symbol / 2
    for frequency in (1.3, -1.3, 1.45, *np.arange(1.6, end, 0.4), -end + 0.01):
        if 1.3 <= abs(frequency) < end:
            assert response_db(float(frequency), samples_per_symbol) < -50, frequency


@pytest.mark.parametrize("samples_per_symbol", ALL_SPS)
def test_a_tone_comes_out_at_its_own_frequency(samples_per_symbol: int) -> None:
    time = np.arange(1500 * samples_per_symbol) / samples_per_symbol
    out = through(np.exp(2j * np.pi * 0.21 * time).astype(np.complex64), samples_per_symbol)
    turns = np.angle(np.vdot(out[300:-301], out[301:-300])) / (2 * np.pi)
    assert turns * wf.RECEIVER_SAMPLES_PER_SYMBOL == pytest.approx(0.21, abs=1e-4)
    assert out.size == pytest.approx(2 * 1500, abs=16)  # less the filter's length


@pytest.mark.parametrize("samples_per_symbol", ALL_SPS)
def test_white_noise_keeps_its_density(samples_per_symbol: int) -> None:
    """N0 in the pass band does not change with the sample rate, or Es/N0 would."""
    count = 40_000 * samples_per_symbol
    white = noise(count, float(samples_per_symbol), np.random.default_rng(1))
    out = through(white.astype(np.complex64), samples_per_symbol)
    spectrum = np.abs(np.fft.fft(out[: out.size // 2 * 2])) ** 2 / out.size / 2
    frequency = np.abs(np.fft.fftfreq(spectrum.size, 1 / 2))
    density = spectrum[frequency < 0.65].mean()
    assert density == pytest.approx(1, abs=0.02)


def test_taps_have_the_gain_asked_for() -> None:
    assert sum(anti_alias_taps(4)) == pytest.approx(1, abs=1e-4)
    assert sum(anti_alias_taps(10, gain=3.0)) == pytest.approx(3, abs=1e-3)


def test_dc_is_removed() -> None:
    out = through(np.full(60_000, 0.4 - 0.2j, np.complex64), 4, dc_block_length=1024)
    assert np.abs(out[-5000:]).max() < 1e-3
    kept = through(np.full(60_000, 0.4 - 0.2j, np.complex64), 4, dc_block_length=0)
    assert np.allclose(kept[-5000:], 0.4 - 0.2j, atol=1e-3)


@pytest.mark.parametrize("dc_db", [-10.0, 0.0, 10.0])
def test_bursts_on_top_of_a_dc_line_are_decoded(dc_db: float) -> None:
    """At 6 dB and rate 1/2, with the carrier's offset at its worst place: on the line, and away from it."""
    (burst,) = bursts_of(random_bits(8000, 2), mcs=4)
    samples = np.concatenate(
        [np.zeros(6000), burst.samples(4), np.zeros(4000)]
    )  # the blocker needs time to settle
    generator = np.random.default_rng(2)
    for cfo in (0.0, 0.05):
        turned = samples * np.exp(2j * np.pi * cfo / 4 * np.arange(samples.size))
        air = turned + noise(samples.size, 4 * 10**-0.6, generator) + 10 ** (dc_db / 20)
        receiver = StreamReceiver()
        received = receiver.push(through(air.astype(np.complex64), 4, 1024)) + receiver.flush()
        assert [one.outcome for one in received] == [Outcome.DEMODULATED]
        assert received[0].burst is not None
        assert all(block.ok for block in received[0].burst.blocks)


@pytest.mark.parametrize("samples_per_symbol", ALL_SPS)
def test_a_burst_behind_the_front_end(samples_per_symbol: int) -> None:
    """No noise: what pulse, filter and resampling leave is the receiver's own floor."""
    (burst,) = bursts_of(random_bits(3000, 3), mcs=4)
    air = np.concatenate([np.zeros(2000), burst.samples(samples_per_symbol), np.zeros(9000)])
    receiver = StreamReceiver()
    samples = through(air.astype(np.complex64), samples_per_symbol)
    (received,) = receiver.push(samples) + receiver.flush()
    assert received.burst is not None
    assert all(block.ok for block in received.burst.blocks)
    assert received.measurement.level == pytest.approx(1, abs=0.01)
    # Ten decibels above what the burst's mean, which goes with the DC at first, would leave.
    assert received.measurement.snr_db > 45
