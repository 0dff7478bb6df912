"""The simulated air does what it says: Es/N0, carrier, clock, fading and echoes are measured."""

from __future__ import annotations

import numpy as np
import pmt
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_modulator import LENGTH_TAG
from blocks.modem import waveform as wf
from blocks.modem.pulse import matched_filter_bank, sample_symbols, shape
from flowgraphs.channel import Channel, noise_variance
from tests.simulated_air import bursts_of, random_bits

SAMPLE_RATE_HZ = 4e6


def through(
    samples: NDArray[np.complex64],
    tags: list[int] | None = None,
    most: int = 8192,
    **arguments: object,
) -> NDArray[np.complex64]:
    """Samples through a real Channel in a real flowgraph."""
    marks = []
    for place in tags or []:
        mark = gr.tag_t()
        mark.offset, mark.key, mark.value = place, pmt.intern(LENGTH_TAG), pmt.from_long(1)
        marks.append(mark)
    settings = {
        "sample_rate_hz": SAMPLE_RATE_HZ, "samples_per_symbol": 4, "amplitude": 0.25, "snr_db": None,
        **arguments,
    }  # fmt: skip
    channel = Channel(**settings)  # type: ignore[arg-type]
    sink = gr_blocks.vector_sink_c()
    top = gr.top_block()
    top.connect(gr_blocks.vector_source_c(samples.tolist(), False, 1, marks), channel, sink)
    top.run(most)
    return np.array(sink.data(), np.complex64)


def burst_samples(samples_per_symbol: int, amplitude: float) -> NDArray[np.complex64]:
    (burst,) = bursts_of(random_bits(8000, 1), mcs=4)
    samples = burst.samples(samples_per_symbol)
    return (amplitude * samples).astype(np.complex64)


@pytest.mark.parametrize("snr_db", [-6.0, 3.0, 20.0])
@pytest.mark.parametrize(("samples_per_symbol", "amplitude"), [(4, 0.25), (2, 1.0), (8, 0.01)])
def test_es_n0(snr_db: float, samples_per_symbol: int, amplitude: float) -> None:
    """Signal and noise measured apart, Es from the power of a burst, N0 per sample of white noise.

    10^6 samples of noise: its power is known to 4.34 / 1000 = 0.004 dB.
    """
    signal = burst_samples(samples_per_symbol, amplitude)
    inside = signal[40 * samples_per_symbol : -40 * samples_per_symbol]
    energy = np.mean(np.abs(inside) ** 2) * samples_per_symbol
    noise = through(
        np.zeros(1_000_000, np.complex64), snr_db=snr_db, amplitude=amplitude,
        samples_per_symbol=samples_per_symbol, seed=5,
    )  # fmt: skip
    measured = 10 * np.log10(energy / np.mean(np.abs(noise.astype(np.complex128)) ** 2))
    # The burst's mean power itself hangs on its symbols, to about 0.03 dB.
    assert measured == pytest.approx(snr_db, abs=0.05)
    formula = noise_variance(snr_db, amplitude, samples_per_symbol)
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(formula, rel=0.005)


def test_es_n0_behind_the_matched_filter() -> None:
    """The definition that counts: symbols and noise after the matched filter, at one symbol per instant."""
    symbols = np.exp(0.25j * np.pi * np.random.default_rng(2).integers(0, 8, 60_000))
    samples = 0.25 * shape(symbols.astype(np.complex64), 4)
    received = through(samples.astype(np.complex64), snr_db=7.0, seed=6)
    # A matched filter at 4 samples per symbol: the same pulse, twice as dense.
    time = np.arange(-32, 33) / 4
    out = np.convolve(received, wf.root_raised_cosine(time) / 4)[32:-32:4][8 : 8 + symbols.size]
    gain = np.vdot(symbols, out) / symbols.size
    noise = np.mean(np.abs(out - gain * symbols) ** 2)
    assert abs(gain) == pytest.approx(0.25, rel=0.005)
    assert 10 * np.log10(abs(gain) ** 2 / noise) == pytest.approx(7.0, abs=0.06)


def test_noise_is_white_gaussian_and_circular() -> None:
    noise = through(np.zeros(400_000, np.complex64), snr_db=0.0, amplitude=0.5, seed=7)
    noise = noise.astype(np.complex128) / np.sqrt(np.mean(np.abs(noise) ** 2))
    limit = 4 / np.sqrt(noise.size)
    assert abs(noise.mean()) < limit
    assert abs((noise**2).mean()) < limit
    for lag in (1, 2, 3, 16_384):  # the last: what channel_model's table would repeat
        assert abs(np.mean(noise[lag:] * noise[:-lag].conj())) < limit
    power = np.abs(noise) ** 2
    for threshold in (0.1, 1.0, 4.0, 9.0):
        expected = np.exp(-threshold)
        spread = np.sqrt(expected * (1 - expected) / power.size)
        assert abs((power > threshold).mean() - expected) < 4 * spread


def test_seeds() -> None:
    silence = np.zeros(20_000, np.complex64)
    one = through(silence, snr_db=0.0, seed=1)
    assert np.array_equal(one, through(silence, snr_db=0.0, seed=1))
    assert np.array_equal(one, through(silence, snr_db=0.0, seed=1, most=100))
    others = [through(silence, snr_db=0.0, seed=seed) for seed in range(2, 6)]
    for other in others:
        assert abs(np.vdot(one, other)) / np.vdot(one, one).real < 4 / np.sqrt(one.size)


@pytest.mark.parametrize("cfo_hz", [50_000.0, -50_000.0, 1.0])
def test_carrier_offset(cfo_hz: float) -> None:
    out = through(np.ones(200_000, np.complex64), cfo_hz=cfo_hz).astype(np.complex128)
    turn = np.angle(np.vdot(out[:-1], out[1:])) / (2 * np.pi) * SAMPLE_RATE_HZ
    # The step between neighbours is known to float32; over the whole stretch the phase must agree too.
    assert turn == pytest.approx(cfo_hz, abs=0.5)
    expected = np.exp(2j * np.pi * ((cfo_hz / SAMPLE_RATE_HZ * np.arange(out.size)) % 1.0))
    drift = np.angle(np.mean(out[-1000:] * expected[-1000:].conj()))
    assert abs(drift - np.angle(out[0])) < 0.01
    assert np.allclose(np.abs(out), 1, atol=1e-4)


@pytest.mark.parametrize("sro_ppm", [40.0, -40.0, 200.0])
def test_sample_rate_offset(sro_ppm: float) -> None:
    """A tone comes out lower by the factor that the receiver's clock is fast, and the stream longer."""
    frequency = 0.05
    tone = np.exp(2j * np.pi * frequency * np.arange(400_000)).astype(np.complex64)
    out = through(tone, sro_ppm=sro_ppm).astype(np.complex128)
    assert out.size == pytest.approx(tone.size * (1 + sro_ppm * 1e-6), abs=16)
    phase = np.unwrap(np.angle(out[100:-100]))
    slope = (phase[-1] - phase[0]) / (phase.size - 1) / (2 * np.pi)
    assert (frequency / slope - 1) * 1e6 == pytest.approx(sro_ppm, abs=0.1)


@pytest.mark.parametrize("samples_per_symbol", [2, 4, 8])
def test_resampling_for_the_clock_offset_keeps_the_signal_clean(samples_per_symbol: int) -> None:
    """The interpolator's error, against the band-limited truth, must stay under the noise at 20 dB."""
    from tests.simulated_air import resample

    signal = burst_samples(samples_per_symbol, 1.0)[:20_000]
    out = through(signal, sro_ppm=100.0, samples_per_symbol=samples_per_symbol)
    time = np.arange(out.size) / (1 + 100e-6)
    best = min(
        float(
            np.mean(
                np.abs(
                    out
                    - resample(signal, float(time[0] + shift), float(time[1] - time[0]), time.size)
                )[500:-500]
                ** 2
            )
        )
        for shift in range(-8, 9)
    )
    error_db = 10 * np.log10(best / np.mean(np.abs(signal[500:-500]) ** 2))
    assert error_db < -30


def test_taps_are_the_impulse_response() -> None:
    impulse = np.zeros(100, np.complex64)
    impulse[10] = 1
    taps = [1.0, 0.0, 0.3j, -0.2]
    out = through(impulse, taps=taps)
    assert np.allclose(out[10:14], taps, atol=1e-6)
    assert not out[:10].any()
    assert not out[14:].any()


def test_clean_channel_changes_nothing() -> None:
    samples = burst_samples(4, 0.25)
    assert np.array_equal(through(samples), samples)


@pytest.mark.parametrize("fading", ["rayleigh", "rician"])
def test_fading_is_constant_per_burst_and_reproducible(fading: str) -> None:
    places = list(range(0, 40_000, 400))
    ones = np.ones(40_000, np.complex64)
    out = through(ones, places, fading=fading, rician_k_db=3.0, seed=11)
    gains = out.reshape(-1, 400)
    assert np.allclose(gains, gains[:, :1], atol=1e-6)
    assert len(set(gains[:, 0].tolist())) == len(places)
    # 100 gains: their mean power is 1 to 4 standard deviations.
    power = np.abs(gains[:, 0]) ** 2
    assert abs(power.mean() - 1) < 4 * power.std() / 10
    again = through(ones, places, 333, fading=fading, rician_k_db=3.0, seed=11)
    assert np.array_equal(out, again)
    other = through(ones, places, fading=fading, rician_k_db=3.0, seed=12)
    assert not np.array_equal(out, other)


def test_noise_does_not_fade() -> None:
    """The noise of the receiver is there whatever the gain: silence and faded bursts have the same."""
    silent = through(
        np.zeros(300_000, np.complex64), [0, 150_000], snr_db=10.0, fading="rayleigh", seed=3
    )
    plain = through(np.zeros(300_000, np.complex64), snr_db=10.0, seed=3)
    assert np.array_equal(silent, plain)


def test_matched_filter_bank_agrees_with_the_pulse_used_here() -> None:
    """Guards the test above that builds its own matched filter."""
    symbols = np.exp(0.5j * np.pi * np.random.default_rng(4).integers(0, 4, 100)).astype(
        np.complex64
    )
    samples = np.ascontiguousarray(shape(symbols, 4)[::2])
    out = sample_symbols(samples, matched_filter_bank(), 16.0, 2.0, np.arange(100.0))
    assert np.allclose(out[10:-10], symbols[10:-10], atol=0.02)
