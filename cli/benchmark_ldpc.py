"""``uoisc benchmark ldpc``: encoder and decoder against independent test vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.output import make_console, print_json

if TYPE_CHECKING:
    from blocks.modem.ldpc_vectors import VectorReport


def ldpc(
    vectors: Annotated[Path, typer.Option(help="Test vectors (.npz), see docs/waveform.md.")],
    json: options.Json = False,
) -> None:
    """Check the LDPC encoder and decoder against a file of test vectors."""
    from blocks.modem.ldpc_vectors import check_vector_file

    with make_console().status("encoding and decoding"):
        report = check_vector_file(vectors)
    if json:
        print_json(report.to_json())
    else:
        _print_table(report)
    if not report.all_ok:
        raise typer.Exit(1)


def _print_table(report: VectorReport) -> None:
    from rich.table import Table

    table = Table("case", "base graph", "lifting size", "encoder", "decoder")
    for case in report.cases:
        table.add_row(
            case.name,
            str(case.base_graph),
            str(case.lifting_size),
            "ok" if case.encode_ok else "FAILED",
            "ok" if case.decode_ok else "FAILED",
        )
    make_console(stderr=False).print(table)
