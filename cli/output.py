"""How every command speaks: tables and progress for people, one JSON object for programs.

With ``--json`` standard output holds exactly one JSON object; everything meant for people (progress,
notes, errors) goes to standard error. rich leaves colours and animations out by itself when its
stream is not a terminal, or when NO_COLOR is set.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.text import Text

# What would move the cursor, colour the terminal or turn the order of letters round.
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_LINE_ENDS = "\u2028\u2029"


def printable(text: str) -> str:
    """Text from outside as a terminal may have it: control characters as escapes, save line breaks, tabs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode()
        if (unicodedata.category(one) == "Cc" and one not in "\n\t") or one in _BIDI + _LINE_ENDS
        else one
        for one in text
    )


class _PlainConsole(Console):
    """A console to which text is text: no markup, no control characters, wherever it comes from."""

    def render_str(self, text: str, **options: Any) -> Text:
        options["markup"] = options["emoji"] = False
        return super().render_str(printable(text), **options)


class OutputError(OSError):
    """A result that cannot be written where it was asked for."""


def make_console(*, stderr: bool = True) -> Console:
    """Console for people.

    Args:
        stderr: write to standard error, so that standard output stays free for the result.
    """
    # Tests and pipes replace the streams after import, so the stream is looked up here.
    stream = sys.stderr if stderr else sys.stdout
    return _PlainConsole(file=stream, soft_wrap=True, highlight=False, markup=False, emoji=False)


_reserved: IO[str] | None = None


def reserve_stdout() -> None:
    """Keep standard output for :func:`print_json` alone, from now to the end of the process.

    GNU Radio and radio drivers print to standard output from C++; what anybody but print_json writes
    there goes to standard error instead.
    """
    global _reserved
    if _reserved is not None:
        return
    sys.stdout.flush()
    _reserved = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)


def print_json(data: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output, on one line.

    Raises:
        ValueError: a number that JSON cannot express (NaN, infinity): the caller must decide what
            an undefined value means, usually null.
    """
    # Built whole before the first character goes out: half an object is worse than none.
    text = json.dumps(data, allow_nan=False, ensure_ascii=False)
    _write(_reserved or sys.stdout, f"{text}\n")


def print_text(text: str) -> None:
    """Print plain text on standard output, closed by a line break."""
    _write(sys.stdout, text if text.endswith("\n") else f"{text}\n")


def _write(stream: IO[str], text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        raise OutputError(f"standard output: cannot write: {error.strerror or error}") from error


def prepare_streams() -> None:
    """Standard output and error that take any text, and are there even where the caller closed them.

    What a terminal cannot show (Latin-1, file names that are not UTF-8) is written as an escape.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
        getattr(sys, name).reconfigure(errors="backslashreplace")


def flush_stdout() -> None:
    """Write out what is still buffered.

    Raises:
        OutputError: it cannot be written; what is left is dropped.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # or Python would fail over it again at its end
        raise OutputError(f"standard output: cannot write: {error.strerror or error}") from error


def atomic_write(path: Path, write: Callable[[IO[bytes]], object] | bytes) -> None:
    """Write a file so that it is either complete or not there at all.

    The content goes to a temporary file in the same folder, which then takes the name. Folders are
    not made: a mistyped path should be an error, not a new folder.

    Args:
        path: the file to write; one that exists is replaced.
        write: the content, or a function that writes it to the open binary file it is given
            (``lambda file: picture.save(file, "PNG")``).

    Raises:
        OutputError: the folder does not exist, is not writable, the disk is full, or the path names
            something that is not an ordinary file.
    """
    target = path.resolve()  # through symbolic links: it is the file behind them that is replaced
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        # Replacing /dev/null or a folder by a file is never what was meant.
        if target.exists() and not target.is_file():
            raise OutputError(f"{path}: exists and is not an ordinary file")
        with temporary.open("xb") as file:
            if isinstance(write, bytes):
                file.write(write)
            else:
                write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # gone already when all went well
            temporary.unlink()


def check_output_file(path: Path) -> Path:
    """Refuse an output file that cannot be written, before any work is done for it.

    Raises:
        OutputError: naming the file and the reason.
    """
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: exists and is not an ordinary file")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise OutputError(f"{path}: its folder does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: its folder is not writable")
    return path


def make_folder(path: Path) -> Path:
    """Make an output folder with its parents; an existing one is fine.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot make this folder: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: this folder is not writable")
    return path
