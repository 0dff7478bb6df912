"""A plan from end to end: rows that can be foretold, and the same table however the work was done."""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from semantic.codec.vq_codec import load_vq_codec
from semantic.evaluation.assignment import assign
from semantic.evaluation.cells import enumerate_cells
from semantic.evaluation.plan import Plan, PlanError, load_plan
from semantic.evaluation.run import Outcome, evaluate
from semantic.evaluation.table import SCHEMA, read_table
from semantic.metrics import ms_ssim, psnr_db
from semantic.pictures import load_picture
from semantic.systems.link import send
from tests.evaluation_plan import ROWS, SIDE, write_plan

TABLES = ("results.parquet", "results.csv")
# Of 2 systems that send (and one that cannot): 2 channels x 2 Es/N0 x 2 policies, and none; 2 controls.
COMBINATIONS = 3 * (2 * 2 * 2 + 1) + 2
# Policy "table" under Rayleigh at 3.8 dB less 10 takes mcs 0, at 20 less 10 mcs 8; in white noise 3 and 9.
CELLS = 3 * (2 * 2 * 2 + 1) + 2


@dataclass
class Finished:
    plan: Plan
    folder: Path
    outcome: Outcome

    @property
    def table(self) -> pl.DataFrame:
        return self.outcome.table

    def only(self, **values: object) -> pl.DataFrame:
        return self.table.filter(*(pl.col(key).eq_missing(pl.lit(v)) for key, v in values.items()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("evaluation")
    plan = load_plan(write_plan(folder))
    return Finished(plan, folder / "out", evaluate(plan, folder / "out", device="cpu"))


def copy_of(finished: Finished, folder: Path) -> Path:
    shutil.copytree(finished.folder, folder / "out")
    return folder / "out"


def same_tables(one: Path, other: Path) -> None:
    for name in TABLES:
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_one_row_for_each_cell_and_picture(finished: Finished) -> None:
    table = finished.table
    assert finished.outcome.cells == finished.outcome.cells_run == CELLS
    assert table.height == len(ROWS) * COMBINATIONS
    assert (
        table.select("set", "system", "channel", "policy", "snr_db", "seed", "row")
        .is_unique()
        .all()
    )
    assert dict(table.schema) == SCHEMA
    assert read_table(finished.folder / "results.parquet").equals(table)
    assert pl.read_csv(finished.folder / "results.csv").height == table.height
    for row, (photo, question) in enumerate(ROWS):
        ours = finished.only(row=row)
        assert ours["photo"].unique().to_list() == [photo]
        assert ours["query"].unique().to_list() == [question]


def test_rates_follow_the_policies(finished: Finished) -> None:
    rates = finished.only(system="tiny", row=0).select("channel", "snr_db", "policy", "mcs")
    assert set(rates.iter_rows()) == {
        ("none", None, "fixed", 4),
        *((channel, snr, "fixed", 4) for channel in ("awgn", "rayleigh") for snr in (3.8, 20.0)),
        ("awgn", 3.8, "table", 3),
        ("awgn", 20.0, "table", 9),
        ("rayleigh", 3.8, "table", 0),
        ("rayleigh", 20.0, "table", 8),
    }


def test_every_row_is_what_the_link_alone_makes_of_it(finished: Finished) -> None:
    """Codec, link and fidelity by hand, for every row that the tiny codec sent over the air."""
    codec = load_vq_codec(finished.plan.systems[0].checkpoint, "cpu")  # type: ignore[union-attr]
    sent = finished.only(system="tiny").filter(pl.col("channel") != "none")
    folder = finished.plan.sets[0].folder
    assert folder is not None
    for row in sent.iter_rows(named=True):
        source = load_picture(folder / row["photo"], SIDE)
        frame = codec.encode(source, row["query"], frame_id=row["row"])
        result = send(
            frame,
            mcs=row["mcs"],
            snr_db=row["snr_db"],
            channel=row["channel"],
            seed=[row["seed"], zlib.crc32(b"demo"), row["row"]],
        )
        assert row["symbols"] == result.symbols
        assert row["payload_symbols"] == result.payload_symbols
        assert row["code_blocks_ok"] == result.code_blocks_ok
        assert row["energy"] == pytest.approx(result.symbols * 10 ** (row["snr_db"] / 10))
        assert row["bits"] == frame.geometry.payload_bits == 9216
        assert row["bits_per_pixel"] == 1.0
        if result.received.frame is None:
            assert row["status"] == "lost"
            shown = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
        else:
            assert row["status"] == ("ok" if result.received.complete else "partial")
            shown = codec.decode(result.received.frame)
        assert row["psnr_db"] == pytest.approx(psnr_db(source, shown), abs=0.02)
        assert row["ms_ssim"] == pytest.approx(ms_ssim(source, shown), abs=0.002)
    assert {"ok", "partial", "lost"} <= set(sent["status"])


def test_without_a_channel_everything_arrives_and_costs_what_it_would(finished: Finished) -> None:
    none = finished.only(system="tiny", channel="none")
    assert none["status"].to_list() == ["ok"] * len(ROWS)
    assert none["energy"].null_count() == len(ROWS)
    at_fixed_rate = finished.only(system="tiny", channel="awgn", policy="fixed", snr_db=20.0)
    for name in ("symbols", "bursts", "code_blocks", "psnr_db", "answer", "intent_loss"):
        assert none[name].to_list() == at_fixed_rate[name].to_list()


def test_controls_are_the_judges_chance(finished: Finished) -> None:
    blank, wrong = finished.only(system="blank"), finished.only(system="wrong")
    assert blank["match"].to_list() == blank["blank_match"].to_list()
    assert wrong["match"].to_list() == wrong["unrelated_match"].to_list()
    for control in (blank, wrong):
        assert control["symbols"].to_list() == [0] * len(ROWS)
        assert control["mcs"].null_count() == len(ROWS)
    lost = finished.only(system="tiny", status="lost", row=0)
    names = ["psnr_db", "ms_ssim", "feature_distance", "intent_loss", "answer"]
    assert set(lost.select(names).iter_rows()) == set(blank.filter(row=0).select(names).iter_rows())


def test_a_picture_that_cannot_be_coded_is_not_judged(finished: Finished) -> None:
    rows = finished.only(system="too small")
    assert set(rows["status"]) == {"unreachable"}
    for name in ("symbols", "energy", "psnr_db", "intent_loss", "answer", "match"):
        assert rows[name].null_count() == rows.height
    assert rows["answer_source"].null_count() == 0


def test_pictures_of_the_first_row_are_kept(finished: Finished) -> None:
    kept = finished.folder / "pictures" / "demo"
    assert [folder.name for folder in kept.iterdir()] == ["0"]
    folder = finished.plan.sets[0].folder
    assert folder is not None
    source = load_picture(folder / "chelsea.png", SIDE)
    assert np.array_equal(Image.open(kept / "0" / "source.png"), source)
    for row in finished.only(row=0).filter(pl.col("status") != "unreachable").iter_rows(named=True):
        snr = "none" if row["snr_db"] is None else f"{row['snr_db']:g}"
        name = f"{row['system']}--{row['channel']}--{row['policy']}--{snr}--1.png"
        shown = Image.open(kept / "0" / name)
        assert psnr_db(source, shown) == row["psnr_db"]
    assert not list((kept / "0").glob("too small*"))


def test_notes_say_how_it_came_about(finished: Finished) -> None:
    notes = json.loads((finished.folder / "notes.json").read_text())
    assert notes["judge"]["name"] == "recognition"
    assert "tiny" in notes["systems"]["tiny"][0]
    assert "lite2" in notes["feature_distance"]
    assert notes["finished runs"][0]["cells_run"] == CELLS
    assert load_plan(finished.folder / "plan.yaml") == finished.plan


def test_what_is_missing_is_done_and_nothing_else(finished: Finished, tmp_path: Path) -> None:
    output = copy_of(finished, tmp_path)
    cells = sorted((output / "cells").iterdir())
    for file in cells[:3]:
        file.unlink()
    before = {file.name: file.stat().st_mtime_ns for file in cells[3:]}
    again = evaluate(finished.plan, output, device="cpu")
    assert again.cells_run == 3
    assert {name: (output / "cells" / name).stat().st_mtime_ns for name in before} == before
    same_tables(output, finished.folder)


def test_a_run_that_is_broken_off_goes_on(finished: Finished, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if (what, done) == ("cells", 4):
            raise KeyboardInterrupt

    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(finished.plan, output, device="cpu", progress=interrupt)
    left = len(list((output / "cells").glob("*.parquet")))
    assert 4 <= left < CELLS
    assert not (output / "results.parquet").exists()
    assert evaluate(finished.plan, output, device="cpu").cells_run == CELLS - left
    same_tables(output, finished.folder)


def test_two_processes_make_the_same_table(finished: Finished, tmp_path: Path) -> None:
    evaluate(finished.plan, tmp_path / "out", jobs=2, device="cpu")
    same_tables(tmp_path / "out", finished.folder)


def test_two_workers_of_ray_make_the_same_table(finished: Finished, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    evaluate(finished.plan, tmp_path / "out", jobs=2, backend="ray", device="cpu")
    same_tables(tmp_path / "out", finished.folder)


def test_results_of_another_plan_are_left_alone(finished: Finished, tmp_path: Path) -> None:
    output = copy_of(finished, tmp_path)
    before = {file: file.read_bytes() for file in output.rglob("*") if file.is_file()}
    other = finished.plan.model_copy(update={"snr_db": (3.8, 12.0)})
    with pytest.raises(PlanError, match=r"another plan: snr_db\.1: 20\.0 there, 12\.0 here"):
        evaluate(other, output, device="cpu")
    assert {file: file.read_bytes() for file in output.rglob("*") if file.is_file()} == before


def test_another_codec_under_the_same_name_is_another_cell(
    finished: Finished, tmp_path: Path
) -> None:
    """Where weights lie does not count, what they hold does."""
    output = copy_of(finished, tmp_path)
    moved = tmp_path / "elsewhere.safetensors"
    checkpoint = finished.plan.systems[0].checkpoint  # type: ignore[union-attr]
    shutil.copy(checkpoint, moved)
    shutil.copy(checkpoint.with_suffix(".json"), moved.with_suffix(".json"))
    systems = (finished.plan.systems[0].model_copy(update={"checkpoint": moved}),)
    plan = finished.plan.model_copy(update={"systems": systems + finished.plan.systems[1:]})
    assert evaluate(plan, output, device="cpu").cells_run == 0


def test_a_default_that_changed_is_another_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan may leave a setting open; what a system makes of that decides its results."""
    systems = [
        {"kind": "uoisc", "label": "tiny", "checkpoint": "tiny.safetensors", "search_steps": 1},
        {"kind": "jpeg2000", "label": "J", "same_bits_as": "tiny"},
    ]
    plan = load_plan(write_plan(tmp_path, systems=systems))
    before = assign(plan, tmp_path, "cpu")
    monkeypatch.setattr("semantic.index_search.LIKENESS", 7.0)
    after = assign(plan, tmp_path, "cpu")
    for cell in enumerate_cells(plan):
        assert (before.cell_file(cell) == after.cell_file(cell)) == (cell.system == "J")


def test_systems_of_different_sizes_are_refused(tmp_path: Path) -> None:
    systems = [
        {"kind": "uoisc", "label": "tiny", "checkpoint": "tiny.safetensors"},
        {"kind": "jpeg2000", "label": "J", "bytes": 900, "image_size": 160},
    ]
    plan = load_plan(write_plan(tmp_path, systems=systems))
    with pytest.raises(PlanError, match=r"one size in pixels, found 96 \(tiny\), 160 \(J\)"):
        evaluate(plan, tmp_path / "out", device="cpu")
