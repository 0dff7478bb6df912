"""``uoisc benchmark losses``: the same blocks lost for all, and figures that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.losses import RIVAL, LossReport, benchmark_losses
from cli.benchmark_losses import print_report
from semantic.codec.loader import EncoderSettings, load_codec
from semantic.demo_photos import load_photo, photo_path
from semantic.metrics import psnr_db
from semantic.systems.controls import grey_picture

BITS = 12_800
QUERY = "Is there a cup of coffee?"


@pytest.fixture(scope="module")
def report() -> LossReport:
    photos = [(photo_path("coffee"), load_photo("coffee", 160), QUERY)]
    return benchmark_losses(
        {"two_layer": load_codec(None, "cpu")}, photos, bits=BITS, draws=4, shares=(0.0, 0.5, 1.0)
    )


def test_figures_by_hand(report: LossReport) -> None:
    assert (report.bits, report.blocks, report.photos, report.draws) == (BITS, 2, 1, 4)
    assert list(report.psnr_db) == ["two_layer", "two_layer, base copied", RIVAL]
    source = load_photo("coffee", 160)
    codec = load_codec(None, "cpu")
    whole = codec.decode(codec.encode(source, QUERY, EncoderSettings(bits=BITS)))
    bare, copied, rival = ([one.mean for one in values] for values in report.psnr_db.values())
    assert bare[0] == pytest.approx(psnr_db(source, whole), abs=0.01)
    grey = psnr_db(source, grey_picture(160))
    for values in (bare, copied, rival):
        assert values[2] == pytest.approx(grey)
        assert values[0] > values[1]
    # Copies cost a little where nothing is lost.
    assert bare[0] - 1 < copied[0] < bare[0]
    assert copied[1] > bare[1]
    assert report.no_picture[RIVAL][0] == 0
    assert report.no_picture["two_layer"] == report.no_picture["two_layer, base copied"]
    assert report.no_picture["two_layer"][2] == 4


def test_table_for_people(report: LossReport, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report)
    text = capsys.readouterr().out
    assert f"{report.psnr_db[RIVAL][0].mean:.1f}" in text
    assert "12800 bits in 2 code blocks" in text
    assert np.isfinite(report.to_json()["systems"][RIVAL]["psnr_db"]).all()
