"""Figures of the error-rate commands: everything measured is drawn, everything drawn is named."""

from __future__ import annotations

import math

import pytest
from matplotlib.figure import Figure

from benchmarks.fading import AwgnCurve, FadingPoint
from benchmarks.sensitivity import Crossing, Sensitivity
from blocks.modem.error_rates import Conditions, Point, Tally
from blocks.modem.fading import FlatFading
from blocks.modem.ldpc_limits import normal_approximation_snr_db
from cli.benchmark_common import mcs_colours
from cli.benchmark_fading import draw_fading
from cli.benchmark_per import draw_curves, theory
from cli.benchmark_sensitivity import draw_sensitivity


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def curve(mcs: int, sync: str, *per: float) -> list[Point]:
    return [
        Point(
            Conditions(mcs, 3.5 + 0.1 * step, sync),  # type: ignore[arg-type]
            Tally(blocks=1000, block_errors=round(1000 * value), bursts=500),
        )
        for step, value in enumerate(per)
    ]


def test_error_rate_curves_with_theory_and_limits() -> None:
    points = [*curve(4, "full", 0.9, 0.1, 0.0), *curve(5, "ideal", 0.8, 0.05, 0.01)]
    figure = draw_curves(points)
    assert legend_of(figure) == [
        "A receiver",
        "B perfect synchronisation",
        "C normal approximation",
        "8-PSK BICM limit",
        "Shannon limit",
        "mcs 4, rate 1/2",
        "mcs 5, rate 3/5",
    ]
    (axes,) = figure.axes
    # A point without errors has no place on a logarithmic axis; the others are all there.
    drawn = [len(container.lines[0].get_xdata()) for container in axes.containers]  # type: ignore[attr-defined]
    assert drawn == [2, 3]


def test_theory_under_fading_is_the_outage_probability() -> None:
    """The largest block's curve is nearly a step."""
    plan, _ = Conditions(4, 10.0).frame
    step_db = normal_approximation_snr_db(plan.info_bits, plan.coded_bits, per=0.5)
    average = theory(Conditions(4, 10.0, channel=FlatFading()))
    assert average(10.0) == pytest.approx(1 - math.exp(-(10 ** ((step_db - 10) / 10))), rel=0.01)
    assert theory(Conditions(4, 10.0))(10.0) < 1e-12


def test_fading_has_one_field_per_law() -> None:
    step = AwgnCurve(curve(4, "full", 1.0, 0.5, 0.0))
    tallies = [Tally(blocks=100, block_errors=20 + extra) for extra in range(8)]
    points = [
        FadingPoint(Conditions(4, snr_db), law, tallies, step)
        for law in (FlatFading(), FlatFading(3.0))
        for snr_db in (8.0, 10.0)
    ]
    figure = draw_fading(points)
    assert [axes.get_title() for axes in figure.axes] == ["rayleigh", "rician:3"]
    assert all(len(axes.containers) == 1 for axes in figure.axes)


def test_sensitivities_lie_on_their_code_rates() -> None:
    crossing = Crossing(4.0, 0.01, 100, [])
    figure = draw_sensitivity(
        [Sensitivity(4, 3.44, crossing, None), Sensitivity(9, 10.17, None, crossing)]
    )
    (axes,) = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}  # type: ignore[call-overload]
    assert drawn["B ideal synchronisation"] == [0.5]
    assert drawn["A receiver"] == pytest.approx([8 / 9])
    assert drawn["C normal approximation"] == pytest.approx([0.5, 8 / 9])


def test_colours_of_code_rates_differ_and_do_not_depend_on_the_selection() -> None:
    every = mcs_colours(range(10))
    assert len(set(every.values())) == 10
    assert mcs_colours([4, 9]) == {4: every[4], 9: every[9]}
