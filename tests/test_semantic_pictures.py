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
from PIL import Image, ImageCms, PngImagePlugin

from semantic.demo_photos import describe_photo, load_photo, photo_names, photo_path
from semantic.pictures import (
    FORMATS,
    MINIMUM_SIDE,
    PictureError,
    load_picture,
    picture_endings,
    read_picture,
    to_rgb,
)

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
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "HSV", "F", "I;16"]
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.full((40, 60), 65535, np.uint16))
    elif mode == "F":
        picture = Image.fromarray(np.full((40, 60), 1, np.float32))
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


RAMP = np.repeat(np.arange(64)[None], 64, axis=0)


def _tiff(folder: Path, levels: np.ndarray, **tags: int) -> Path:
    """A TIFF of these levels, with tags by number."""
    numbers = {int(name.removeprefix("tag")): value for name, value in tags.items()}
    return _save(folder, Image.fromarray(levels), "photo.tiff", tiffinfo=numbers)


@pytest.mark.parametrize(
    ("levels", "tags", "white"),
    [
        ((RAMP * 1040).astype(np.uint16), {}, 65535 / 1040),
        ((RAMP * 65).astype(np.uint16), {"tag281": 4095}, 63),  # 12 bits in 16, and it says so
        ((RAMP * 4).astype(np.int32), {"tag281": 252}, 63),
        ((RAMP / 63).astype(np.float32), {}, 63),
        ((RAMP / 6.3).astype(np.float32), {"tag341": 10}, 63),
    ],
)
def test_levels_are_scaled_by_the_file_s_own_words(
    tmp_path: Path, levels: np.ndarray, tags: dict[str, int], white: float
) -> None:
    found = np.asarray(load_picture(_tiff(tmp_path, levels, **tags), 64))
    np.testing.assert_allclose(found[32, :, 0], np.rint(255 * RAMP[0] / white), atol=1)


def test_white_may_be_zero(tmp_path: Path) -> None:
    path = _tiff(tmp_path, (RAMP * 1040).astype(np.uint16), tag262=0)
    found = np.asarray(load_picture(path, 64))
    np.testing.assert_allclose(found[32, :, 0], 255 - np.rint(RAMP[0] * 1040 / 257), atol=1)


@pytest.mark.parametrize(
    ("levels", "tags", "words"),
    [
        ((RAMP * 1000 - 32000).astype(np.int16), {"tag339": 2}, "signed samples"),
        ((RAMP / 60).astype(np.float32), {}, "float samples from 0 to 1.05"),
        (np.where(RAMP == 5, np.nan, 0.5).astype(np.float32), {}, "no numbers"),
    ],
)
def test_levels_without_a_scale_are_refused(
    tmp_path: Path, levels: np.ndarray, tags: dict[str, int], words: str
) -> None:
    path = _tiff(tmp_path, levels, **tags)
    with pytest.raises(PictureError, match=words) as caught:
        load_picture(path, 64)
    assert str(caught.value).startswith(f"{path}: ")


def test_thirty_two_bits_without_a_scale_are_refused(tmp_path: Path) -> None:
    path = _tiff(tmp_path, (RAMP * 4).astype(np.int32))
    signed, unsigned = (struct.pack("<HHIHH", 339, 3, 1, kind, 0) for kind in (2, 1))
    data = path.read_bytes()
    assert data.count(signed) == 1
    path.write_bytes(data.replace(signed, unsigned))
    with pytest.raises(PictureError, match="32 bits a sample: expected at most 16"):
        read_picture(path)


def test_only_what_is_meant_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript under another name would have Pillow run Ghostscript; HEIC is named."""
    postscript = tmp_path / "photo.png"
    postscript.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\nshowpage\n")
    with pytest.raises(PictureError, match="not a picture"):
        read_picture(postscript)
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
    targa = _save(tmp_path, Image.new("RGB", (40, 40)), "photo.tga")
    with pytest.raises(PictureError, match="not a picture"):
        read_picture(targa)
    heic = tmp_path / "photo.heic"
    heic.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(PictureError, match="is HEIC, which is not read"):
        read_picture(heic)
    assert {".png", ".jpg", ".tif"} <= picture_endings()
    assert not picture_endings() & {".eps", ".tga", ".dds", ".psd"}


def test_a_wide_gamut_is_seen_as_it_is_meant(tmp_path: Path) -> None:
    """The same colour in two spaces comes out the same; without the profile it is 20 levels off."""
    lab = Image.new("LAB", (40, 40), (150, 30, 60))
    srgb = ImageCms.createProfile("sRGB")
    plain = ImageCms.profileToProfile(lab, ImageCms.createProfile("LAB"), srgb, outputMode="RGB")
    assert plain is not None
    linear = _linear_profile()
    wide = ImageCms.profileToProfile(
        plain, srgb, ImageCms.ImageCmsProfile(io.BytesIO(linear)), outputMode="RGB"
    )
    assert wide is not None
    assert np.abs(np.subtract(_centre(wide), _centre(plain))).max() > 20
    path = _save(tmp_path, wide, icc_profile=linear)
    np.testing.assert_allclose(_centre(read_picture(path)), _centre(plain), atol=3)
    # Read twice, it is not changed twice.
    np.testing.assert_array_equal(to_rgb(read_picture(path)), read_picture(path))


def _linear_profile() -> bytes:
    """sRGB's own profile with its curves made straight lines."""
    whole = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(whole[128:132], "big")
    for k in range(count):
        name, offset, _ = struct.unpack_from(">4sII", whole, 132 + 12 * k)
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            assert whole[offset : offset + 4] == b"para"
            # Function type 0, y = x ** 1.
            struct.pack_into(">HHi", whole, offset + 8, 0, 0, 1 << 16)
        if name == b"desc":
            at = whole.find("sRGB".encode("utf-16-be"), offset)
            whole[at : at + 8] = "LINE".encode("utf-16-be")
    return bytes(whole)


def test_the_gamma_of_a_png(tmp_path: Path) -> None:
    """A linear picture says so in a chunk of four bytes."""
    grey = Image.new("RGB", (40, 40), (55, 55, 55))
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    found = _centre(read_picture(_save(tmp_path, grey, pnginfo=info)))
    assert found == (round(255 * (55 / 255) ** (1 / 2.2)),) * 3
    assert _centre(read_picture(_save(tmp_path, grey, "other.png"))) == (55, 55, 55)


def test_orientation_by_its_tag_alone(tmp_path: Path) -> None:
    """Beside a resolution that is text, which Pillow cannot write again."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:10] = 255
    entries = struct.pack(">HHII", 0x0112, 3, 1, 6 << 16) + struct.pack(
        ">HHI4s", 0x011A, 2, 4, b"300"
    )
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + entries + struct.pack(">I", 0)
    found = np.asarray(read_picture(_save(tmp_path, Image.fromarray(pixels), "a.jpg", exif=exif)))
    assert found[20, 35].min() > 250
    assert found[5, 5].max() < 5


def test_large_photos_are_read_no_larger_than_needed(tmp_path: Path) -> None:
    pixels = np.zeros((4200, 4400, 3), np.uint8)
    pixels[:, :2200] = RED
    for name in ("a.png", "a.jpg"):
        found = read_picture(_save(tmp_path, Image.fromarray(pixels), name))
        assert found.size == (2200, 2100)
        assert np.abs(np.subtract(found.getpixel((500, 500)), RED)).max() < 3
    with pytest.raises(PictureError, match="expected at most 10 million"):
        read_picture(tmp_path / "a.png", 10_000_000)


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
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "AVIF", "JPEG2000", "PPM", "DDS"):
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
