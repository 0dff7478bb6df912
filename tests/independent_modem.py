"""The air interface once more, written from docs/waveform.md and nothing else.

Slow, bit by bit, in plain NumPy, and without a line from ``blocks.modem``: what it shares with the
project's modem is the page, so a page that is wrong or leaves something out shows. Only the shift tables
are read from the project (the page says where they stand).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TABLES = Path(__file__).parent.parent / "blocks" / "modem" / "tables"
RATES = [
    Fraction(*pair)
    for pair in [(1, 5), (1, 4), (1, 3), (2, 5), (1, 2), (3, 5), (2, 3), (3, 4), (5, 6), (8, 9)]
]
EIGHTH = {0b000: 0, 0b001: 1, 0b011: 2, 0b010: 3, 0b110: 4, 0b111: 5, 0b101: 6, 0b100: 7}
FIELDS = [3, 4, 2, 5, 32, 8, 20, 9, 9, 4, 16]
Complex = NDArray[np.complex128]


# --- sequences -----------------------------------------------------------------------------------
def gold(seed: int, length: int) -> list[int]:
    first = [1] + [0] * 30
    second = [(seed >> i) & 1 for i in range(31)]
    for n in range(1600 + length):
        first.append(first[n + 3] ^ first[n])
        second.append(second[n + 3] ^ second[n + 2] ^ second[n + 1] ^ second[n])
    return [first[n + 1600] ^ second[n + 1600] for n in range(length)]


def quaternary(seed: int, length: int) -> Complex:
    bits = gold(seed, 2 * length)
    pairs = zip(bits[::2], bits[1::2], strict=True)
    return np.exp(0.25j * np.pi * np.array([2 * (2 * a + (a ^ b)) + 1 for a, b in pairs]))


def crc(bits: list[int], powers: list[int], width: int) -> list[int]:
    """Long division by D^width + the given powers."""
    rest = [*bits, *[0] * width]
    for n in range(len(bits)):
        if rest[n]:
            rest[n] = 0
            for power in powers:
                rest[n + width - power] ^= 1
    return rest[-width:]


def crc16(bits: list[int]) -> list[int]:
    return crc(bits, [12, 5, 0], 16)


def crc24b(bits: list[int]) -> list[int]:
    return crc(bits, [23, 6, 5, 1, 0], 24)


# --- LDPC ----------------------------------------------------------------------------------------
@dataclass
class Code:
    """Checks as lists of codeword bits, and the codeword bit behind every transmitted bit."""

    k: int
    graph: int
    size: int
    information: int  # codeword bits of the information columns
    checks: list[list[int]]
    sent: list[int]


def code(k: int, e: int, version: int, q: int) -> Code:
    graph = 2 if k <= 292 or (k <= 3824 and k / e <= 0.67) or k / e <= 0.25 else 1
    columns, info_columns = (68, 22) if graph == 1 else (52, 10)
    if graph == 1:
        kb = 22
    else:
        kb = 10 if k > 640 else 9 if k > 560 else 8 if k > 192 else 6
    odd = [2, 3, 5, 7, 9, 11, 13, 15]
    sizes = [(a << j, n) for n, a in enumerate(odd) for j in range(9) if a << j <= 384]
    size, shift_set = min((z, n) for z, n in sizes if kb * z >= k)
    rows: dict[int, list[list[int]]] = {}
    with (TABLES / f"nr_base_graph_{graph}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            checks = rows.setdefault(int(row["row"]), [[] for _ in range(size)])
            for i, check in enumerate(checks):
                place = (i + int(row[f"shift_set_{shift_set}"])) % size
                check.append(int(row["column"]) * size + place)
    start = {1: [0, 17, 33, 56], 2: [0, 13, 25, 43]}[graph][version] * size
    buffer = list(range(2 * size, columns * size))
    buffer = [w for w in buffer[start:] + buffer[:start] if not k <= w < info_columns * size]
    taken = [buffer[n % len(buffer)] for n in range(e)]
    sent = [taken[row * (e // q) + n] for n in range(e // q) for row in range(q)]
    return Code(
        k, graph, size, info_columns * size, [check for row in rows.values() for check in row], sent
    )


def solve(checks: list[list[int]], known: dict[int, int]) -> dict[int, int]:
    """Codeword from its information bits: Gauss-Jordan elimination, bit sets as Python integers."""
    unknown = sorted({bit for check in checks for bit in check} - known.keys())
    place = {bit: n for n, bit in enumerate(unknown)}
    constant = 1 << len(unknown)
    pivots: dict[int, int] = {}
    for check in checks:
        row = 0
        for bit in check:
            row ^= (constant if known[bit] else 0) if bit in known else 1 << place[bit]
        # The parity part is nearly triangular: eliminating from the highest column fills in little.
        while (lead := (row & (constant - 1)).bit_length() - 1) >= 0 and lead in pivots:
            row ^= pivots[lead]
        assert lead >= 0, "the parity columns are invertible"
        pivots[lead] = row
    values: dict[int, int] = {}
    solved = 0
    for lead in sorted(pivots):
        row = pivots[lead]
        lower = row & ((1 << lead) - 1)
        values[unknown[lead]] = ((row >> len(unknown)) ^ (lower & solved).bit_count()) & 1
        solved |= values[unknown[lead]] << lead
    return known | values


def ldpc_encode(bits: list[int], e: int, version: int, q: int) -> list[int]:
    used = code(len(bits), e, version, q)
    known = dict(enumerate(bits)) | dict.fromkeys(range(len(bits), used.information), 0)
    word = solve(used.checks, known)
    return [word[w] for w in used.sent]


def ldpc_decode(llrs: list[float], k: int, version: int, q: int, rounds: int = 30) -> list[int]:
    """Textbook sum-product with flooding; positive LLRs mean 0."""
    used = code(k, len(llrs), version, q)
    length = max(max(check) for check in used.checks) + 1
    channel = np.zeros(length)
    channel[k : used.information] = 100.0
    for w, value in zip(used.sent, llrs, strict=True):
        channel[w] += value
    edges = [(c, w) for c, check in enumerate(used.checks) for w in check]
    check_of, bit_of = np.array(edges).T
    to_check = channel[bit_of]
    for _ in range(rounds):
        tanh = np.tanh(np.clip(to_check, -30, 30) / 2)
        size = np.log(np.maximum(np.abs(tanh), 1e-12))
        negative = (tanh < 0).astype(int)
        sizes = np.bincount(check_of, size)[check_of] - size
        signs = 1 - 2 * ((np.bincount(check_of, negative)[check_of] - negative) % 2)
        to_bit = 2 * np.arctanh(np.minimum(np.exp(sizes), 1 - 1e-12)) * signs
        total = channel + np.bincount(bit_of, to_bit, length)
        to_check = total[bit_of] - to_bit
    return [int(value < 0) for value in total[:k]]


# --- burst ---------------------------------------------------------------------------------------
def header_bits(values: list[int]) -> list[int]:
    """The eleven fields of the table, in its order."""
    bits: list[int] = []
    for value, width in zip(values, FIELDS, strict=True):
        bits += [(value >> i) & 1 for i in reversed(range(width))]
    return bits + crc16(bits)


def block_sizes(frame_bits: int, mcs: int, count: int) -> tuple[int, int, int]:
    """P, K, E."""
    p = -(-frame_bits // count)
    rate = RATES[mcs]
    return p, p + 24, 3 * -(-(p + 24) * rate.denominator // (3 * rate.numerator))


def blocks_of(frame_bits: int, mcs: int) -> int:
    largest = 3840 if RATES[mcs] <= Fraction(1, 4) else 8448
    return next(c for c in range(1, 513) if block_sizes(frame_bits, mcs, c)[1] <= largest)


def map_8psk(bits: list[int]) -> Complex:
    labels = zip(bits[::3], bits[1::3], bits[2::3], strict=True)
    return np.exp(0.25j * np.pi * np.array([EIGHTH[4 * a + 2 * b + c] for a, b, c in labels]))


def word() -> Complex:
    return 1j ** np.array([0, 1, 3, 2, 3, 0, 2, 1])


def preamble() -> Complex:
    return np.concatenate([np.tile(word(), 16), quaternary(0x5A00001, 128)])


def with_pilots(body: Complex) -> Complex:
    groups = -(-body.size // 128)
    pilots = quaternary(0x5A00002, 8 * groups)
    parts = [(body[128 * g :][:128], pilots[8 * g :][:8]) for g in range(groups)]
    return np.concatenate([piece for pair in parts for piece in pair])


def burst(values: list[int], payloads: list[list[int]]) -> Complex:
    """All symbols of a burst: header fields and one list of P bits per code block."""
    _, mcs, version, _, _, _, frame_bits, first, more_blocks, _, _ = values
    coded = ldpc_encode(header_bits(values), 512, 0, 1)
    body = [1.0 - 2.0 * (np.array(coded) ^ gold(0x5A00003, 512))]
    for number, payload in enumerate(payloads, start=first):
        _, _, e = block_sizes(frame_bits, mcs, more_blocks + 1)
        bits = ldpc_encode(payload + crc24b(payload), e, version, 3)
        noise = gold(0x10000000 + (version << 16) + number, e)
        body.append(map_8psk([a ^ b for a, b in zip(bits, noise, strict=True)]))
    inside = with_pilots(np.concatenate(body))
    rise = np.sin(np.pi * (np.arange(8) + 0.5) / 16) ** 2
    return np.concatenate([word() * rise, preamble(), inside, inside[-8:] * rise[::-1]])


# --- receiver ------------------------------------------------------------------------------------
def pulse(t: NDArray[np.float64]) -> NDArray[np.float64]:
    a = 0.25
    pole = np.abs(np.abs(4 * a * t) - 1) < 1e-9
    safe = np.where((t == 0) | pole, 0.5, t)
    plain = (np.sin(np.pi * safe * (1 - a)) + 4 * a * safe * np.cos(np.pi * safe * (1 + a))) / (
        np.pi * safe * (1 - (4 * a * safe) ** 2)
    )
    at_pole = (
        a
        / np.sqrt(2)
        * ((1 + 2 / np.pi) * np.sin(np.pi / (4 * a)) + (1 - 2 / np.pi) * np.cos(np.pi / (4 * a)))
    )
    return np.where(t == 0, 1 - a + 4 * a / np.pi, np.where(pole, at_pole, plain))


def receive(samples: Complex, per_symbol: int) -> tuple[list[int], list[list[int]]]:
    """Header fields and payloads (P bits each) of the one burst in ``samples``.

    No carrier offset and a timing that falls on a sample: what a receiver does about those is its own
    affair. Raises ValueError where a CRC fails.
    """
    taps = pulse(np.arange(-8 * per_symbol, 8 * per_symbol + 1) / per_symbol) / per_symbol
    filtered = np.convolve(samples, taps, mode="same")
    known = preamble()
    starts = range(filtered.size - known.size * per_symbol)
    strengths = [abs(np.vdot(known, filtered[n::per_symbol][: known.size])) for n in starts]
    symbols = filtered[int(np.argmax(strengths)) :: per_symbol]
    channel = np.vdot(known, symbols[: known.size]) / known.size
    noise = float(np.mean(np.abs(symbols[: known.size] - channel * known) ** 2))
    symbols = symbols / channel
    noise /= abs(channel) ** 2
    body = np.array(
        [symbols[256 + n + 8 * (n // 128)] for n in range((symbols.size - 256) * 16 // 17 - 8)]
    )

    if body.size < 512:
        raise ValueError("header cut off")
    signs = 1 - 2 * np.array(gold(0x5A00003, 512))
    bits = ldpc_decode(list(4 * body[:512].real / noise * signs), 128, 0, 1)
    if crc16(bits[:112]) != bits[112:]:
        raise ValueError("header CRC")
    values, start = [], 0
    for width in FIELDS:
        values.append(int("".join(map(str, bits[start : start + width])), 2))
        start += width
    _, mcs, version, _, _, _, frame_bits, first, more_blocks, more_here, _ = values
    _, k, e = block_sizes(frame_bits, mcs, more_blocks + 1)
    points = map_8psk([int(b) for label in range(8) for b in f"{label:03b}"])
    payloads = []
    for n in range(more_here + 1):
        data = body[512 + n * e // 3 :][: e // 3]
        metric = -(np.abs(data[:, None] - points[None, :]) ** 2) / noise
        llrs = np.empty((e // 3, 3))
        for place in range(3):
            ones = (np.arange(8) >> (2 - place)) & 1 == 1
            llrs[:, place] = np.logaddexp.reduce(metric[:, ~ones], axis=1)
            llrs[:, place] -= np.logaddexp.reduce(metric[:, ones], axis=1)
        seed = 0x10000000 + (version << 16) + first + n
        block = ldpc_decode(list(llrs.ravel() * (1 - 2 * np.array(gold(seed, e)))), k, version, 3)
        if crc24b(block[:-24]) != block[-24:]:
            raise ValueError(f"code block {first + n} CRC")
        payloads.append(block[:-24])
    return values, payloads
