"""Bursts in a stream that makes it hard to find them: neighbours, cuts, levels, and what others send.

The quick tests take a few dozen bursts each, the slow ones as many as the promise needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.burst import Burst
from blocks.modem.burst_finder import BurstFinder, FoundBurst
from blocks.modem.pulse import shape
from blocks.modem.simulated_air import decimate
from tests.simulated_air import AIR_SPS, FIRST_SYMBOL, Air, bursts_of, noise, on_air, random_bits

WORD = wf.preamble()[: wf.WORD_SYMBOLS]
BURSTS = [bursts_of(random_bits(200, seed), mcs=1, frame_id=seed)[0] for seed in range(20)]


def find(samples: NDArray[np.complex64]) -> list[FoundBurst]:
    finder = BurstFinder()
    return finder.push(samples.astype(np.complex64)) + finder.flush()


def headers(found: Sequence[FoundBurst]) -> list[object]:
    return [one.header for one in found]


def sent_by(
    burst: Burst, generator: np.random.Generator, level: float = 1.0
) -> NDArray[np.complex128]:
    """One burst at 2 samples per symbol from a transmitter with an offset, a clock and a phase of its own.

    Its first sample is somewhere within the burst's first symbol.
    """
    air = Air(
        cfo=float(generator.uniform(-1, 1)) * wf.MAX_CFO_SYMBOL_RATES,
        sro_ppm=float(generator.uniform(-40, 40)),
        delay=float(generator.uniform(0, 4)),
        phase=float(generator.uniform()),
        gain=level,
    )
    # The pulse's transient before the ramp is left to overlap the neighbour.
    samples = burst.samples(AIR_SPS)[: AIR_SPS * (burst.symbols.size + 16)]
    return air.receive(samples, generator).astype(np.complex128)


def noisy(
    parts: Sequence[NDArray[np.complex128]], snr_db: float, generator: np.random.Generator
) -> NDArray[np.complex64]:
    """Parts one after the other in noise; ``snr_db`` is Es/N0 of a part of level 1."""
    samples = np.concatenate(parts)
    white = noise(2 * samples.size, AIR_SPS * 10 ** (-snr_db / 10), generator)
    return (samples + decimate(white)[: samples.size]).astype(np.complex64)


def silence(count: int) -> NDArray[np.complex128]:
    return np.zeros(count, np.complex128)


def missed_back_to_back(rounds: int, snr_db: float) -> int:
    """Bursts whose preamble is not found, of 20 per round, without a gap, each from another transmitter."""
    missed = 0
    for number in range(rounds):
        generator = np.random.default_rng([1, number])
        parts = [sent_by(burst, generator) for burst in BURSTS]
        edges = np.cumsum([300, *(part.size for part in parts)])[:-1]
        found = find(noisy([silence(300), *parts, silence(300)], snr_db, generator))
        starts = np.array([one.start for one in found])
        true = edges + FIRST_SYMBOL / 2
        # The transmitters' delays are up to two samples.
        missed += sum(not np.any(np.abs(starts - start - 1) < 2) for start in true)
        assert len(found) <= len(BURSTS)
        known = {burst.header for burst in BURSTS}
        assert all(one.header is None or one.header in known for one in found)
    return missed


def test_back_to_back_from_different_transmitters() -> None:
    assert missed_back_to_back(2, 0.0) == 0


@pytest.mark.slow
def test_back_to_back_from_different_transmitters_long() -> None:
    """4000 bursts at -2 dB: at least 99.9 % found."""
    assert missed_back_to_back(200, -2.0) <= 4


def failed_pairs(pairs: int, weak_first: bool, snr_db: float) -> int:
    """Pairs 20 dB apart of which not both headers are read; ``snr_db`` is Es/N0 of the weak one.

    Half of them without a gap, the others up to 200 symbols apart, at any place of a search block.
    """
    failed = 0
    for number in range(pairs):
        generator = np.random.default_rng([2, weak_first, number])
        one, two = BURSTS[number % 20], BURSTS[(number + 7) % 20]
        levels = (0.1, 1.0) if weak_first else (1.0, 0.1)
        gap = int(generator.integers(0, 400)) * (number % 2)
        parts = [
            silence(int(generator.integers(0, 8192))),
            sent_by(one, generator, levels[0]),
            silence(gap),
            sent_by(two, generator, levels[1]),
            silence(500),
        ]
        found = find(noisy(parts, snr_db + 20.0, generator))
        failed += headers(found) != [one.header, two.header]
    return failed


@pytest.mark.parametrize("weak_first", [False, True])
def test_two_bursts_20_db_apart(weak_first: bool) -> None:
    assert failed_pairs(12, weak_first, 3.0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("weak_first", [False, True])
def test_two_bursts_20_db_apart_long(weak_first: bool) -> None:
    """2000 pairs, the weak burst at 0 dB: at most 2 fail."""
    assert failed_pairs(2000, weak_first, 0.0) <= 2


def test_level_plays_no_part() -> None:
    """1e-4 to 1 and beyond: by powers of two the same result, to the last bit of every float.

    Up to what the receiver takes for a sample at all (blocks.modem.sample_guard).
    """
    generator = np.random.default_rng(3)
    parts = [silence(700), *(sent_by(burst, generator) for burst in BURSTS[:3]), silence(700)]
    samples = noisy(parts, 0.0, generator)
    expected = [(one.start, one.header, one.acquisition) for one in find(samples)]
    assert len(expected) == 3
    for exponent in (-40, -14, -13, 1, 12):
        found = find(np.ldexp(samples.view(np.float32), exponent).view(np.complex64))
        assert [(one.start, one.header, one.acquisition) for one in found] == expected
    for level in (1e-4, 1e-3, 0.0123, 0.5):
        found = find((level * samples).astype(np.complex64))
        assert headers(found) == [header for _, header, _ in expected]
        starts = [start for start, _, _ in expected]
        assert [one.start for one in found] == pytest.approx(starts, abs=1e-3)


def test_levels_from_1e_4_to_1_in_one_stream() -> None:
    """80 dB between neighbours: each is normalised by what is around it.

    They are a search block apart. The mean that the search takes out of a block is about 36 dB below a
    strong burst in it, a DC line to whoever is weaker.
    """
    generator = np.random.default_rng(4)
    levels = (1.0, 1e-4, 1e-2, 1e-4, 1e-3, 1.0)
    parts = [silence(500)]
    for burst, level in zip(BURSTS, levels, strict=False):
        parts += [sent_by(burst, generator, level), silence(9500)]
    found = find(noisy(parts, 90.0, generator))
    assert headers(found) == [burst.header for burst in BURSTS[: len(levels)]]


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_cut_by_the_start_of_the_stream(snr_db: float) -> None:
    """Found where its start is, or not at all; and the next burst whatever is left of the first."""
    generator = np.random.default_rng(5)
    first, second = sent_by(BURSTS[0], generator), sent_by(BURSTS[1], generator)
    samples = noisy([first, second, silence(600)], snr_db, generator)
    begin = FIRST_SYMBOL / 2
    for cut in range(0, first.size, 37):
        found = find(samples[cut:])
        assert found[-1].header == BURSTS[1].header
        for one in found[:-1]:
            # A few words may be missing, and the place is right all the same.
            assert abs(one.start + cut - begin - 1) < 2
            assert one.header in (None, BURSTS[0].header)
        if cut < begin:
            assert headers(found) == [BURSTS[0].header, BURSTS[1].header]
        if cut > begin + 2 * wf.PREAMBLE_SYMBOLS:
            assert len(found) == 1


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_cut_by_the_end_of_the_stream(snr_db: float) -> None:
    generator = np.random.default_rng(6)
    first, second = sent_by(BURSTS[0], generator), sent_by(BURSTS[1], generator)
    samples = noisy([silence(900), first, second], snr_db, generator)
    begin = 900 + first.size + FIRST_SYMBOL / 2
    for end in range(900 + first.size, samples.size, 41):
        found = find(samples[:end])
        assert found[0].header == BURSTS[0].header
        for one in found[1:]:
            assert abs(one.start - begin - 1) < 2
            assert one.header in (None, BURSTS[1].header)
            assert one.incomplete == (one.end > end)
        if end < begin + 2 * wf.WORD_SYMBOLS * wf.WORD_REPEATS:
            assert len(found) == 1
        if end > begin + 2 * (wf.PREAMBLE_SYMBOLS + wf.HEADER_SYMBOLS + 40):
            assert headers(found) == [BURSTS[0].header, BURSTS[1].header]


def hostile(kind: str, count: int, generator: np.random.Generator) -> NDArray[np.complex128]:
    """Input of level 1 that keeps the search busy."""
    time = np.arange(count)
    if kind == "tones":
        turns = np.outer(generator.uniform(-0.35, 0.35, 8), time)
        return np.exp(2j * np.pi * turns).sum(axis=0) / np.sqrt(8)
    if kind == "tone at a line of the word":
        return np.exp(2j * np.pi * 3 / 16 * time)
    if kind == "sweep":
        return np.exp(1j * np.pi * 2.0**-9.5 * (time % 700 - 350) ** 2)
    if kind == "word":
        offset = generator.uniform(-0.025, 0.025)
        words = shape(np.resize(WORD, count // 2 + 1), 2)[:count]
        return words * np.exp(2j * np.pi * offset * time)
    if kind == "DC":
        return np.ones(count, np.complex128)
    pulses = np.repeat(generator.integers(0, 2, count // 256 + 1), 256)[:count]
    return noise(count, 2.0, generator) * pulses


@pytest.mark.parametrize(
    "kind", ["tones", "tone at a line of the word", "sweep", "word", "DC", "pulsed noise"]
)
def test_a_burst_right_behind_hostile_input(kind: str) -> None:
    """However many candidates came before: the burst behind them is found, at once and 20 dB below.

    A DC line that goes off leaves half of itself in the mean of the block: there the burst is as strong.
    """
    for number in range(6):
        generator = np.random.default_rng([7, number])
        for level in (1.0,) if kind == "DC" else (1.0, 0.1):
            before = hostile(kind, int(generator.integers(9000, 20_000)), generator)
            parts = [before, sent_by(BURSTS[number], generator, level), silence(300)]
            samples = noisy(parts, 4.0 - 20 * np.log10(level), generator)
            found = find(samples)
            assert headers(found)[-1:] == [BURSTS[number].header], (number, level)
            assert found[-1].start == pytest.approx(before.size + FIRST_SYMBOL / 2 + 1, abs=2)


@pytest.mark.parametrize("kind", ["tones", "tone at a line of the word", "sweep", "DC"])
def test_a_burst_under_a_weaker_disturbance(kind: str) -> None:
    """Disturbance 6 dB below the burst and without end."""
    for number in range(6):
        generator = np.random.default_rng([8, number])
        parts = [silence(3000), sent_by(BURSTS[number], generator), silence(3000)]
        samples = noisy(parts, 12.0, generator)
        found = find(samples + 0.5 * hostile(kind, samples.size, generator))
        assert headers(found) == [BURSTS[number].header], number


def test_its_own_words_before_the_preamble() -> None:
    """A transmitter that sends a few more words than it should: the start is where the PN part says."""
    for extra in (1, 2, 3, 4):
        for number in range(5):
            generator = np.random.default_rng([9, extra, number])
            burst = BURSTS[number]
            ramp = burst.symbols[: wf.RAMP_SYMBOLS]
            symbols = np.concatenate(
                [ramp, np.tile(WORD, extra), burst.symbols[wf.RAMP_SYMBOLS :]]
            ).astype(np.complex64)
            longer = replace(burst, symbols=symbols)
            parts = [silence(600), sent_by(longer, generator), silence(300)]
            found = find(noisy(parts, 3.0, generator))
            assert headers(found) == [burst.header], (extra, number)
            start = 600 + FIRST_SYMBOL / 2 + 2 * wf.WORD_SYMBOLS * extra
            assert found[0].start == pytest.approx(start + 1, abs=2)


def test_twenty_bursts_and_nothing_else_on_the_air() -> None:
    """The stream of the other tests is what it should be: every burst once."""
    samples, begins = on_air(BURSTS, lead=500, gap=0)
    air = Air(snr_db=20.0, cfo=0.02)
    found = find(air.receive(samples, np.random.default_rng(10)))
    assert headers(found) == [burst.header for burst in BURSTS]
    starts = [air.arrival(begin + FIRST_SYMBOL) for begin in begins]
    assert [one.start for one in found] == pytest.approx(starts, abs=0.1)
