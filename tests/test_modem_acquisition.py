"""Finding bursts: how often, how exactly, and that nothing else is taken for one.

Accuracy is compared with the Cramer-Rao bounds of 256 known symbols: the estimators may not be much
worse (that would cost sensitivity), and cannot be better (that would mean that the test is wrong).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from blocks.modem import acquisition as acq
from blocks.modem import waveform as wf
from tests.simulated_air import (
    FIRST_SYMBOL,
    RECEIVER_SPS,
    Air,
    bursts_of,
    noise,
    on_air,
    random_bits,
)

# Samples that the two stages look at around a position.
_BEFORE = acq.SEARCH_CONTEXT_BEFORE + acq.CONFIRM_MARGIN_SAMPLES
_AFTER = acq.SEARCH_CONTEXT_AFTER + acq.CONFIRM_SPAN_SAMPLES
# Air samples that hold the preamble, some of the header, and room for the search on both sides: the
# rest of a burst plays no part in acquisition.
_LEAD = 1200
_LENGTH = _LEAD + FIRST_SYMBOL + 4 * (wf.PREAMBLE_SYMBOLS + 50) + 2 * _AFTER


def find(samples: NDArray[np.complex64]) -> list[acq.Acquisition]:
    """Every confirmed preamble in a stretch, its two ends left out."""
    found = []
    for candidate in acq.search(samples):
        if _BEFORE <= candidate.position < samples.size - _AFTER:
            found.append(acq.confirm(samples, candidate))
    return [one for one in found if one is not None]


def find_all(samples: NDArray[np.complex64]) -> list[acq.Acquisition]:
    """Every confirmed preamble in a whole recording, with exact silence around it."""
    edges = np.zeros(_BEFORE, np.complex64), np.zeros(_AFTER, np.complex64)
    found = find(np.concatenate([edges[0], samples, edges[1]]))
    return [replace(one, start=one.start - _BEFORE) for one in found]


@dataclass
class Trials:
    """Outcome of many detections of one preamble."""

    count: int = 0
    missed: int = 0
    elsewhere: int = 0
    start_errors: list[float] = field(default_factory=list)  # samples
    cfo_errors: list[float] = field(default_factory=list)  # cycles per symbol


def run_trials(
    count: int,
    snr_db: float,
    seed: int,
    dc_db: float | None = None,
    gain: float = 1.0,
    phase_noise: float = 0.0,
) -> Trials:
    """Preambles at random offsets, delays and phases; a DC line ``dc_db`` over the signal's power."""
    generator = np.random.default_rng(seed)
    burst = bursts_of(random_bits(300, seed), mcs=4)
    air_samples = on_air(burst, lead=_LEAD)[0][:_LENGTH]
    result = Trials()
    for _ in range(count):
        dc = 0.0 if dc_db is None else 10 ** (dc_db / 20)
        air = Air(
            snr_db=snr_db,
            cfo=generator.uniform(-wf.MAX_CFO_SYMBOL_RATES, wf.MAX_CFO_SYMBOL_RATES),
            delay=generator.uniform(0, 40),
            phase=generator.uniform(),
            phase_noise=phase_noise,
            gain=gain,
            dc=dc * np.exp(2j * np.pi * generator.uniform()),
        )
        found = find(air.receive(air_samples, generator))
        true = air.arrival(_LEAD + FIRST_SYMBOL)
        right = [one for one in found if abs(one.start - true) < RECEIVER_SPS / 2]
        result.count += 1
        result.missed += not right
        result.elsewhere += len(found) - len(right)
        if right:
            result.start_errors.append(right[0].start - true)
            result.cfo_errors.append(right[0].cfo - air.cfo)
    return result


def cfo_bound(snr_db: float) -> float:
    """Cramer-Rao bound (standard deviation, cycles per symbol) with unknown phase."""
    n, snr = wf.PREAMBLE_SYMBOLS, 10 ** (snr_db / 10)
    return math.sqrt(6 / (snr * n * (n**2 - 1))) / (2 * math.pi)


def start_bound(snr_db: float) -> float:
    """Cramer-Rao bound (standard deviation, samples) for a white symbol sequence.

    The mean square bandwidth of the raised-cosine spectrum is 1/12 + a^2 (1/4 - 2/pi^2).
    """
    n, snr = wf.PREAMBLE_SYMBOLS, 10 ** (snr_db / 10)
    bandwidth = 1 / 12 + wf.ROLL_OFF**2 * (1 / 4 - 2 / math.pi**2)
    return RECEIVER_SPS / math.sqrt(2 * n * snr * (2 * math.pi) ** 2 * bandwidth)


@pytest.mark.parametrize(("snr_db", "trials"), [(0.0, 200), (-2.0, 300)])
def test_detection_and_accuracy_at_low_snr(snr_db: float, trials: int) -> None:
    result = run_trials(trials, snr_db, seed=1)
    assert result.missed == 0  # promise: 1 in 1000
    assert result.elsewhere == 0
    start_rms = float(np.sqrt(np.mean(np.square(result.start_errors))))
    cfo_rms = float(np.sqrt(np.mean(np.square(result.cfo_errors))))
    # A standard deviation from n trials is itself uncertain by 1/sqrt(2 n), 5 % here; the preamble's
    # spectrum is not exactly white.
    assert 0.8 < start_rms / start_bound(snr_db) < 1.3
    assert 0.85 < cfo_rms / cfo_bound(snr_db) < 1.3
    # One outlier (a neighbouring sample, an alias) would hide in the root mean square of many.
    assert np.abs(result.start_errors).max() < 5 * start_bound(snr_db)
    assert np.abs(result.cfo_errors).max() < 5 * cfo_bound(snr_db)


def test_accuracy_at_high_snr_is_limited_by_the_filters_alone() -> None:
    result = run_trials(40, 40.0, seed=2)
    assert (result.missed, result.elsewhere) == (0, 0)
    # 1/50 of a sample is 1/100 of a symbol: -40 dB of intersymbol interference.
    assert np.abs(result.start_errors).max() < 0.02
    assert np.abs(result.cfo_errors).max() < 1e-5


def test_phase_noise_of_the_promise_does_no_harm() -> None:
    result = run_trials(60, -2.0, seed=3, phase_noise=1e-5)
    assert (result.missed, result.elsewhere) == (0, 0)
    # The walk adds (6/5) Q / n / (2 pi)^2 to the variance of the frequency: small against the bound.
    assert np.sqrt(np.mean(np.square(result.cfo_errors))) < 1.4 * cfo_bound(-2.0)


@pytest.mark.parametrize("dc_db", [-10.0, 0.0, 10.0])
def test_dc_line(dc_db: float) -> None:
    result = run_trials(60, -2.0, seed=4, dc_db=dc_db)
    assert (result.missed, result.elsewhere) == (0, 0)
    # The line must not pull the estimates towards itself.
    assert np.abs(result.cfo_errors).max() < 5 * cfo_bound(-2.0)
    assert abs(np.mean(result.cfo_errors)) < 4 * cfo_bound(-2.0) / math.sqrt(60)


@pytest.mark.parametrize("gain", [1e-4, 1e-2, 100.0])
def test_amplitude_plays_no_part(gain: float) -> None:
    result = run_trials(20, 0.0, seed=5, gain=gain)
    assert (result.missed, result.elsewhere) == (0, 0)


@pytest.mark.parametrize("cfo", [-0.05, -0.025, 0.0, 0.025, 0.05])
def test_offsets_at_the_edges_and_on_the_word_filters(cfo: float) -> None:
    burst = bursts_of(random_bits(300, 6), mcs=4)
    generator = np.random.default_rng(6)
    samples, _ = on_air(burst, lead=_LEAD)
    air = Air(snr_db=0.0, cfo=cfo, delay=0.4)
    (found,) = find_all(air.receive(samples[:_LENGTH], generator))
    assert found.cfo == pytest.approx(cfo, abs=5 * cfo_bound(0.0))
    assert found.start == pytest.approx(air.arrival(_LEAD + FIRST_SYMBOL), abs=5 * start_bound(0.0))


@pytest.mark.parametrize("cfo", [-0.07, 0.068])
def test_offsets_beyond_the_lag_of_the_word_are_told_from_their_aliases(cfo: float) -> None:
    """A lag of 8 symbols wraps at 6.25 %: the PN part decides between the aliases at +-1/8."""
    burst = bursts_of(random_bits(300, 6), mcs=4)
    samples, _ = on_air(burst, lead=_LEAD)
    air = Air(snr_db=10.0, cfo=cfo, delay=0.4)
    (found,) = find_all(air.receive(samples[:_LENGTH], np.random.default_rng(6)))
    assert found.cfo == pytest.approx(cfo, abs=5 * cfo_bound(10.0))


def test_score_is_the_squared_correlation() -> None:
    """Without noise 1; at Es/N0 = snr about snr/(1 + snr)."""
    burst = bursts_of(random_bits(300, 7), mcs=4)
    samples = on_air(burst, lead=_LEAD)[0][:_LENGTH]
    generator = np.random.default_rng(7)
    (clean,) = find_all(Air(cfo=0.01).receive(samples, generator))
    assert 0.99 < clean.score <= 1.0001
    scores = [find_all(Air(snr_db=0.0).receive(samples, generator))[0].score for _ in range(20)]
    assert np.mean(scores) == pytest.approx(0.5, abs=0.03)


def test_silence_then_a_burst() -> None:
    """Exact zeros before a burst: a window of silence and half of the words scores as well as the
    whole preamble does, and once that moved the start by whole words.
    """
    burst = bursts_of(random_bits(300, 8), mcs=4)
    for lead in (0, 37, 64, 1000, 4096):
        samples, (begin,) = on_air(burst, lead=lead)
        air = Air(cfo=0.02, delay=0.3)
        (found,) = find_all(air.receive(samples, np.random.default_rng(8)))
        assert found.start == pytest.approx(air.arrival(begin + FIRST_SYMBOL), abs=0.02)


def test_after_the_transient_of_a_dc_blocker() -> None:
    """Exact zeros, a decaying step 30 dB over the burst, then the burst."""
    burst = bursts_of(random_bits(300, 9), mcs=4)
    for distance in (200, 1000, 3000):
        samples, (begin,) = on_air(burst, lead=2000 + distance)
        step = np.zeros(samples.size)
        step[2000:] = 30.0 * np.exp(-np.arange(samples.size - 2000) / 40.0)
        air = Air(snr_db=30.0, cfo=-0.03)
        silent = (samples + step).astype(np.complex64)
        received = air.receive(silent, np.random.default_rng(9))
        received[:1000] = 0
        right = [
            one
            for one in find_all(received)
            if abs(one.start - air.arrival(begin + FIRST_SYMBOL)) < 0.05
        ]
        assert len(right) == 1, distance


def test_two_bursts_20_db_apart() -> None:
    weak, strong = bursts_of(random_bits(300, 10), 4), bursts_of(random_bits(300, 11), 4)
    for first, second in ((1.0, 0.1), (0.1, 1.0)):
        one, (begin_one,) = on_air(strong, lead=2000, tail=500)
        two, (begin_two,) = on_air(weak, lead=0, tail=2000)
        samples = np.concatenate([first * one, second * two]).astype(np.complex64)
        # Es/N0 is 22 dB for the strong burst and 2 dB for the weak one.
        air = Air(snr_db=22.0, cfo=0.04)
        starts = [
            found.start for found in find_all(air.receive(samples, np.random.default_rng(12)))
        ]
        expected = [
            air.arrival(begin_one + FIRST_SYMBOL),
            air.arrival(one.size + begin_two + FIRST_SYMBOL),
        ]
        assert starts == pytest.approx(expected, abs=0.5)


def noise_only(count: int, seed: int) -> NDArray[np.complex64]:
    return noise(count, 2.0, np.random.default_rng(seed)).astype(np.complex64)


def test_noise_alone_confirms_nothing() -> None:
    """3 million samples, in stretches of 2^18. (The slow test takes 200 million.)"""
    for stretch in range(12):
        assert find_all(noise_only(1 << 18, stretch)) == []


@pytest.mark.parametrize("noise_db", [None, -40.0, -10.0, 0.0, 6.0])
def test_a_tone_confirms_nothing(noise_db: float | None) -> None:
    """Tones all over the receiver's band, 500,000 samples for each noise level; each begins and ends
    abruptly, which makes it look like half of the repeated words.
    """
    generator = np.random.default_rng(13)
    for frequency in np.linspace(-0.45, 0.45, 31):
        samples = np.exp(2j * np.pi * frequency * np.arange(1 << 14))
        if noise_db is not None:
            samples = samples + noise(samples.size, 10 ** (noise_db / 10), generator)
        assert find_all(samples.astype(np.complex64)) == []


def test_a_tone_does_not_keep_the_second_stage_busy() -> None:
    """A second stage takes about a millisecond: one for every 100 samples would end real time.

    Tones all over the band, 10 dB over the noise: fewer than one candidate in 1500 samples.
    """
    generator = np.random.default_rng(13)
    candidates = count = 0
    for frequency in np.linspace(-0.45, 0.45, 31):
        tone = np.exp(2j * np.pi * frequency * np.arange(1 << 14))
        samples = tone + noise(tone.size, 0.1, generator)
        candidates += len(acq.search(samples.astype(np.complex64)))
        count += tone.size
    assert candidates < count / 1500


def test_a_sweep_and_pulsed_tones_confirm_nothing() -> None:
    time = np.arange(1 << 17)
    sweep = np.exp(2j * np.pi * (time * (time / time.size - 1.0) / 2))
    assert find_all(sweep.astype(np.complex64)) == []
    for period in (16, 32, 64, 128):
        pulsed = np.exp(0.3j * time) * (time % period < period // 2)
        assert find_all(pulsed.astype(np.complex64)) == []


def test_the_word_alone_confirms_nothing() -> None:
    """Endless repetition of the word is not a burst: the PN part is what confirms."""
    word = np.repeat(wf.preamble()[: wf.WORD_SYMBOLS], RECEIVER_SPS)
    assert find_all(np.tile(word, 4000).astype(np.complex64)) == []


def test_a_silent_stream() -> None:
    assert find_all(np.zeros(100_000, np.complex64)) == []
    assert find_all(np.full(100_000, 0.3 - 0.2j, np.complex64)) == []


def test_payload_is_not_taken_for_a_preamble() -> None:
    """20 bursts of random payload: the confirmed preambles are the bursts' own."""
    bursts = [b for seed in range(10) for b in bursts_of(random_bits(17_000, seed), mcs=4)]
    samples, begins = on_air(bursts, gap=0)
    air = Air(snr_db=10.0, cfo=0.03, delay=0.7)
    found = find_all(air.receive(samples, np.random.default_rng(14)))
    expected = [air.arrival(begin + FIRST_SYMBOL) for begin in begins]
    assert [one.start for one in found] == pytest.approx(expected, abs=0.5)


def test_candidates_without_context_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="lacks context"):
        acq.confirm(np.zeros(5000, np.complex64), acq.Candidate(10, 0.0, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("dc_db", [None, -10.0, 0.0, 10.0])
def test_detection_long(dc_db: float | None) -> None:
    """5000 preambles at -2 dB under everything promised: at least 99.9 % found, none elsewhere."""
    result = run_trials(5000, -2.0, seed=20, dc_db=dc_db, phase_noise=1e-5)
    assert result.missed <= 5
    assert result.elsewhere == 0


@pytest.mark.slow
def test_noise_alone_confirms_nothing_long() -> None:
    """200 million samples. The second stage lets noise pass with a probability of about exp(-30)."""
    for stretch in range(200):
        assert find_all(noise_only(1 << 20, 1000 + stretch)) == []
