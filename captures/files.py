"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from captures.errors import CaptureError


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file beside its name and then rename it.

    Args:
        path: in a folder that exists.
        content: of the file.
        durable: wait until the disk has it; a file that is rewritten every second need not.

    Raises:
        CaptureError: naming the file, when it cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CaptureError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # gone already when all went well
            temporary.unlink()


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """The content of a file that must not be longer than ``most_bytes``.

    Raises:
        CaptureError: naming the file.
    """
    try:
        # A pipe or a device would never end, or wait for ever.
        if not path.is_file():
            reason = "is not an ordinary file" if path.exists() else "no such file"
            raise CaptureError(f"{path}: {reason}")
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise CaptureError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(content) > most_bytes:
        raise CaptureError(f"{path}: longer than {most_bytes} bytes")
    return content
