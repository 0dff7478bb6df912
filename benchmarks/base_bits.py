"""What the prior of the base layer's indices saves: bits of a photo's tokens beside their fixed length.

Run as::

    python -m benchmarks.base_bits FOLDER QUESTIONS
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.bootstrap import PhotoMean
from semantic.asked_photos import read_photos
from semantic.codec.detail_checkpoint import load_two_layer
from semantic.pictures import load_picture

_SIDE = 160


def main(data: Path, questions: Path) -> None:
    """One line over all photos of a listing, each asked its first question."""
    codec = load_two_layer()
    rows = list({row.file: row for row in reversed(read_photos(data, questions))}.values())
    found = [codec.base_bits(load_picture(row.file, _SIDE), row.question) for row in rows]
    coded, fixed = [bits for bits, _ in found], found[0][1]
    mean = PhotoMean.of(coded, list(range(len(coded))), 0)
    assert mean is not None
    low, high = mean.ci95
    print(
        f"{len(coded)} photos of {_SIDE}x{_SIDE}, bits of base indices: {mean.mean:.0f} ({low:.0f} to "
        f"{high:.0f}; single photos {min(coded):.0f} to {max(coded):.0f}), in a fixed length {fixed}"
    )


if __name__ == "__main__":
    main(*(Path(text) for text in sys.argv[1:3]))
