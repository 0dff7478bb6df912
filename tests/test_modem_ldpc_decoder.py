"""The fixed-point decoder: right on clean input, as good as floating point on noise, safe on nonsense."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from blocks.modem.ldpc_code import LdpcCode, LdpcError, get_code
from blocks.modem.ldpc_decoder import BatchDecodeResult, decode, decode_blocks
from blocks.modem.ldpc_encoder import encode
from blocks.modem.ldpc_reference import decode_blocks_float
from blocks.modem.psk import demap_8psk, modulate_8psk

Bits = NDArray[np.uint8]
Llrs = NDArray[np.float32]


def random_info(code: LdpcCode, blocks: int, seed: int) -> Bits:
    shape = (blocks, code.info_bits)
    return np.random.default_rng(seed).integers(0, 2, shape).astype(np.uint8)


def clean(bits: Bits, strength: float = 10.0) -> Llrs:
    return (strength * (1.0 - 2.0 * bits)).astype(np.float32)


def received(coded: Bits, snr_db: float, seed: int) -> Llrs:
    """LLRs after Gray 8-PSK over white noise at Es/N0 = ``snr_db``."""
    rng = np.random.default_rng(seed)
    noise_variance = 10 ** (-snr_db / 10)
    symbols = modulate_8psk(coded.ravel())
    noise = rng.standard_normal((symbols.size, 2)) @ np.array([1, 1j]) * np.sqrt(noise_variance / 2)
    return demap_8psk((symbols + noise).astype(np.complex64), noise_variance).reshape(coded.shape)


def block_errors(result: BatchDecodeResult, info: Bits) -> int:
    return int((result.bits != info).any(axis=1).sum())


@pytest.mark.parametrize(
    ("info_bits", "coded_bits"),
    [(1, 24), (24, 30), (120, 480), (300, 450), (640, 2559), (1056, 2112), (2000, 2250),
     (3840, 15360), (8448, 9504)],
)  # fmt: skip
def test_clean_codeword(info_bits: int, coded_bits: int) -> None:
    code = get_code(info_bits, coded_bits)
    info = random_info(code, 2, info_bits)
    result = decode_blocks(code, clean(encode(code, info, 0, 3)), bits_per_symbol=3)
    assert np.array_equal(result.bits, info)
    assert result.parity_ok.all()
    assert np.array_equal(result.posterior_llrs < 0, info)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_every_redundancy_version(version: int) -> None:
    code = get_code(1000, 4800)  # far enough round the buffer to reach the information bits
    info = random_info(code, 3, 1)
    llrs = received(encode(code, info, version, 3), 6.0, 2)
    result = decode_blocks(code, llrs, 25, version, 3)
    assert np.array_equal(result.bits, info)
    other = decode_blocks(code, llrs, 25, (version + 1) % 4, 3)
    assert not other.parity_ok.any()


def test_repeated_bits_are_combined() -> None:
    """Twice round the buffer doubles the energy: 3 dB less is needed."""
    once = get_code(480, 2400, 2)
    twice = get_code(480, 4800, 2)
    info = random_info(once, 40, 3)
    snr_db = -3.2
    errors_once = block_errors(decode_blocks(once, received(encode(once, info), snr_db, 4)), info)
    errors_twice = block_errors(
        decode_blocks(twice, received(encode(twice, info), snr_db, 5)), info
    )
    assert errors_once > 20
    assert errors_twice == 0


@pytest.mark.parametrize(
    ("info_bits", "coded_bits", "snr_db"),
    [(1056, 2112, 4.0), (1200, 1350, 10.7), (600, 3000, -1.3), (120, 480, 0.2)],
)
def test_no_worse_than_floating_point(info_bits: int, coded_bits: int, snr_db: float) -> None:
    """In the middle of the waterfall, where a loss of 0.05 dB would double the errors."""
    code = get_code(info_bits, coded_bits)
    info = random_info(code, 150, 6)
    llrs = received(encode(code, info, 0, 3), snr_db, 7)
    fixed = block_errors(decode_blocks(code, llrs, 20, bits_per_symbol=3), info)
    floating = block_errors(decode_blocks_float(code, llrs, 20, bits_per_symbol=3), info)
    assert 10 < floating < 120, "the operating point should leave errors to compare"
    assert fixed <= floating + 2 * np.sqrt(floating)


def test_close_to_belief_propagation() -> None:
    code = get_code(300, 900)
    info = random_info(code, 400, 19)
    llrs = received(encode(code, info, 0, 3), 1.5, 20)
    fixed = block_errors(decode_blocks(code, llrs, 20, bits_per_symbol=3), info)
    exact = block_errors(
        decode_blocks_float(code, llrs, 20, bits_per_symbol=3, algorithm="belief_propagation"),
        info,
    )
    assert 20 < exact < 200, "the operating point should leave errors to compare"
    assert fixed <= 1.3 * exact + 2 * np.sqrt(exact)


# Es/N0 in dB at which the error rate was measured as about 1e-2 over some 60 block errors
# (uoisc benchmark ldpc); a loss of 0.1 dB multiplies it by more than three.
REFERENCE_POINTS = [
    (3840, 19200, -1.69, 200), (8448, 25344, 1.07, 150), (8448, 16896, 3.90, 200),
    (8448, 9504, 10.57, 300), (1056, 2112, 4.30, 600),
]  # fmt: skip


@pytest.mark.parametrize(("info_bits", "coded_bits", "snr_db", "blocks"), REFERENCE_POINTS)
def test_reference_points(info_bits: int, coded_bits: int, snr_db: float, blocks: int) -> None:
    code = get_code(info_bits, coded_bits)
    info = random_info(code, blocks, 17)
    llrs = received(encode(code, info, 0, 3), snr_db, 18)
    errors = block_errors(decode_blocks(code, llrs, bits_per_symbol=3), info)
    assert errors <= 0.015 * blocks + 3 * np.sqrt(0.015 * blocks)
    worse = received(encode(code, info, 0, 3), snr_db - 0.5, 18)
    assert block_errors(decode_blocks(code, worse, bits_per_symbol=3), info) > 0.1 * blocks


@pytest.mark.parametrize(
    ("info_bits", "coded_bits", "snr_db"), [(700, 1401, 4.0), (3840, 19200, -1.5), (60, 240, 2.0)]
)
def test_batch_equals_single_blocks(info_bits: int, coded_bits: int, snr_db: float) -> None:
    """Nothing of a block is left behind for the next one, whether it decoded or not."""
    code = get_code(info_bits, coded_bits)
    llrs = received(encode(code, random_info(code, 5, 8), 0, 3), snr_db, 9)
    llrs[2] = np.random.default_rng(10).standard_normal(coded_bits)
    together = decode_blocks(code, llrs, 15, bits_per_symbol=3)
    for i in range(5):
        alone = decode(code, llrs[i], 15, bits_per_symbol=3)
        assert np.array_equal(alone.bits, together.bits[i])
        assert np.array_equal(alone.posterior_llrs, together.posterior_llrs[i])
        assert (alone.parity_ok, alone.iterations) == (
            together.parity_ok[i],
            together.iterations[i],
        )


def test_stops_when_the_checks_hold() -> None:
    code = get_code(1056, 2112)
    info = random_info(code, 20, 10)
    coded = encode(code, info, 0, 3)
    easy = decode_blocks(code, received(coded, 12.0, 11), 25, bits_per_symbol=3)
    hard = decode_blocks(code, received(coded, 5.5, 11), 25, bits_per_symbol=3)
    assert easy.parity_ok.all()
    assert easy.iterations.max() < hard.iterations.mean() < 25


def test_pure_noise_fails_honestly() -> None:
    code = get_code(1056, 2112)
    noise = np.random.default_rng(12).standard_normal((10, 2112)).astype(np.float32)
    result = decode_blocks(code, noise, 8)
    assert not result.parity_ok.any()
    assert (result.iterations == 8).all()


def test_nothing_received_is_no_codeword() -> None:
    """All-zero LLRs say nothing about any bit; they must not pass for the all-zero codeword."""
    code = get_code(1056, 2112)
    result = decode(code, np.zeros(2112, np.float32), 5)
    assert not result.parity_ok
    assert not result.posterior_llrs.any()


def test_erased_bits_are_recovered() -> None:
    code = get_code(1056, 2112)
    info = random_info(code, 3, 13)
    llrs = clean(encode(code, info))
    llrs[:, np.random.default_rng(14).random(2112) < 0.35] = 0
    assert np.array_equal(decode_blocks(code, llrs).bits, info)


@pytest.mark.parametrize("strength", [1.5, 1e4, 3e38, np.inf])
def test_any_scale_of_llrs(strength: float) -> None:
    code = get_code(1056, 2112)
    info = random_info(code, 2, 15)
    result = decode_blocks(code, clean(encode(code, info), strength))
    assert np.array_equal(result.bits, info)
    assert np.isfinite(result.posterior_llrs).all()


def test_no_iterations_give_hard_decisions_of_the_channel() -> None:
    code = get_code(600, 1200)
    info = random_info(code, 1, 16)
    result = decode(code, clean(encode(code, info))[0], 0)
    sent = slice(2 * code.lifting_size, None)
    assert np.array_equal(result.bits[sent], info[0, sent])
    assert not result.parity_ok
    assert result.iterations == 0


def test_bad_input() -> None:
    code = get_code(100, 300)
    with pytest.raises(LdpcError, match="not a number"):
        decode(code, np.full(300, np.nan, np.float32))
    with pytest.raises(LdpcError, match=r"\[300\]"):
        decode(code, np.zeros((1, 300), np.float32))
    with pytest.raises(LdpcError, match="300"):
        decode_blocks(code, np.zeros((2, 299), np.float32))
    with pytest.raises(LdpcError, match="float32"):
        decode_blocks(code, np.zeros((2, 300)))  # type: ignore[arg-type]
    with pytest.raises(LdpcError, match="negative"):
        decode(code, np.zeros(300, np.float32), -1)
