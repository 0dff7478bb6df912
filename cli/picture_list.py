"""Which pictures ``uoisc send`` sends: files, folders, or a list of paths on standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

STANDARD_INPUT = "-"
# Of index frames (uoisc encode), which are sent as they are.
FRAME_ENDING = ".uoisc"


def list_pictures(sources: Iterable[str], lines: Iterable[str] | None = None) -> Iterator[Path]:
    """Paths of pictures, in the order they are to be sent.

    A folder stands for the picture files and index frames right in it, by name, as far as their names'
    endings tell; hidden files are left out. ``-`` stands for the paths on standard input, one a line,
    each as soon as it comes: whoever writes them may take his time. Nothing is opened here.

    Args:
        sources: paths, or ``-``.
        lines: in place of standard input.

    Raises:
        PictureError: a folder without pictures, or that cannot be read.
    """
    for source in sources:
        if source == STANDARD_INPUT:
            for line in sys.stdin if lines is None else lines:
                if path := line.rstrip("\r\n"):
                    yield Path(path)
        elif Path(source).is_dir():
            yield from _in_folder(Path(source))
        else:
            yield Path(source)


def _in_folder(folder: Path) -> list[Path]:
    from semantic.pictures import PictureError, picture_endings

    endings = picture_endings() | {FRAME_ENDING}
    try:
        found = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in endings and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise PictureError(f"{folder}: {error.strerror}") from None
    if not found:
        raise PictureError(f"{folder}: no pictures in this folder (PNG, JPEG, WebP, TIFF, ...)")
    return found
