"""Files that are whole or not there, whoever else writes them at the same time."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO


def atomic_write(path: Path, write: Callable[[IO[bytes]], object] | bytes) -> None:
    """Write a file beside its name, then give it the name; one that exists is replaced.

    Args:
        path: the file; its folder must exist.
        write: the content, or a function that writes it to the open binary file it is given.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            if isinstance(write, bytes):
                file.write(write)
            else:
                write(file)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # gone already when all went well
            temporary.unlink()
