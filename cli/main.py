"""The ``uoisc`` command.

One command, one module: each has a ``register(app)`` that adds its function to the app. What is slow to
load (torch, GNU Radio, Numba) is imported inside the functions, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from cli import (
    benchmark,
    captures,
    config,
    decode,
    demo,
    doctor,
    encode,
    evaluate,
    exchange,
    grc_path,
    keys,
    loopback,
    plot,
    radio,
    record,
    replay,
    rungs,
    train,
)
from cli.errors import report_error
from cli.output import flush_stdout, prepare_streams, reserve_stdout

app = typer.Typer(
    name="uoisc",
    help="Sends what the user asked about in a photo over real radio.",
    add_completion=False,
    # Errors become one line in cli.errors, not a framed traceback.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of the help.
_COMMANDS = (
    *(demo, loopback, encode, decode, radio, exchange, keys),
    *(record, replay, captures),
    *(train, rungs, evaluate, plot, benchmark, doctor, config, grc_path),
)
for _module in _COMMANDS:
    _module.register(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: what stands after ``uoisc``; nothing means ``--help``.

    Returns:
        The exit code: 0 well, 1 an error, 2 wrong usage, 130 interrupted.
    """
    try:
        code = app(args=list(arguments) or ["--help"], prog_name="uoisc", standalone_mode=False)
        flush_stdout()
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the one place that reports them
        return report_error(error)
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """Entry point of the console script."""
    # A notebook's would not even let matplotlib be imported elsewhere; files need none but this one.
    os.environ["MPLBACKEND"] = "agg"
    prepare_streams()
    arguments = sys.argv[1:]
    if "--json" in arguments:
        reserve_stdout()
    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
