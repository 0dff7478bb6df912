"""The report: its numbers are the table's, and the same table gives the same bytes."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
import yaml

from semantic.evaluation import claims
from semantic.evaluation.claims import check_claims, compare_at_equal_symbols
from semantic.evaluation.paper import payload_symbols
from semantic.evaluation.report import make_report
from semantic.evaluation.summary import rows_at, summarise
from tests.evaluation_table import LAWS, NOTES, made_table

LAW = {law.label: law for law in LAWS}
NO_TEXT = "UO-ISC without text alignment"
NO_VLM = "UO-ISC without text alignment and pretrained VLM"


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return made_table()


@pytest.fixture(scope="module")
def summary(table: pl.DataFrame) -> pl.DataFrame:
    return summarise(table)


@pytest.fixture(scope="module")
def page(table: pl.DataFrame, summary: pl.DataFrame) -> str:
    return make_report(table, summary, NOTES, {"fig4a-animals-awgn": "images/fig4a.png"})


def section(page: str, title: str) -> str:
    return page.split(f"## {title}\n")[1].split("\n## ")[0]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_paper_s_geometry_is_arithmetic() -> None:
    """DESIGN section 6: 401,408/d indices of 9 bits, three bits a symbol at rate 1/2."""
    found = payload_symbols()
    assert list(found) == [8, 16, 32, 64]
    for d, size in found.items():
        assert size.indices == 401_408 / d == 4 * 196 * 512 / d
        assert size.bits == 9 * size.indices
        assert size.symbols == size.bits / 1.5
    assert (found[32].indices, found[32].bits, found[32].symbols) == (12_544, 112_896, 75_264)


def test_claims_compare_what_they_speak_of(table: pl.DataFrame, summary: pl.DataFrame) -> None:
    found = check_claims(table, summary)
    pairs = [(one.first, one.second) for one in found if one.point[1] == "awgn"]
    assert pairs == [
        ("UO-ISC", NO_VLM),
        (NO_TEXT, NO_VLM),
        ("UO-ISC", NO_TEXT),
        ("UO-ISC", "Query-aware"),
        *((one, "JPEG 2000 lossless") for one in ("UO-ISC", "UO-ISC, d = 16", "UO-ISC, d = 32")),
    ]
    assert {one.point[2:] for one in found} == {("fixed", 20.0)}
    for one in found:
        if one.metric == "match":
            law = LAW[one.first].match - LAW[one.second].match
            width = one.found.high - one.found.low
            assert abs(one.found.mean - law) < width
            at = {"channel": one.point[1], "policy": "fixed", "snr_db": 20.0}
            means = [rows_at(summary, system=s, **at)["match"][0] for s in (one.first, one.second)]
            assert one.found.mean == pytest.approx(means[0] - means[1])


@pytest.mark.parametrize("name", ["reduced", "full"])
def test_the_shipped_plans_have_what_the_claims_speak_of(name: str) -> None:
    """Ablations and lossless coding are known by their labels."""
    file = Path(claims.__file__).parent / "plans" / f"{name}.yaml"
    systems = [(one["kind"], one["label"]) for one in yaml.safe_load(file.read_text())["systems"]]
    for claim in claims.CLAIMS:
        firsts = {system for system in systems if claim.first(*system)}
        seconds = {system for system in systems if claim.second(*system)}
        assert firsts
        assert not firsts & seconds
        assert seconds, claim.text


def test_equal_symbols_leave_out_ablations_and_lossless(
    table: pl.DataFrame, summary: pl.DataFrame
) -> None:
    found = compare_at_equal_symbols(table, summary)
    assert {(one.first, one.second) for one in found} == {("UO-ISC", "JPEG 2000")}
    clear = [one for one in found if one.point[3] == 20.0]
    assert {
        one.metric: one.winner for one in clear if one.metric in ("intent_loss", "psnr_db")
    } == {
        "intent_loss": 1,
        "psnr_db": -1,
    }
    lost = [one for one in found if one.point == ("animals", "awgn", "fixed", 0.0)]
    assert {one.metric: one.winner for one in lost}["match"] == 0


def test_page_is_complete_and_the_same_each_time(table: pl.DataFrame, page: str) -> None:
    again = made_table().sample(fraction=1, shuffle=True, seed=5)
    assert (
        make_report(again, summarise(again), NOTES, {"fig4a-animals-awgn": "images/fig4a.png"})
        == page
    )
    assert not re.search(r"\$\w|\bnan\b|\bNone\b|\{\w*\}", page)
    assert "![fig4a-animals-awgn](images/fig4a.png)\n\n*Fig. 4a: " in page
    assert "48 questions about 24 photos, 2 seeds" in page
    assert f"rows of the table: {table.height:,}" in page
    how = section(page, "How it was measured")
    assert "  - Query-aware:\n    - no diffusion step: no weights\n" in how
    assert "  - cells_run 10, seconds 12.5, jobs 2\n  - cells_run 0, seconds 0.5, jobs 1" in how
    for table_line in re.findall(r"(?m)^\|.*$", page):
        assert table_line.endswith("|")


def test_tables_hold_the_summary_s_numbers(page: str, summary: pl.DataFrame) -> None:
    part = section(page, "All systems").split("**flat Rayleigh, code rate 1/2**")[1].split("**")[0]
    lines = [cells(line) for line in part.strip().splitlines()]
    head, body = lines[0], lines[2:]
    assert {line[1] for line in body} == {*LAW, "blank picture", "wrong picture"}
    at = {"channel": "rayleigh", "policy": "fixed", "snr_db": 20.0}
    for label in LAW:
        (row,) = rows_at(summary, system=label, **at).rows(named=True)
        (line,) = [line for line in body if line[:2] == ["20", label]]
        shown = dict(zip(head, line, strict=True))
        assert shown["symbols"] == f"{row['symbols']:,.0f}"
        assert shown["match"].startswith(f"{row['match']:.3f} [{row['match_low']:.3f}, ")
        assert shown["kappa"].endswith(f", {row['kappa_high']:.3f}]")
        assert float(shown["energy"]) == pytest.approx(row["symbols"] * 100, rel=0.01)
        assert shown["relevance loss"].split()[0] == f"{row['intent_loss']:.4f}"
        assert shown["d"] == (
            "-" if LAW[label].segment_length is None else str(LAW[label].segment_length)
        )


def test_wins_are_counted(page: str, table: pl.DataFrame, summary: pl.DataFrame) -> None:
    found = compare_at_equal_symbols(table, summary)
    lines = [cells(line) for line in section(page, "Who wins where").splitlines()]
    pair = ["animals", "UO-ISC", "JPEG 2000", "PSNR (dB)"]
    (psnr,) = [line for line in lines if line[:4] == pair]
    winners = [one.winner for one in found if one.metric == "psnr_db"]
    assert psnr[4:7] == [str(winners.count(sign)) for sign in (1, -1, 0)]
    largest = min(one.found.mean for one in found if one.metric == "psnr_db" and one.winner < 0)
    assert psnr[8].startswith(f"{largest:+.2f} [")


def test_differences_stand_at_every_es_n0(
    page: str, table: pl.DataFrame, summary: pl.DataFrame
) -> None:
    part = section(page, "Who wins where").split("**animals, AWGN, code rate 1/2**")[1]
    lines = [cells(line) for line in part.split("**animals")[0].strip().splitlines()]
    (shown,) = [line for line in lines if line[0] == "PSNR (dB)"]
    found = {
        f"{one.point[3]:g} dB": one
        for one in compare_at_equal_symbols(table, summary)
        if one.metric == "psnr_db" and one.point[:3] == ("animals", "awgn", "fixed")
    }
    assert lines[0][3:] == list(found)
    for head, value in zip(lines[0][3:], shown[3:], strict=True):
        mark = {1: "**", 0: "", -1: "*"}[found[head].winner]
        assert value == f"{mark}{found[head].found.mean:+.2f}{mark}"


def test_a_poor_table_says_what_it_lacks(table: pl.DataFrame) -> None:
    few = table.filter(pl.col("system").is_in(["UO-ISC", "blank picture"]), pl.col("seed") == 0)
    few = few.with_columns(
        match=pl.lit(None, pl.Boolean),
        status=pl.lit("unreachable"),
        intent_loss=pl.lit(None, pl.Float64),
    )
    page = make_report(few, summarise(few), {}, {})
    assert page.count("not in this table") == 5
    assert "no UO-ISC and picture coder with equal symbols" in page
    assert "No answers were judged." in page
    assert "48, 48 of them n/a" in page
    assert "None drawn." in page


def test_a_curve_that_breaks_is_named(table: pl.DataFrame) -> None:
    broken = table.with_columns(
        pl.when(
            pl.col("snr_db") == 12, pl.col("system") == "JPEG 2000", pl.col("channel") == "awgn"
        )
        .then(pl.col("psnr_db") - 5)
        .otherwise(pl.col("psnr_db"))
        .alias("psnr_db")
    )
    told = section(
        make_report(broken, summarise(broken), NOTES, {}),
        "Does a better channel ever make it worse?",
    )
    line = next(
        line
        for line in told.splitlines()
        if line.startswith("- PSNR (dB): JPEG 2000 (animals, AWGN")
    )
    assert "at 12 dB than at" in line
