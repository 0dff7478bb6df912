"""What the error-rate commands compute: sweeps on several processes, crossings, averages over fading."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from benchmarks.fading import SEQUENCES, AwgnCurve, FadingPoint, measure_awgn_curve, measure_fading
from benchmarks.sensitivity import find_crossing, measure_sensitivity, merge
from benchmarks.sweep import measure, processes
from blocks.modem.error_rates import Conditions, Point, Tally, run_trials
from blocks.modem.fading import FlatFading
from blocks.modem.ldpc_limits import normal_approximation_per, normal_approximation_snr_db
from cli.benchmark_fading import fading
from cli.benchmark_per import per
from cli.output import OutputError
from tests.conftest import RunCommand


def quiet(point: Point) -> None:
    """Nobody is watching."""


def test_counts_do_not_depend_on_the_number_of_processes() -> None:
    conditions = Conditions(2, 1.4, "full", info_bits=600, max_burst_symbols=3000)
    counts = []
    for jobs in (1, 2):
        with processes(jobs) as run:
            counts.append(measure(conditions, 10, 100, run, quiet))
    assert counts[0] == counts[1]
    assert counts[0].tally.block_errors > 0


def by_theory(conditions: Conditions, trials: object) -> Tally:
    """Counts as the normal approximation 0.4 dB up would have them, without dice."""
    plan, _ = conditions.frame
    per = normal_approximation_per(plan.info_bits, plan.coded_bits, conditions.snr_db - 0.4)
    return Tally(blocks=10_000, block_errors=round(10_000 * per), bursts=5000)


def test_crossing_is_found_on_a_known_curve() -> None:
    plan, _ = Conditions(4, 0.0).frame
    theory = normal_approximation_snr_db(plan.info_bits, plan.coded_bits)
    found = find_crossing(4, "ideal", theory + 0.2, 100, 0, by_theory, quiet)
    # A straight line in log PER over 0.1 dB of a curve that bends.
    assert found.snr_db == pytest.approx(theory + 0.4, abs=0.015)
    assert 0 < found.error_db < 0.02
    assert found.points[-1].per < 1e-2 <= found.points[-2].per
    with pytest.raises(ValueError, match="already below"):
        find_crossing(4, "ideal", theory + 1, 100, 0, by_theory, quiet)


def test_curves_from_two_files_make_one_table() -> None:
    plan, _ = Conditions(4, 0.0).frame
    theory = normal_approximation_snr_db(plan.info_bits, plan.coded_bits)
    whole = measure_sensitivity(4, ["full", "ideal"], 100, 0, by_theory, quiet)
    halves = [
        measure_sensitivity(4, [sync], 100, 0, by_theory, quiet)  # type: ignore[list-item]
        for sync in ("full", "ideal")
    ]
    files = [{"sensitivity": [json.loads(json.dumps(half.to_json()))]} for half in halves]
    (merged,) = merge(files)
    assert merged.to_json() == whole.to_json()
    assert whole.sync_loss_db == 0
    assert whole.code_loss_db == pytest.approx(0.4, abs=0.015)
    assert whole.theory_db == theory
    with pytest.raises(ValueError, match="twice"):
        merge([files[0], files[0]])


def step_curve(threshold_db: float) -> AwgnCurve:
    """All fails below the threshold, nothing above: the average is the outage probability."""
    return AwgnCurve(
        [
            Point(Conditions(4, threshold_db + offset), Tally(blocks=100, block_errors=errors))
            for offset, errors in ((-0.001, 100), (0.001, 0))
        ]
    )


def test_loss_is_the_shift_that_explains_the_error_rate() -> None:
    threshold_db, mean_db, lost_db = 4.0, 10.0, 0.7
    outage = 1 - math.exp(-(10 ** ((threshold_db - mean_db + lost_db) / 10)))
    counts = [Tally(blocks=100_000, block_errors=round(100_000 * outage) + d) for d in (-100, 100)]
    law = FlatFading()
    point = FadingPoint(Conditions(4, mean_db), law, counts * 4, step_curve(threshold_db))
    assert point.expected_per == pytest.approx(1 - math.exp(-(10**-0.6)), rel=2e-3)
    assert point.loss_db == pytest.approx(lost_db, abs=0.02)
    low, high = point.loss_ci95_db
    assert low < point.loss_db < high
    assert high - low < 0.1


def test_ideal_receiver_loses_nothing_to_fading() -> None:
    """Perfect synchronisation: the exact average and the dice must agree."""
    conditions = Conditions(4, 10.0, "ideal", info_bits=600, max_burst_symbols=2000, seed=3)
    curve = measure_awgn_curve(conditions, run_trials, quiet)
    assert curve.points[0].per > 0.98
    assert curve.points[-1].per < 0.01
    assert np.all(curve.per(np.array([-30.0, 30.0])) == [1, 0])
    point = measure_fading(conditions, FlatFading(), curve, 100 * SEQUENCES, run_trials, quiet)
    assert point.per == pytest.approx(point.expected_per, abs=0.01)
    assert abs(point.loss_db) < 0.3
    low, high = point.loss_ci95_db
    assert low < 0.1
    assert high > -0.1


def test_commands_write_figures_and_plots(uoisc: RunCommand, tmp_path: Path) -> None:
    """Each command once, small, as a user types it."""
    small = ("--mcs", "4", "--json", "x.json", "--plot", "x.png")
    for command, keys in (
        (("per", *small, "--snr-db", "4.2:4.6:0.4", "--info-bits", "600", "--errors", "3",
          "--max-blocks", "30", "--max-burst-symbols", "2000"), None),
        (("reliability", *small, "--info-bits", "600", "--failed-blocks", "3",
          "--above-theory-db", "0.1", "--fit"), {"command", "arguments", "points"}),
    ):  # fmt: skip
        result = uoisc("benchmark", *command)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
        written = json.loads((tmp_path / "x.json").read_text())
        if keys is None:
            assert [point["snr_db"] for point in written] == [4.2, 4.6, 4.2, 4.6]
            assert {point["sync"] for point in written} == {"full", "ideal"}
        else:
            assert set(written) == keys
            assert written["points"][0]["failed"]["blocks"] >= 3
        (tmp_path / "x.png").unlink()
        (tmp_path / "x.json").unlink()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"channel": "fog"}, typer.BadParameter),
        ({"channel": "rician"}, typer.BadParameter),
        ({"channel": "two-tap", "sync": "both"}, typer.BadParameter),
        ({"sync": "some"}, typer.BadParameter),
        ({"json_file": Path("/nowhere/x.json")}, OutputError),
    ],
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        per(mcs="4", snr_db="4", **options)
    with pytest.raises(typer.BadParameter):
        fading(channels="rayleigh,two-tap")
