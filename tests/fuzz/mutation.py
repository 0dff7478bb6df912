"""Valid inputs, damaged by chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_INTERESTING = (
    *(b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x80", b"\\u0000"),
    *(b"-1", b"1e999", b"NaN", b"null", b"true", b"99999999999999999999"),
    *(b"[", b"{", b'"', b"!!int", b"*a", b"&a "),
)
_MOST_BYTES = 200_000


def mutate(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds after one to six changes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        chance.choice(_CHANGES)(chance, data, seeds)
    return bytes(data[:_MOST_BYTES])


def _place(chance: random.Random, data: bytearray) -> int:
    return chance.randrange(len(data) + 1)


def _flip(chance: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _byte(chance: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _cut(chance: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    del data[_place(chance, data) :]


def _remove(chance: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    first = _place(chance, data)
    del data[first : first + chance.choice((1, 2, 4, 16, 64))]


def _insert(chance: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    place = _place(chance, data)
    data[place:place] = chance.choice(_INTERESTING)


def _replace(chance: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    place, what = _place(chance, data), chance.choice(_INTERESTING)
    data[place : place + len(what)] = what


def _repeat(chance: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    first = _place(chance, data)
    part = data[first : first + chance.choice((1, 8, 64))]
    data[first:first] = part * chance.choice((1, 2, 50))


def _splice(chance: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = chance.choice(seeds)
    place, from_ = _place(chance, data), chance.randrange(len(other) + 1)
    data[place:] = other[from_:]


_CHANGES: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    *(_flip, _byte, _cut, _remove, _insert, _replace, _repeat, _splice),
)
