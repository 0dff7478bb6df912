"""Figures of an evaluation: what is drawn is what the table says, and what it lacks is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from semantic.evaluation.figure_style import family, looks, save_figure
from semantic.evaluation.figures import Gallery, best_within, draw_figures, draw_metrics
from semantic.evaluation.summary import rows_at, summarise
from tests.evaluation_table import LAWS, SNR_DB, made_table, write_results

EVERY = ("fig3", "fig4a", "fig4b", "quality", "fig5", "rates")


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return made_table()


@pytest.fixture(scope="module")
def summary(table: pl.DataFrame) -> pl.DataFrame:
    return summarise(table)


@pytest.fixture(scope="module")
def gallery(
    table: pl.DataFrame, summary: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Gallery:
    folder = write_results(tmp_path_factory.mktemp("results"), table)
    return draw_figures(table, summary, folder / "pictures")


def lines_of(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {
        str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata()))  # type: ignore[call-overload]
        for line in axes.lines
    }


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text().replace("\n", " ") for text in legend.get_texts()]


def test_every_figure_of_every_channel(gallery: Gallery) -> None:
    expected = {f"{name}-animals-{air}" for name in EVERY for air in ("awgn", "rayleigh")}
    assert set(gallery.figures) == expected | {"fig6-animals"}
    assert gallery.left_out == []


def test_curves_are_the_summary_with_bands_and_controls(
    gallery: Gallery, summary: pl.DataFrame
) -> None:
    figure = gallery.figures["fig4a-animals-awgn"]
    match_fixed, match_lowest, kappa_fixed, _ = figure.axes
    assert match_fixed.get_title() == "code rate 1/2"
    assert match_fixed.get_ylabel() == "answer match rate"
    assert kappa_fixed.get_xlabel() == "Es/N0 (dB)"
    shown = [law.label for law in LAWS if ", d = " not in law.label]
    for axes, policy, metric in (
        (match_fixed, "fixed", "match"),
        (match_lowest, "lowest", "match"),
        (kappa_fixed, "fixed", "kappa"),
    ):
        drawn = lines_of(axes)
        assert set(drawn) == {*shown, "blank picture", "wrong picture", "chance"}
        for label in shown:
            points = rows_at(summary, system=label, channel="awgn", policy=policy).sort("snr_db")
            assert drawn[label] == (list(SNR_DB), points[metric].to_list())
        for control in ("blank picture", "wrong picture"):
            (value,) = rows_at(summary, system=control)[metric]
            assert drawn[control][1] == [value, value]
        assert len(axes.collections) == len(shown)  # one band each
    (chance,) = set(lines_of(match_fixed)["chance"][1])
    assert chance == pytest.approx(summary["chance"].max())
    assert set(lines_of(kappa_fixed)["chance"][1]) == {0}
    assert legend_of(figure) == [
        "chance",
        *looks(summary.filter(pl.col("system").is_in([*shown, "blank picture", "wrong picture"]))),
    ]


def test_bands_span_the_intervals(gallery: Gallery, summary: pl.DataFrame) -> None:
    (fixed, _) = gallery.figures["fig4b-animals-rayleigh"].axes
    labels = [
        str(line.get_label()) for line in fixed.lines if line.get_marker() not in ("", "None")
    ]
    for label, band in zip(labels, fixed.collections, strict=True):
        points = rows_at(summary, system=label, channel="rayleigh", policy="fixed")
        edges = band.get_paths()[0].vertices[:, 1]
        assert edges.min() == pytest.approx(points["intent_loss_low"].min())
        assert edges.max() == pytest.approx(points["intent_loss_high"].max())


def test_segment_lengths_have_a_curve_for_each_es_n0(
    gallery: Gallery, summary: pl.DataFrame
) -> None:
    figure = gallery.figures["fig5-animals-awgn"]
    loss = figure.axes[0]
    drawn = lines_of(loss)
    assert list(drawn) == [f"{snr_db:g} dB" for snr_db in SNR_DB]
    labels = ("UO-ISC", "UO-ISC, d = 16", "UO-ISC, d = 32")
    at = {"channel": "awgn", "policy": "fixed", "snr_db": 20.0}
    expected = [rows_at(summary, system=label, **at)["intent_loss"][0] for label in labels]
    assert drawn["20 dB"] == ([8, 16, 32], expected)
    assert [tick.get_text() for tick in figure.axes[2].get_xticklabels()] == ["8", "16", "32"]


def test_symbols_over_segment_length(gallery: Gallery) -> None:
    measured, paper = gallery.figures["fig6-animals"].axes
    drawn = lines_of(measured)
    assert drawn["UO-ISC, all symbols"] == ([8, 16, 32], [4400, 2400, 1400])
    assert drawn["UO-ISC, payload"] == ([8, 16, 32], [4000, 2000, 1000])
    assert drawn["JPEG 2000 lossless"][1] == [40400, 40400]
    ((lengths, symbols),) = lines_of(paper).values()
    assert lengths == [8, 16, 32, 64]
    assert symbols == [401_408 / d * 9 / 3 * 2 for d in lengths]


def test_map_holds_the_best_of_what_costs_no_more() -> None:
    points = pl.DataFrame(
        {
            "snr_db": [0.0, 0.0, 0.0, 10.0],
            "symbols": [100.0, 200.0, 300.0, 200.0],
            "kappa": [0.5, 0.2, 0.7, 0.9],
        }
    )
    best = best_within(points, [0, 10], [100, 200, 300])
    np.testing.assert_array_equal(best.mask, [[False, True], [False, False], [False, False]])
    np.testing.assert_allclose(best.filled(-1), [[0.5, -1], [0.5, 0.9], [0.7, 0.9]])


def test_pictures_with_their_questions_and_answers(gallery: Gallery, table: pl.DataFrame) -> None:
    figure = gallery.figures["fig3-animals-awgn"]
    shown = [law.label for law in LAWS if ", d = " not in law.label]
    grid = np.array(figure.axes).reshape(2, len(shown) + 1)  # four rows are kept, of two photos
    assert all(len(axes.images) == 1 for axes in grid.flat)
    heads = [axes.get_title().replace("\n", " ") for axes in grid[0]]
    assert heads[0] == "source"
    assert set(heads[1:]) == set(shown)
    assert [axes.texts[0].get_text() for axes in grid[:, 0]] == ["What 0?", "What 2?"]
    where = {"system": heads[1], "row": 0, "seed": 0, "snr_db": 0.0, "policy": "lowest"}
    (answer,) = rows_at(table, channel="awgn", **where)["answer"]
    assert grid[0, 1].get_xlabel().strip() == f"{answer} (lost)"
    assert grid[0, 0].get_xlabel().strip() == "yes"


def test_what_a_table_lacks_is_left_out_and_named(table: pl.DataFrame, tmp_path: Path) -> None:
    few = table.filter(
        pl.col("system").is_in(["UO-ISC", "blank picture"]), pl.col("channel") != "rayleigh"
    ).with_columns(intent_loss=pl.lit(None, pl.Float64), feature_distance=pl.lit(None, pl.Float64))
    gallery = draw_figures(few, summarise(few), tmp_path / "pictures")
    told = {line.partition(":")[0] for line in gallery.left_out}
    assert told == {"fig3-animals-awgn", "fig4b-animals-awgn", "fig5-animals-awgn"}
    assert str(tmp_path) in next(line for line in gallery.left_out if line.startswith("fig3"))
    quality = gallery.figures["quality-animals-awgn"]
    assert [axes.get_ylabel() for axes in quality.axes if axes.get_ylabel()] == [
        "PSNR (dB)",
        "MS-SSIM",
    ]
    assert len(gallery.figures["fig6-animals"].axes) == 1  # the paper's alone


def test_systems_can_be_told_apart(summary: pl.DataFrame) -> None:
    """By colour and marker, also where colours are seen as brightness alone within a kind."""
    found = list(looks(summary).values())
    seen = [(one.colour, str(one.dashes), one.marker) for one in found]
    assert len(set(seen)) == len(found)
    assert [one.kind for one in found][-2:] == ["blank", "wrong_picture"]
    assert all(max(to_rgb(one.colour)) < 1 for one in found)


def test_many_systems_of_a_kind_can_be_told_apart() -> None:
    many = pl.DataFrame({"kind": ["uoisc"] * 12, "system": [f"UO-ISC {n}" for n in range(12)]})
    seen = {(one.colour, str(one.dashes), one.marker) for one in looks(many).values()}
    assert len(seen) == 12


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("UO-ISC, d = 16", "UO-ISC"),
        ("UO-ISC d=8", "UO-ISC"),
        ("UO-ISC (d = 32)", "UO-ISC"),
        ("UO-ISC d = 4 soft", "UO-ISC soft"),
        ("JPEG 2000", "JPEG 2000"),
    ],
)
def test_name_without_segment_length(label: str, name: str) -> None:
    assert family(label) == name


def test_the_same_figure_gives_the_same_bytes(summary: pl.DataFrame, tmp_path: Path) -> None:
    part = summary.filter(pl.col("channel") != "rayleigh", pl.col("policy") == "fixed")
    written = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        figure = draw_metrics(part, looks(summary), ["intent_loss"], "animals")
        assert isinstance(figure, Figure)
        written.append([file.read_bytes() for file in save_figure(figure, folder, "one")])
    (png, svg), again = written
    assert [png, svg] == again
    assert png.startswith(b"\x89PNG")
    assert b"<svg" in svg
    assert b"dc:date" not in svg
