"""One burst from samples to code blocks: measurements against what was put in, and what decoding yields."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blocks.modem import demodulator as dem
from blocks.modem import waveform as wf
from blocks.modem.acquisition import Acquisition
from blocks.modem.burst import Burst, encode_block
from blocks.modem.error_rates import Conditions, until_errors
from blocks.modem.fading import TwoTaps
from blocks.modem.header import BurstHeader
from blocks.modem.known_symbols import body_positions
from blocks.modem.ldpc_limits import normal_approximation_snr_db
from blocks.modem.psk import demap_8psk
from tests.simulated_air import (
    FIRST_SYMBOL,
    Air,
    bursts_of,
    noise,
    on_air,
    random_bits,
)


def receive(
    burst: Burst, air: Air, seed: int, cfo_error: float = 0.0, start_error: float = 0.0
) -> tuple[NDArray[np.complex64], Acquisition]:
    """Samples of one burst, and where an ideal acquisition (with these errors) says that it is."""
    samples, (begin,) = on_air([burst])
    received = air.receive(samples, np.random.default_rng(seed))
    start = air.arrival(begin + FIRST_SYMBOL)
    return received, Acquisition(start + start_error, air.cfo + cfo_error, 1.0)


def demodulate(
    burst: Burst, air: Air, seed: int, cfo_error: float = 0.0, start_error: float = 0.0
) -> dem.DemodulatedBurst:
    samples, acquisition = receive(burst, air, seed, cfo_error, start_error)
    header, _ = dem.demodulate_header(samples, acquisition)
    assert header == burst.header
    return dem.demodulate_burst(samples, acquisition, header, 30)


@pytest.mark.parametrize("snr_db", [-2.0, 0.0, 5.0, 10.0, 15.0, 20.0])
def test_snr_estimate(snr_db: float) -> None:
    """Under every impairment at once: no bias beyond 0.15 dB, and no more scatter than has to be.

    With n known symbols the noise power is known to 4.34 / sqrt(7n/8) dB (one degree of freedom in 8
    goes into the channel) and the level to 8.69 sqrt(N0 / 2n) dB.
    """
    errors = []
    for seed in range(30):
        (burst,) = bursts_of(random_bits(1000, seed), mcs=0)
        generator = np.random.default_rng(1000 + seed)
        air = Air(
            snr_db=snr_db,
            cfo=generator.uniform(-0.05, 0.05),
            delay=generator.uniform(0, 4),
            sro_ppm=generator.uniform(-40, 40),
            phase_noise=1e-5,
        )
        samples, acquisition = receive(burst, air, seed)
        measured = dem.demodulate_burst(samples, acquisition, burst.header, 0).measurement
        errors.append(measured.snr_db - snr_db)
    groups = -(-(wf.HEADER_SYMBOLS + burst.header.payload_symbols) // 128)
    known = wf.PREAMBLE_SYMBOLS + wf.HEADER_SYMBOLS + wf.PILOT_SYMBOLS * groups
    spread = np.hypot(
        4.34 / np.sqrt(7 * known / 8), 8.69 * np.sqrt(10 ** (-snr_db / 10) / 2 / known)
    )
    assert abs(np.mean(errors)) < 0.05 + 3 * spread / np.sqrt(30)
    assert np.std(errors) < 1.5 * spread
    assert np.abs(errors).max() < 4 * spread


def test_measurements() -> None:
    (burst,) = bursts_of(random_bits(16_000, 1), mcs=4)
    air = Air(snr_db=15.0, cfo=0.0301, sro_ppm=-27.0, delay=1.1, gain=0.02)
    measured = demodulate(burst, air, 1, cfo_error=2e-4, start_error=0.1).measurement
    assert measured.cfo == pytest.approx(0.0301, abs=2e-6)
    assert measured.sample_rate_offset_ppm == pytest.approx(-27, abs=3)
    assert measured.level == pytest.approx(0.02, rel=0.03)
    assert measured.snr_db == pytest.approx(15, abs=0.6)


def test_constellation_is_unit_circle_plus_noise() -> None:
    (burst,) = bursts_of(random_bits(8000, 2), mcs=4)
    air = Air(snr_db=20.0, cfo=-0.05, sro_ppm=40.0, phase_noise=1e-5, gain=7.0)
    points = demodulate(burst, air, 2).constellation
    assert points.shape == (burst.header.payload_symbols,)
    nearest = np.exp(0.25j * np.pi * np.round(np.angle(points) / (np.pi / 4)))
    error_db = 10 * np.log10(np.mean(np.abs(points - nearest) ** 2))
    # -20 dB of noise; interference, phase noise and the channel estimate add less than half a dB.
    assert -20.5 < error_db < -19.5


@pytest.mark.parametrize("mcs", range(10))
def test_every_code_rate_without_an_error_at_high_snr(mcs: int) -> None:
    bits = random_bits(9000, 3)
    got = np.zeros(0, np.uint8)
    for burst in bursts_of(bits, mcs):
        result = demodulate(burst, Air(snr_db=20.0, cfo=0.01, delay=0.5), 3)
        assert [block.number for block in result.blocks] == list(
            range(burst.header.first_block, burst.header.first_block + burst.header.blocks)
        )
        assert all(block.ok for block in result.blocks)
        got = np.concatenate([got, *(block.bits for block in result.blocks)])
    assert np.array_equal(got[: bits.size], bits)
    assert not got[bits.size :].any()  # the padding


def test_synchronisation_costs_little() -> None:
    """The noise that the decoder sees behind the full receiver against the noise that was put in."""
    (burst,) = bursts_of(random_bits(8000, 4), mcs=4)
    sent = burst.symbols[wf.RAMP_SYMBOLS :]
    for snr_db in (3.0, 10.0, 20.0):
        losses = []
        for seed in range(6):
            air = Air(snr_db=snr_db, cfo=0.05, sro_ppm=40.0, delay=0.3, phase_noise=1e-5)
            result = demodulate(burst, air, seed)
            positions = body_positions(wf.HEADER_SYMBOLS + burst.header.payload_symbols)
            expected = sent[positions[wf.HEADER_SYMBOLS :]]
            error = np.mean(np.abs(result.constellation - expected) ** 2)
            losses.append(10 * np.log10(error) + snr_db)
        # The mean over 6 bursts of 5300 symbols scatters by 4.34 / sqrt(31,800) = 0.024 dB. Phase noise
        # between the pilots adds 1e-5 * 136 / 6 rad^2: 0.1 dB at 20 dB and nothing below.
        limit = 0.3 if snr_db < 15 else 0.5
        assert -0.1 < np.mean(losses) < limit, (snr_db, losses)


def test_llrs_are_calibrated_at_the_decoder_input() -> None:
    """LLRs made with the measured noise variance: among bits with |LLR| = L, 1 in 1 + e^L is wrong."""
    (burst,) = bursts_of(random_bits(8000, 5), mcs=4)
    llrs, wrong = [], []
    for seed in range(4):
        result = demodulate(burst, Air(snr_db=4.0, cfo=0.02, delay=0.2), seed)
        noise_variance = np.full(
            result.constellation.size, 10 ** (-result.measurement.snr_db / 10), np.float32
        )
        got = demap_8psk(result.constellation, noise_variance)
        positions = body_positions(wf.HEADER_SYMBOLS + burst.header.payload_symbols)
        sent = burst.symbols[wf.RAMP_SYMBOLS :][positions[wf.HEADER_SYMBOLS :]]
        bits = demap_8psk(sent, 0.1) < 0
        llrs.append(np.abs(got))
        wrong.append((got < 0) != bits)
    reliability, error = np.concatenate(llrs), np.concatenate(wrong)
    for low, high in ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 6.0)):
        inside = (reliability >= low) & (reliability < high)
        expected = float((1 / (1 + np.exp(reliability[inside]))).mean())
        spread = np.sqrt(expected * (1 - expected) / inside.sum())
        assert abs(error[inside].mean() - expected) < 4 * spread + 0.03 * expected


def test_a_block_that_fails_still_says_what_it_knows() -> None:
    """2 dB under the limit of the rate: CRC wrong, but the LLRs' signs are right more often than not."""
    (burst,) = bursts_of(random_bits(8000, 6), mcs=4)
    (block,) = demodulate(burst, Air(snr_db=1.5), 6).blocks
    sent = random_bits(8000, 6)
    assert not block.ok
    assert block.llrs.shape == block.bits.shape == (8000,)
    assert np.all(np.isfinite(block.llrs))
    assert np.array_equal(block.bits, block.llrs < 0)
    assert np.mean(block.bits == sent) > 0.7
    strong = np.abs(block.llrs) > np.median(np.abs(block.llrs))
    assert np.mean((block.bits == sent)[strong]) > np.mean((block.bits == sent)[~strong])


def test_redundancy_versions_and_block_numbers_are_honoured() -> None:
    """A block sent again with another redundancy version decodes; under a wrong number it does not."""
    base = BurstHeader(
        mcs=4, frame_id=1, burst_number=0, frame_bits=20_000, first_block=1, frame_blocks=3,
        blocks=2, codec_tag=1, redundancy_version=2,
    )  # fmt: skip
    payloads = random_bits(2 * base.plan.payload_bits, 7).reshape(2, -1)
    symbols = np.concatenate([encode_block(base, 1 + i, row) for i, row in enumerate(payloads)])
    received = (symbols + noise(symbols.size, 0.03, np.random.default_rng(7))).astype(np.complex64)
    variance = np.full(symbols.size, 0.03, np.float32)
    blocks = dem.decode_blocks(base, received, variance, 30)
    assert [block.number for block in blocks] == [1, 2]
    for block, payload in zip(blocks, payloads, strict=True):
        assert block.ok
        assert np.array_equal(block.bits, payload)
    wrong_place = BurstHeader(**{**vars(base), "first_block": 0})
    assert not any(block.ok for block in dem.decode_blocks(wrong_place, received, variance, 5))


def test_header_alone_measures_too() -> None:
    (burst,) = bursts_of(random_bits(500, 8), mcs=1)
    samples, acquisition = receive(burst, Air(snr_db=3.0, cfo=0.02, gain=0.1), 8, cfo_error=1e-4)
    header, measured = dem.demodulate_header(samples, acquisition)
    assert header == burst.header
    assert measured.snr_db == pytest.approx(3, abs=1.2)
    assert measured.cfo == pytest.approx(0.02, abs=1e-4)
    assert measured.level == pytest.approx(0.1, rel=0.1)


def test_noise_has_no_header() -> None:
    samples = noise(6000, 2.0, np.random.default_rng(9)).astype(np.complex64)
    for start in range(100, 3100, 300):
        header, _ = dem.demodulate_header(samples, Acquisition(float(start), 0.01, 0.2))
        assert header is None


def test_exact_silence_has_no_header() -> None:
    header, measured = dem.demodulate_header(
        np.zeros(6000, np.complex64), Acquisition(500.0, 0.0, 0.5)
    )
    assert header is None
    assert np.isfinite(measured.level)
    assert np.isfinite(measured.snr_db)


def output_snr_db(burst: Burst, air: Air, seed: int) -> float:
    """Energy of a payload symbol over what the receiver leaves around it."""
    points = demodulate(burst, air, seed).constellation
    positions = body_positions(wf.HEADER_SYMBOLS + burst.header.payload_symbols)
    sent = burst.symbols[wf.RAMP_SYMBOLS + positions[wf.HEADER_SYMBOLS :]]
    return float(-10 * np.log10(np.mean(np.abs(points - sent) ** 2)))


def test_no_dc_is_left() -> None:
    """Neither the burst's mean, 1/n of its energy, nor a DC line 10 dB above it.

    Without noise; what else the receiver leaves, by its timing, is the same with and without DC.
    """
    (burst,) = bursts_of(random_bits(3000, 10), mcs=4)
    positions = body_positions(wf.HEADER_SYMBOLS + burst.header.payload_symbols)
    positions = positions[wf.HEADER_SYMBOLS :]
    sent = burst.symbols[wf.RAMP_SYMBOLS + positions]
    for cfo in (0.0, 2e-4, 0.013, -0.05):
        powers = []
        for dc in (0.0, 0.3j, -3.16):
            error = demodulate(burst, Air(cfo=cfo, delay=0.4, dc=dc), 10).constellation - sent
            tone = np.exp(-2j * np.pi * cfo * positions)
            left = abs(np.vdot(tone, error) / error.size) ** 2
            # The mean takes 1 / 2,960 with random phase; of that less than a tenth is left.
            assert left < 0.1 / burst.symbols.size, (cfo, dc)
            powers.append(np.mean(np.abs(error) ** 2))
        assert np.ptp(10 * np.log10(powers)) < 0.1


ECHOES: dict[str, tuple[tuple[float, complex], ...]] = {
    "one symbol": ((1.0, 0.316),),
    "one symbol, turned": ((1.0, 0.316j),),
    "early": ((-1.0, 0.316 * np.exp(1j)),),
    "half a symbol": ((0.5, 0.316j),),
    "1.5 symbols": ((1.5, 0.316 * np.exp(2j)),),
    "2.3 symbols": ((2.3, 0.316 * np.exp(2j)),),
    "six symbols": ((6.0, -0.316),),
    "two echoes": ((1.0, 0.25j), (3.6, -0.2)),
}


@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("snr_db", [5.0, 12.0, 20.0])
def test_echo_of_minus_10_db(name: str, snr_db: float) -> None:
    """-10 dB of disturbance comes down to the 0.5 dB that an endless linear equaliser loses too.

    That, at high Es/N0, is -10 log10(1 - 0.1) against the first path, which is all the energy that
    ``snr_db`` counts; sampling once per symbol and 1 % of taps for nothing may cost 0.3 dB more.
    """
    (burst,) = bursts_of(random_bits(8000, 11), mcs=4)
    losses = []
    for seed in range(4):
        air = Air(
            snr_db=snr_db, cfo=0.03, sro_ppm=20.0, delay=0.7 * seed, phase_noise=1e-5,
            echoes=ECHOES[name],
        )  # fmt: skip
        losses.append(snr_db - output_snr_db(burst, air, seed))
    # Phase noise between the pilots costs 0.25 dB at 20 dB without any echo.
    assert np.mean(losses) < 0.8 + (0.25 if snr_db > 15 else 0.0)


def test_echo_of_minus_3_db_decodes() -> None:
    (burst,) = bursts_of(random_bits(8000, 12), mcs=4)
    for seed in range(3):
        air = Air(snr_db=9.0, cfo=-0.02, echoes=((1.0, 0.707 * np.exp(2j * seed)),))
        assert all(block.ok for block in demodulate(burst, air, seed).blocks)


@pytest.mark.slow
@pytest.mark.parametrize("mcs", [0, 4, 9])
def test_echo_of_minus_10_db_costs_less_than_1_db(mcs: int) -> None:
    """Of all received energy, echo included. Without an echo PER 1e-2 is reached 0.55 dB above the normal
    approximation (``uoisc benchmark sensitivity``); 1 dB further on an echo must leave less.
    """
    plan, _ = Conditions(mcs, 0.0).frame
    snr_db = normal_approximation_snr_db(plan.info_bits, plan.coded_bits) + 0.55 + 1.0
    *_, point = until_errors(Conditions(mcs, snr_db, channel=TwoTaps(-10.0, 1.0)), 60, 4000, 16)
    assert point.tally.blocks >= 4000
    assert point.per < 1e-2
    assert point.tally.bursts_missed == 0


def test_header_behind_a_strong_echo() -> None:
    """An echo of -1 dB, below the Es/N0 that any code rate needs: the header must not be what fails.

    Without the equaliser it fails for one in five phases of the echo.
    """
    (burst,) = bursts_of(random_bits(200, 16), mcs=0)
    for seed in range(60):
        echo = 0.891 * np.exp(2j * np.pi * seed / 60)
        air = Air(snr_db=-4.0, cfo=0.03, delay=0.05 * seed, phase_noise=1e-5, echoes=((1.0, echo),))
        samples, acquisition = receive(burst, air, seed)
        header, _ = dem.demodulate_header(samples, acquisition)
        assert header == burst.header, seed


def test_no_equaliser_without_an_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under everything else that the receiver promises to bear, at any Es/N0, it stays out of the way."""
    filters = []
    original = dem._echo_filter

    def spy(*arguments: Any) -> Any:
        filters.append(original(*arguments))
        return filters[-1]

    monkeypatch.setattr(dem, "_echo_filter", spy)
    (burst,) = bursts_of(random_bits(1000, 13), mcs=4)
    for seed in range(120):
        generator = np.random.default_rng(seed)
        air = Air(
            snr_db=[-2.0, 5.0, 12.0, 20.0, 30.0][seed % 5],
            cfo=generator.uniform(-0.05, 0.05),
            sro_ppm=generator.uniform(-40, 40),
            delay=generator.uniform(0, 4),
            phase_noise=1e-5,
        )
        samples, acquisition = receive(burst, air, seed)
        dem.demodulate_header(samples, acquisition)
        dem.demodulate_burst(samples, acquisition, burst.header, 0)
    assert filters == [None] * 240


def test_measured_noise_holds_behind_the_equaliser() -> None:
    """LLRs are made with it: within 0.3 dB of what is really around the symbols."""
    (burst,) = bursts_of(random_bits(8000, 14), mcs=4)
    positions = body_positions(wf.HEADER_SYMBOLS + burst.header.payload_symbols)
    sent = burst.symbols[wf.RAMP_SYMBOLS + positions[wf.HEADER_SYMBOLS :]]
    for snr_db in (2.0, 8.0, 14.0):
        errors = []
        for seed in range(6):
            air = Air(snr_db=snr_db, cfo=0.02, echoes=((1.0, 0.4 * np.exp(1j * seed)),))
            result = demodulate(burst, air, seed)
            left = -10 * np.log10(np.mean(np.abs(result.constellation - sent) ** 2))
            errors.append(result.measurement.snr_db - left)
        assert abs(np.mean(errors)) < 0.3


@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-15, 1.0, 1e15, 1e30, 3e38])
@pytest.mark.parametrize("kind", ["burst", "noise", "tone", "glitch", "known only"])
def test_no_input_stops_the_demodulator(kind: str, level: float) -> None:
    """Whatever follows a header: no exception, and nothing that is not a number comes out."""
    (burst,) = bursts_of(random_bits(2000, 15), mcs=4)
    air = Air(snr_db=15.0, cfo=0.01)
    samples, acquisition = receive(burst, air, 15)
    generator = np.random.default_rng(15)
    if kind == "noise":
        samples = noise(samples.size, 1.0, generator).astype(np.complex64)
    elif kind == "tone":
        samples = samples + 3 * np.exp(0.3j * np.arange(samples.size)).astype(np.complex64)
    elif kind == "known only":
        end = int(acquisition.start) + 2 * 800
        samples[end:] = 0
    if kind == "glitch":
        samples[3000:3007] = level * (1 - 1j)
    else:
        samples = (samples / np.abs(samples).max() * np.float32(level)).astype(np.complex64)
    with np.errstate(all="ignore"):
        dem.demodulate_header(samples, acquisition)
        result = dem.demodulate_burst(samples, acquisition, burst.header, 5)
    measured = result.measurement
    figures = (measured.snr_db, measured.cfo, measured.level, measured.sample_rate_offset_ppm)
    assert np.all(np.isfinite(figures))
    assert np.all(np.isfinite(result.constellation))
    assert all(np.all(np.isfinite(block.llrs)) for block in result.blocks)
