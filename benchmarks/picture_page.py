"""A page of pictures to look at: the codec's two heads and other coders in as many bytes.

Run as::

    python -m benchmarks.picture_page FOLDER QUESTIONS PAGE.png [BITS_PER_PIXEL]
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from benchmarks.rivals import code_photos
from semantic.asked_photos import read_photos
from semantic.codec.loader import load_codec
from semantic.codec.settings import EncoderSettings
from semantic.pictures import load_picture

_SIDE, _GAP, _LINE = 160, 6, 16
_ROWS = 6
_RIVALS = ("jpeg2000", "avif")


def draw_page(data: Path, questions: Path, bits_per_pixel: float) -> Image.Image:
    """Six photos, evenly spread over a listing, one row each.

    Args:
        data: folder of photos.
        questions: JSON lines with image and question.
        bits_per_pixel: of every picture.

    Raises:
        PhotosError: a listing that is missing or malformed.
        ValueError: a rival that cannot code a photo in so few bytes.
    """
    rows = read_photos(data, questions, limit=_ROWS)
    near, shown = (load_codec(decode_for=p) for p in ("fidelity", "recognition"))
    photos = {row.file: near.prepare(load_picture(row.file, _SIDE)) for row in rows}
    size = int(bits_per_pixel * _SIDE**2) // 8
    others = [code_photos(photos, name, size, container=False) for name in _RIVALS]
    titles = ["photo", "fidelity", "recognition", *_RIVALS]
    step = _SIDE + _GAP
    page = Image.new("RGB", (step * len(titles), _LINE + (step + _LINE) * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        draw.text((step * column, 2), title, "black")
    for number, row in enumerate(rows):
        top = _LINE + (step + _LINE) * number
        draw.text((0, top + 2), row.question, "black")
        frame = near.encode(photos[row.file], row.question, EncoderSettings(bits=8 * size))
        pictures = [photos[row.file], near.decode(frame), shown.decode(frame)]
        for name, other in zip(_RIVALS, others, strict=True):
            if other is None:
                raise ValueError(f"{name} cannot code every photo in {size} bytes")
            pictures.append(other.pictures[row.file])
        for column, picture in enumerate(pictures):
            page.paste(picture, (step * column, top + _LINE))
    return page


if __name__ == "__main__":
    folder, listing, output = (Path(text) for text in sys.argv[1:4])
    draw_page(folder, listing, float(sys.argv[4]) if len(sys.argv) > 4 else 0.1).save(output)
