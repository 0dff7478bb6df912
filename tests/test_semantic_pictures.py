"""Any picture becomes an RGB square; anything else is one clear error."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semantic.demo_photos import describe_photo, load_photo, photo_names, photo_path
from semantic.pictures import MINIMUM_SIDE, PictureError, load_picture

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def _save(folder: Path, picture: Image.Image, name: str = "photo.png", **options: object) -> Path:
    path = folder / name
    picture.save(path, **options)
    return path


def _centre(picture: Image.Image) -> tuple[int, ...]:
    value = picture.getpixel((picture.width // 2, picture.height // 2))
    assert isinstance(value, tuple)
    return value


def _png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds no pixels worth the name."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    if mode in ("I", "I;16"):
        picture = Image.fromarray(np.full((40, 60), 65535, np.uint16)).convert(mode)
    elif mode == "F":
        picture = Image.fromarray(np.full((40, 60), 255, np.float32))
    else:
        picture = Image.new("RGB", (60, 40), WHITE).convert(mode)
    found = load_picture(
        _save(tmp_path, picture, "photo.tiff")
        if mode != "HSV"
        else _save(tmp_path, picture.convert("RGB")),
        32,
    )
    assert found.mode == "RGB"
    assert found.size == (32, 32)
    assert min(_centre(found)) >= 253


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 65535, 64).astype(np.uint16)[None], 64, axis=0)
    found = np.asarray(load_picture(_save(tmp_path, Image.fromarray(ramp)), 64))
    np.testing.assert_allclose(found[32, :, 0], np.rint(ramp[0] / 257), atol=1)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    assert _centre(load_picture(_save(tmp_path, clear), 32)) == WHITE
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([255, 0, 0] + [0] * 765)
    found = load_picture(_save(tmp_path, palette, transparency=0), 32)
    assert _centre(found) == WHITE


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, WHITE)]
    path = tmp_path / "moving.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert _centre(load_picture(path, 32)) == RED


def test_exif_orientation(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:10] = 255  # white on top
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: the top goes to the right
    path = _save(tmp_path, Image.fromarray(pixels), exif=exif.tobytes())
    found = np.asarray(load_picture(path, 40))
    assert found[20, 35].min() > 250
    assert found[5, 5].max() < 5


def test_centre_crop(tmp_path: Path) -> None:
    pixels = np.zeros((50, 150, 3), np.uint8)
    pixels[:, 50:100] = RED
    found = np.asarray(load_picture(_save(tmp_path, Image.fromarray(pixels)), 50))
    assert (found == np.array(RED)).all()


def test_bad_files_are_one_clear_error(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("this is no picture")
    empty = tmp_path / "empty.png"
    empty.touch()
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        whole, "PNG"
    )
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    huge, large = tmp_path / "huge.png", tmp_path / "large.png"
    huge.write_bytes(_png_header(20_000, 20_000))
    large.write_bytes(_png_header(9_000, 9_000))
    tiny = _save(tmp_path, Image.new("RGB", (1, 1)), "tiny.png")
    cases = {
        tmp_path / "absent.png": "no such file",
        tmp_path: "is a folder",
        text: "not a picture",
        empty: "not a picture",
        truncated: "damaged",
        huge: "expected at most 64 million",
        large: "9000x9000 pixels, expected at most 64 million",
        tiny: f"1x1 pixels, expected at least {MINIMUM_SIDE}x{MINIMUM_SIDE}",
    }
    for path, expected in cases.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(PictureError) as caught:
                load_picture(path, 160)
        assert str(path) in str(caught.value)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)


def test_damaged_files_never_raise_anything_else(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    source = load_photo("coffee", 96)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = io.BytesIO()
        source.save(whole, kind)
        for _ in range(30):
            data = bytearray(whole.getvalue())
            for place in random.integers(0, min(len(data), 400), 4):
                data[place] = random.integers(256)
            path = tmp_path / "damaged.bin"
            path.write_bytes(data[: random.integers(10, len(data) + 1)])
            with contextlib.suppress(PictureError):
                assert load_picture(path, 32).size == (32, 32)


def test_the_seven_demo_photos_lie_in_their_wheels() -> None:
    assert len(photo_names()) == 7
    for name in photo_names():
        assert photo_path(name).is_file()
        assert load_photo(name, 160).size == (160, 160)
        first, second = describe_photo(name).questions
        assert first != second
        assert describe_photo(name).credit
