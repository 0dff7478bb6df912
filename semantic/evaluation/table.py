"""The table of an evaluation: one row per cell of the grid and picture, and how it is written and read.

Everything that tables and figures need stands in it, every setting and seed included, so that nothing has to
be run again to look at it another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import polars as pl

from semantic.evaluation.files import atomic_write

# Raised whenever a column changes its name, type or meaning: cells of an older run are not mixed in.
FORMAT_VERSION = 1

# Which system, over which air.
CELL: dict[str, pl.DataType] = {
    "system": pl.String(),  # label
    "kind": pl.String(),  # uoisc, jpeg2000, webp, avif, query_aware, blank, wrong_picture
    "codec_id": pl.String(),  # null where there is no trained codec
    "segment_length": pl.Int64(),  # d; null where there are no segments
    "channel": pl.String(),  # awgn, rayleigh, none (everything arrives)
    "snr_db": pl.Float64(),  # Es/N0, the mean one under fading; null without a channel
    "policy": pl.String(),  # fixed, lowest, table
    "mcs": pl.Int64(),  # index of the code rate; null for systems that send nothing
    "seed": pl.Int64(),
}
# Which picture, and what was asked.
PICTURE: dict[str, pl.DataType] = {
    "set": pl.String(),
    "row": pl.Int64(),
    "photo": pl.String(),
    "query": pl.String(),
}
# What the air did.
LINK: dict[str, pl.DataType] = {
    # ok: everything arrived. partial: erasures, shown as far as it goes. lost: nothing arrived.
    # undecodable: what arrived makes no picture. unreachable: the system cannot code this picture as asked.
    # Of lost and undecodable a grey picture is shown and judged; of unreachable ones nothing is known.
    "status": pl.String(),
    "symbols": pl.Int64(),  # every symbol on the air: preamble, header, pilots, CRC, ramps
    "payload_symbols": pl.Float64(),  # bits / (3 rate), the paper's figure
    "bits": pl.Int64(),  # of the picture, before the channel code
    "bits_per_pixel": pl.Float64(),
    "energy": pl.Float64(),  # symbols x 10^(snr_db / 10), in units of N0; null without a channel
    "bursts": pl.Int64(),
    "bursts_lost": pl.Int64(),  # not one code block of the burst came through
    "code_blocks": pl.Int64(),
    "code_blocks_ok": pl.Int64(),
}
# What the picture shown is worth.
QUALITY: dict[str, pl.DataType] = {
    "psnr_db": pl.Float64(),  # infinity for an exact copy
    "ms_ssim": pl.Float64(),
    "feature_distance": pl.Float64(),
    "intent_loss": pl.Float64(),  # eq. (11)
    "answer": pl.String(),
    "answer_source": pl.String(),
    "match": pl.Boolean(),
    "match_without_query": pl.Boolean(),  # null where the judge needs a question
    "blank_match": pl.Boolean(),  # a grey picture gets the source's answer: chance
    "unrelated_match": pl.Boolean(),  # another picture does; null where there is none
}

SCHEMA: dict[str, pl.DataType] = {**CELL, **PICTURE, **LINK, **QUALITY}

STATUSES = ("ok", "partial", "lost", "undecodable", "unreachable")

# No two rows agree in all of these.
KEYS = ("set", "system", "channel", "policy", "snr_db", "seed", "row")


class TableError(ValueError):
    """A table that is missing, damaged, or of another version."""


def make_table(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """A table of rows that hold every column of :data:`SCHEMA`, and no other.

    Raises:
        TableError: naming the columns that are missing or too many.
    """
    for row in rows:
        if row.keys() != SCHEMA.keys():
            odd = sorted(row.keys() ^ SCHEMA.keys())
            raise TableError(f"row with other columns than the table's: {', '.join(odd)}")
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def sort_table(table: pl.DataFrame) -> pl.DataFrame:
    """The table in the order of its keys, however its cells were finished."""
    return table.sort(KEYS, nulls_last=True)


def write_parquet(table: pl.DataFrame, path: Path) -> None:
    """Write a table so that the file is whole or not there."""
    atomic_write(path, lambda file: table.write_parquet(file))


def write_csv(table: pl.DataFrame, path: Path) -> None:
    """Write a table as text, columns as in :data:`SCHEMA`; null is an empty field."""

    def write(file: IO[bytes]) -> None:
        table.write_csv(file)

    atomic_write(path, write)


def read_table(path: Path) -> pl.DataFrame:
    """Read a table written by :func:`write_parquet`.

    Raises:
        TableError: a file that is missing, not Parquet, or has other columns than :data:`SCHEMA`.
    """
    try:
        table = pl.read_parquet(path)
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise TableError(f"{path}: not a table in Parquet ({str(error).splitlines()[0]})") from None
    if dict(table.schema) != SCHEMA:
        odd = sorted(
            name
            for name in table.schema.keys() | SCHEMA.keys()
            if table.schema.get(name) != SCHEMA.get(name)
        )
        raise TableError(
            f"{path}: columns differ from those of this version: {', '.join(odd) or 'their order'}"
        )
    return table
