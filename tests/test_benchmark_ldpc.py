"""The LDPC measurements: repeatable counts, peers that decode what they are given, a search that finds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from benchmarks import ldpc, ldpc_crossing
from blocks.modem.ldpc_code import LdpcError

SMALL = ldpc.Point(120, Fraction(1, 3), 2.0)
LIMITS = {"errors": 20, "max_blocks": 400, "seed": 3, "max_iterations": 20}


def test_points() -> None:
    point = ldpc.Point.parse("8448,1/2,3.9")
    assert point == ldpc.Point(8448, Fraction(1, 2), 3.9)
    assert point.to_json() == {
        "mcs": 4, "rate": "1/2", "info_bits": 8448, "coded_bits": 16896, "snr_db": 3.9,
    }  # fmt: skip
    assert ldpc.Point.parse("120,0.3,2").to_json()["mcs"] is None


@pytest.mark.parametrize(
    "text", ["", "8448,1/2", "8448,1/0,3", "8448,2,3", "8448,1/2,nan", "8448,1/2,99", "9000,1/2,3"]
)
def test_no_points(text: str) -> None:
    with pytest.raises(LdpcError):
        ldpc.Point.parse(text)


def test_the_same_noise_at_every_snr() -> None:
    info, coded, llrs = ldpc.Source(SMALL, 1).batch(4)
    louder = ldpc.Point(120, Fraction(1, 3), 30.0)
    again, coded_again, clear = ldpc.Source(louder, 1).batch(4)
    assert np.array_equal(info, again)
    assert np.array_equal(coded, coded_again)
    assert np.array_equal(clear < 0, coded)
    assert (llrs < 0).astype(np.uint8).tolist() != coded.tolist()


@pytest.mark.parametrize("decoder", list(ldpc.DECODERS))
def test_counts_depend_on_the_seed_alone(decoder: str) -> None:
    first, second = (ldpc.measure(decoder, SMALL, **LIMITS).tally for _ in range(2))  # type: ignore[arg-type]
    assert (first.blocks, first.errors, first.iterations) == (
        second.blocks,
        second.errors,
        second.iterations,
    )
    assert first.errors >= 20 or first.blocks == 400
    assert first.iterations <= 20 * first.blocks


def test_gr_fec_is_fed_correctly() -> None:
    """No errors well above the threshold, where a wrong order or sign would leave no block whole."""
    easy = ldpc.Point(120, Fraction(1, 3), 6.0)
    assert ldpc.measure_gr_fec(easy, 20, 1, 50).tally.errors == 0
    hopeless = ldpc.Point(120, Fraction(1, 3), -6.0)
    assert ldpc.measure_gr_fec(hopeless, 20, 1, 50).tally.errors > 15


def test_gr_fec_is_spared_what_would_take_minutes() -> None:
    assert ldpc.gr_fec_can(ldpc.Point(1056, Fraction(1, 2), 4.3))
    assert not ldpc.gr_fec_can(ldpc.Point(8448, Fraction(1, 2), 3.9))


def test_crossing() -> None:
    """Found from either side, at the same place, and where the error rate is what it should be."""
    found = [
        ldpc_crossing.find_crossing(
            ldpc.PROJECT, ldpc.Point(120, Fraction(1, 3), start),
            errors=100, max_blocks=20_000, seed=1, max_iterations=50,
        )
        for start in (2.4, 3.2)
    ]  # fmt: skip
    assert found[0].snr_db == pytest.approx(found[1].snr_db, abs=0.1)
    for crossing in found:
        assert crossing.tally.errors >= 100
        assert 0.005 < crossing.tally.per < 0.02


def test_no_crossing_near() -> None:
    with pytest.raises(LdpcError, match="start nearer"):
        ldpc_crossing.find_crossing(
            ldpc.PROJECT, ldpc.Point(120, Fraction(1, 3), -15.0),
            errors=1, max_blocks=50, seed=1, max_iterations=5,
        )  # fmt: skip


def test_gaps() -> None:
    tally = ldpc.Tally(100, 1)
    at = [
        ldpc_crossing.Crossing(decoder, SMALL, limit, 1, tally, snr_db, 0.01)
        for decoder, limit, snr_db in (
            (ldpc.PROJECT, 50, 2.0), (ldpc.PROJECT, 20, 2.25), (ldpc.BELIEF, 50, 1.5),
        )
    ]  # fmt: skip
    assert [row["gap_db"] for row in ldpc_crossing.gaps(at, 50)] == [0.25, -0.5]
