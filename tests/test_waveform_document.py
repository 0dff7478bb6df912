"""docs/waveform.md is complete and right: a modem written from it agrees with ours, bit by bit."""

from __future__ import annotations

import re
from pathlib import Path

import independent_modem as other
import numpy as np
import pytest

from blocks.modem import waveform as wf
from blocks.modem.burst import assemble, build_bursts
from blocks.modem.header import BurstHeader
from blocks.modem.simulated_air import noise
from blocks.modem.stream_receiver import StreamReceiver

DOCUMENT = Path(__file__).parent.parent / "docs" / "waveform.md"
MESSAGE = np.unpackbits(np.frombuffer(b"UOISC Air", np.uint8))


def fields(header: BurstHeader) -> list[int]:
    return [
        1,
        header.mcs,
        header.redundancy_version,
        header.stream,
        header.frame_id,
        header.burst_number,
        header.frame_bits,
        header.first_block,
        header.frame_blocks - 1,
        header.blocks - 1,
        header.codec_tag,
    ]


def some_header(mcs: int, frame_bits: int, version: int = 0) -> BurstHeader:
    blocks = wf.plan_blocks(frame_bits, mcs).blocks
    return BurstHeader(
        mcs=mcs,
        frame_id=0xDEADBEEF,
        burst_number=3,
        frame_bits=frame_bits,
        first_block=blocks - 1,
        frame_blocks=blocks,
        blocks=1,
        codec_tag=0x716A,
        redundancy_version=version,
        stream=17,
    )


# Both base graphs; every Kb of the second; more than once round the buffer (mcs 0, short); several blocks.
CASES = [(0, 40), (1, 300), (2, 150), (3, 560), (4, 700), (5, 9000), (6, 3900), (9, 1200), (8, 97)]


@pytest.mark.parametrize(("mcs", "frame_bits"), CASES)
@pytest.mark.parametrize("version", [0, 2])
def test_bursts_agree_symbol_by_symbol(mcs: int, frame_bits: int, version: int) -> None:
    header = some_header(mcs, frame_bits, version)
    generator = np.random.default_rng([mcs, frame_bits])
    payload = generator.integers(0, 2, (1, header.plan.payload_bits)).astype(np.uint8)
    theirs = other.burst(fields(header), payload.tolist())
    np.testing.assert_allclose(assemble(header, payload), theirs, atol=1e-6)


@pytest.mark.parametrize("mcs", range(10))
def test_block_sizes_agree(mcs: int) -> None:
    for bits in (1, 100, 3816, 3817, 8424, 8425, 37_000, 120_000):
        plan = wf.plan_blocks(bits, mcs)
        assert plan.blocks == other.blocks_of(bits, mcs)
        sizes = plan.payload_bits, plan.info_bits, plan.coded_bits
        assert sizes == other.block_sizes(bits, mcs, plan.blocks)


@pytest.mark.parametrize(("mcs", "snr_db"), [(1, 3.0), (4, 9.0), (7, 14.0)])
def test_the_other_receiver_reads_our_samples(mcs: int, snr_db: float) -> None:
    generator = np.random.default_rng(mcs)
    bits = generator.integers(0, 2, 1500).astype(np.uint8)
    (burst,) = build_bursts(bits, frame_id=7, codec_tag=0x1234, mcs=mcs)
    samples = np.concatenate([np.zeros(50), burst.samples(2), np.zeros(60)])
    samples = 0.2j * (samples + noise(samples.size, 2 * 10 ** (-snr_db / 10), generator))
    values, payloads = other.receive(samples, 2)
    assert values == fields(burst.header)
    np.testing.assert_array_equal(payloads, [bits])
    with pytest.raises(ValueError, match="header"):
        other.receive(noise(samples.size, 1.0, generator), 2)


def test_our_receiver_reads_the_others_samples() -> None:
    header = some_header(4, 700)
    payload = np.random.default_rng(5).integers(0, 2, header.plan.payload_bits)
    symbols = other.burst(fields(header), [payload.tolist()])
    upsampled = np.zeros(2 * symbols.size, complex)
    upsampled[::2] = symbols
    samples = np.convolve(upsampled, other.pulse(np.arange(-16, 17) / 2))
    receiver = StreamReceiver()
    (found,) = [*receiver.push(samples.astype(np.complex64)), *receiver.flush()]
    assert found.header == header
    assert found.burst is not None
    assert found.burst.blocks[0].ok
    np.testing.assert_array_equal(found.burst.blocks[0].bits, payload)


def test_the_worked_example() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    example = text[text.index("## Worked example") :]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", example, re.MULTILINE)
    table = {what: value.strip("` ") for what, value in rows}

    def digits(bits: list[int] | np.ndarray) -> str:
        return np.packbits(np.asarray(bits, np.uint8)).tobytes().hex()

    def turns(symbols: np.ndarray) -> str:
        return " ".join(str(round(turn) % 8) for turn in np.angle(symbols) * 4 / np.pi)

    (burst,) = build_bursts(MESSAGE, frame_id=1, codec_tag=0x716A, mcs=4)
    header = fields(burst.header)
    coded_header = other.ldpc_encode(other.header_bits(header), 512, 0, 1)
    block = MESSAGE.tolist() + other.crc24b(MESSAGE.tolist())
    _, k, e = other.block_sizes(72, 4, 1)
    coded = other.ldpc_encode(block, e, 0, 3)
    used = other.code(k, e, 0, 3)
    scrambled = np.array(coded) ^ other.gold(0x10000000, e)
    ours = {
        "first 32 Gold bits of seed 0x5A00001": digits(other.gold(0x5A00001, 32)),
        "first 8 symbols of PN": turns(wf.preamble()[128:136]),
        "first pilot group": turns(wf.pilots(1)[0]),
        "header with CRC": digits(burst.header.to_bits()),
        "header: Z": str(other.code(128, 512, 0, 1).size),
        "header, coded, first 64 bits": digits(coded_header[:64]),
        "header, scrambled, first 64 bits": digits(
            np.array(coded_header[:64]) ^ other.gold(0x5A00003, 64)
        ),
        "code block with CRC": digits(block),
        "code block: K, E, base graph, Z": f"{k}, {e}, {used.graph}, {used.size}",
        "code block, coded and interleaved": digits(coded),
        "code block, scrambled": digits(scrambled),
        "first 8 payload symbols": turns(other.map_8psk(scrambled.tolist())[:8]),
        "symbols of the burst, ramps included": str(burst.symbols.size),
    }
    assert {what: table.get(what) for what in ours} == ours
    np.testing.assert_allclose(burst.symbols, other.burst(header, [MESSAGE.tolist()]), atol=1e-6)
