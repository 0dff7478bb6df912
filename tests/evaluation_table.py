"""A table of an evaluation made from known laws, so that what is computed from it can be foretold."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from semantic.evaluation.figure_pictures import received_file
from semantic.evaluation.table import make_table, sort_table, write_parquet

PHOTOS = 24
QUESTIONS = 2
SEEDS = 2
SNR_DB = (0.0, 4.0, 8.0, 12.0, 20.0)
SIDE = 64
CODE_RATE = {"fixed": 0.5, "lowest": 0.25}
MCS = {"fixed": 4, "lowest": 1}
CHANCE_BLANK, CHANCE_UNRELATED = 0.4, 0.3


@dataclass(frozen=True)
class Law:
    """How one system behaves: all of it arrives above ``cliff_db``, nothing below."""

    label: str
    kind: str
    bits: int
    match: float
    loss: float
    psnr_db: float
    cliff_db: float = 4.0
    segment_length: int | None = None


LAWS = (
    Law("UO-ISC", "uoisc", 6000, 0.90, 0.10, 24.0, segment_length=8),
    Law("UO-ISC, d = 16", "uoisc", 3000, 0.80, 0.20, 22.0, segment_length=16),
    Law("UO-ISC, d = 32", "uoisc", 1500, 0.70, 0.30, 20.0, segment_length=32),
    Law("UO-ISC without text alignment", "uoisc", 6000, 0.84, 0.14, 24.5, segment_length=8),
    Law(
        "UO-ISC without text alignment and pretrained VLM",
        "uoisc",
        6000,
        0.60,
        0.30,
        18.0,
        segment_length=8,
    ),
    Law("JPEG 2000", "jpeg2000", 6000, 0.85, 0.12, 27.0),
    Law("JPEG 2000 lossless", "jpeg2000", 60000, 1.0, 0.0, math.inf, cliff_db=8.0),
    Law("Query-aware", "query_aware", 6000, 0.75, 0.25, 21.0),
)


def made_table(seed: int = 0, sets: tuple[str, ...] = ("animals",)) -> pl.DataFrame:
    """Rows of every law over two channels and policies, and the controls without a channel."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for name in sets:
        pictures = [
            {
                "set": name,
                "row": row,
                "photo": f"{row // QUESTIONS:03}.jpg",
                "query": f"What {row}?",
            }
            for row in range(PHOTOS * QUESTIONS)
        ]
        chance = rng.random((len(pictures), 2)) < (CHANCE_BLANK, CHANCE_UNRELATED)
        for picture, (blank, unrelated) in zip(pictures, chance, strict=True):
            picture |= {"blank_match": bool(blank), "unrelated_match": bool(unrelated)}
        for law in LAWS:
            for channel in ("awgn", "rayleigh"):
                for policy in CODE_RATE:
                    for snr_db in SNR_DB:
                        for number in range(SEEDS):
                            cell = _cell(law, channel, snr_db, policy, number)
                            rows += [
                                cell | picture | _row(law, cell, picture, rng)
                                for picture in pictures
                            ]
        for label, kind, column in (
            ("blank picture", "blank", "blank_match"),
            ("wrong picture", "wrong_picture", "unrelated_match"),
        ):
            rows += [_control(label, kind, picture, bool(picture[column])) for picture in pictures]
    return sort_table(make_table(rows))


def _cell(law: Law, channel: str, snr_db: float, policy: str, seed: int) -> dict[str, Any]:
    return {
        "system": law.label,
        "kind": law.kind,
        "codec_id": "c0dec000" if law.kind == "uoisc" else None,
        "segment_length": law.segment_length,
        "channel": channel,
        "snr_db": snr_db,
        "policy": policy,
        "mcs": MCS[policy],
        "seed": seed,
    }


def _row(
    law: Law, cell: dict[str, Any], picture: dict[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    rate = CODE_RATE[cell["policy"]]
    through = cell["snr_db"] >= law.cliff_db + (2 if cell["channel"] == "rayleigh" else 0)
    payload_symbols = law.bits / (3 * rate)
    symbols = math.ceil(payload_symbols) + 400
    match = bool(rng.random() < law.match) if through else picture["blank_match"]
    noise = rng.normal()
    return {
        "status": "ok" if through else "lost",
        "symbols": symbols,
        "payload_symbols": payload_symbols,
        "bits": law.bits,
        "bits_per_pixel": law.bits / SIDE**2,
        "energy": symbols * 10 ** (cell["snr_db"] / 10),
        "bursts": 1,
        "bursts_lost": 0 if through else 1,
        "code_blocks": 1,
        "code_blocks_ok": int(through),
        "psnr_db": law.psnr_db + noise if through else 10 + noise,
        "ms_ssim": 0.9 + 0.01 * noise if through else 0.2,
        "feature_distance": 0.2 + 0.01 * noise if through else 0.8,
        "intent_loss": law.loss + 0.01 * noise if through else 0.6 + 0.01 * noise,
        "answer": "yes" if match else "no",
        "answer_source": "yes",
        "match": match,
        "match_without_query": match,
    }


def _control(label: str, kind: str, picture: dict[str, Any], match: bool) -> dict[str, Any]:
    nothing = dict.fromkeys(("bursts", "bursts_lost", "code_blocks", "code_blocks_ok", "bits"), 0)
    return {
        **{"system": label, "kind": kind, "codec_id": None, "segment_length": None},
        **{"channel": "none", "snr_db": None, "policy": "fixed", "mcs": None, "seed": 0},
        **picture,
        **nothing,
        **{
            "status": "ok",
            "symbols": 0,
            "payload_symbols": 0.0,
            "bits_per_pixel": 0.0,
            "energy": None,
        },
        **{"psnr_db": 10.0, "ms_ssim": 0.2, "feature_distance": 0.8, "intent_loss": 0.6},
        **{"answer": "yes" if match else "no", "answer_source": "yes", "match": match},
        "match_without_query": match,
    }


def write_results(folder: Path, table: pl.DataFrame | None = None) -> Path:
    """A folder as ``uoisc evaluate`` leaves it: table, notes, and pictures of the first rows."""
    table = made_table() if table is None else table
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(table, folder / "results.parquet")
    (folder / "notes.json").write_text(json.dumps(NOTES))
    rng = np.random.default_rng(1)
    for row in table.filter(pl.col("row") < 4, pl.col("snr_db") == 0).iter_rows(named=True):
        file = received_file(folder / "pictures", row)
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).resize((SIDE, SIDE)).save(file)
        Image.new("RGB", (SIDE, SIDE), (40 * row["row"], 90, 120)).save(
            file.with_name("source.png")
        )
    return folder


# As semantic.evaluation.run writes them.
NOTES = {
    "systems": {"UO-ISC": [], "Query-aware": ["no diffusion step: no weights"]},
    "judge": {"name": "recognition", "identity": "0123abcd"},
    "versions": {"python": "3.11.2", "torch": "2.6.0"},
    "finished runs": [
        {"cells_run": 10, "seconds": 12.5, "jobs": 2},
        {"cells_run": 0, "seconds": 0.5, "jobs": 1},
    ],
}
