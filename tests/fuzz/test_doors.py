"""Whatever comes in, each door answers with what it read or with its one named error, soon and in one line.

``make test`` tries a few hundred inputs at each; ``pytest tests/fuzz -m slow`` a hundred thousand
(``UOISC_FUZZ_INPUTS`` says how many), and prints how many were refused.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.fuzz.doors import DOORS, describe
from tests.fuzz.mutation import mutate

_QUICK, _LONG = 300, 100_000
# A hang, not slowness: the longest of 100,000 took a hundredth of that.
_LONGEST_S = 20.0


def fuzz(name: str, folder: Path, count: int, seed: int) -> tuple[int, float]:
    """Try so many inputs; how many were refused, and the longest time that one took in seconds."""
    door = DOORS[name]
    chance = random.Random(f"{name} {seed}")
    seeds = door.seeds(folder)
    for one in seeds:
        door.take(one, folder)
    refused, longest_s = 0, 0.0
    for _ in range(count):
        data = mutate(chance, seeds)
        started_s = time.monotonic()
        try:
            door.take(data, folder)
        except door.refuses as error:
            refused += 1
            if len(str(error).splitlines()) != 1:
                raise AssertionError(f"not one line: {error!r}: {describe(data)}") from error
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error}: {describe(data)}") from error
        longest_s = max(longest_s, time.monotonic() - started_s)
        assert longest_s < _LONGEST_S, describe(data)
    return refused, longest_s


@pytest.mark.parametrize("name", DOORS)
def test_a_few_hundred(name: str, tmp_path: Path) -> None:
    refused, _ = fuzz(name, tmp_path, _QUICK, seed=0)
    # Some are refused, unless nothing is ever refused but counted.
    assert refused > _QUICK // 10 or not DOORS[name].refuses


@pytest.mark.slow
@pytest.mark.parametrize("name", DOORS)
def test_a_hundred_thousand(name: str, tmp_path: Path) -> None:
    count = int(os.environ.get("UOISC_FUZZ_INPUTS", _LONG))
    started_s = time.monotonic()
    refused, longest_s = fuzz(name, tmp_path, count, seed=1)
    print(  # noqa: T201
        f"{name}: {count} inputs, {refused} refused, in {time.monotonic() - started_s:.0f} s, "
        f"one at most {longest_s:.2f} s"
    )
