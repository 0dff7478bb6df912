"""Pictures through the real command: encode, decode, loopback, and everything a user can get wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from cli import errors
from cli.main import run
from semantic.codec.vq_codec import load_vq_codec
from semantic.demo_photos import photo_path
from semantic.index_frame import IndexFrame
from semantic.metrics import psnr_db
from semantic.pictures import load_picture, read_picture
from tests.conftest import REPOSITORY, RunCommand

PHOTO = str(photo_path("chelsea"))
QUERY = "Is there a cat?"

# What the issue tracker's acceptance list asks of the report.
REPORT_KEYS = {
    "status",
    "mcs",
    "snr_db",
    "seed",
    "bursts_sent",
    "bursts_detected",
    "fates",
    "code_blocks",
    "code_blocks_ok",
    "index_error_rate",
    "symbols",
    "payload_symbols",
    "bits",
    "bits_per_pixel",
    "snr_db_estimated",
    "cfo_hz_estimated",
    "psnr_db",
    "ms_ssim",
    "encode_s",
    "air_s",
    "decode_s",
    "output",
}
PICTURES = {"source.png", "received.png", "side_by_side.png", "constellation.png"}


def one_line_error(captured_err: str, expected: str) -> None:
    assert re.fullmatch(r"error: [^\n]+\n", captured_err), captured_err
    assert expected in captured_err
    assert "fault in the program" not in captured_err


def png_header_alone(width: int, height: int) -> bytes:
    """A valid PNG that announces a picture and holds almost none of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Content of a good frame.uoisc."""
    path = tmp_path_factory.mktemp("encoded") / "frame.uoisc"
    assert run(["encode", PHOTO, "--query", QUERY, "-o", str(path), "--frame-id", "7"]) == 0
    return path.read_bytes()


def test_encode_writes_a_frame(encoded: bytes) -> None:
    frame = IndexFrame.from_bytes(encoded)
    assert frame.frame_id == 7
    assert frame.query == QUERY
    assert frame.complete


def test_encode_in_another_process_gives_the_same(
    uoisc: RunCommand, tmp_path: Path, encoded: bytes
) -> None:
    result = uoisc("encode", PHOTO, "--query", QUERY, "-o", "frame.uoisc", "--frame-id", "7")
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["frame.uoisc"]
    assert (tmp_path / "frame.uoisc").read_bytes() == encoded


@pytest.mark.parametrize("command", ["encode", "loopback"])
def test_a_search_sends_other_indices_of_the_same_number(
    workplace: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = [PHOTO, "--query", QUERY, "--search-steps", "3", "--search-likeness"]
    named = "--checkpoint" if command == "encode" else "--set"
    checkpoint = [named, "embedded" if command == "encode" else "codec.checkpoint=embedded"]
    codec = load_vq_codec(device="cpu")
    plain = codec.encode(read_picture(Path(PHOTO)), QUERY)
    source = load_picture(Path(PHOTO), codec.image_size)
    before = psnr_db(source, codec.decode(plain))
    found = []
    for likeness in ("0", "50"):
        if command == "encode":
            assert run(["encode", *photo, likeness, *checkpoint, "-o", "frame.uoisc"]) == 0
            frame = IndexFrame.from_bytes((workplace / "frame.uoisc").read_bytes())
            assert frame.geometry == plain.geometry
            found.append(psnr_db(source, codec.decode(frame)))
        else:
            assert run(["loopback", *photo, likeness, *checkpoint, "--snr-db", "20", "--json"]) == 0
            found.append(json.loads(capsys.readouterr().out)["psnr_db"])
    # The more likeness counts, the less pixels do.
    assert found[0] > before + 0.2
    assert found[0] > found[1] + 0.2


def test_decode_writes_the_picture(workplace: Path, encoded: bytes) -> None:
    (workplace / "frame.uoisc").write_bytes(encoded)
    assert run(["decode", "frame.uoisc", "-o", "picture.png"]) == 0
    with Image.open("picture.png") as picture:
        assert picture.mode == "RGB"
        # In its own shape: nothing was cropped.
        assert psnr_db(read_picture(Path(PHOTO)), picture) > 30


def test_decode_for_recognition_shows_another_picture(workplace: Path, encoded: bytes) -> None:
    (workplace / "frame.uoisc").write_bytes(encoded)
    pictures = []
    for purpose in ("fidelity", "recognition"):
        assert run(["decode", "frame.uoisc", "--for", purpose, "-o", f"{purpose}.png"]) == 0
        pictures.append((workplace / f"{purpose}.png").read_bytes())
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize("name", ["picture.jpg", "picture.PNG"])
def test_decode_writes_what_the_name_says(workplace: Path, encoded: bytes, name: str) -> None:
    (workplace / "frame.uoisc").write_bytes(encoded)
    assert run(["decode", "frame.uoisc", "-o", name]) == 0
    with Image.open(workplace / name) as picture:
        picture.load()


@pytest.mark.parametrize("command", ["encode", "loopback"])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("none.png", None, "none.png: no such file"),
        ("text.png", b"just text\n", "text.png: not a picture"),
        ("empty.png", b"", "empty.png: not a picture"),
        ("huge.png", png_header_alone(20_000, 20_000), "huge.png: too large"),
        ("one.png", png_header_alone(1, 1), "one.png: 1x1 pixels, expected at least"),
        ("cut.png", png_header_alone(300, 300), "cut.png: damaged picture"),
        ("li\nne.png", b"", "li ne.png: not a picture"),
        (".", None, "is a folder"),
    ],
    ids=["none", "text", "empty", "huge", "one", "cut", "line", "folder"],
)
def test_pictures_that_are_none(
    command: str,
    name: str,
    content: bytes | None,
    expected: str,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (workplace / name).write_bytes(content)
    output = ["-o", "frame.uoisc"] if command == "encode" else ["--json"]
    assert run([command, name, "--query", QUERY, *output]) == errors.EXIT_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    one_line_error(captured.err, expected)
    assert not (workplace / "frame.uoisc").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--query", ""], "query: is empty"),
        (["--query", "word " * 10_000], "query: 49999 characters, expected at most 1000"),
        (["--query", QUERY, "--profile", "nope"], "profile 'nope': unknown"),
        (["--query", QUERY, "--profile", "usrp"], "expected channel"),
        (["--query", QUERY, "--mcs", "99"], "99 does not fit, expected an integer from 0 to 9"),
        (["--query", QUERY, "--snr-db", "nan"], "channel.snr_db"),
        (["--query", QUERY, "--snr-db", "inf"], "channel.snr_db"),
        (["--query", QUERY, "--fading", "ricean"], "expected one of none, rayleigh, rician"),
        (["--query", QUERY, "--rician-k-db", "3"], "fading is none"),
        (["--query", QUERY, "--cfo-hz", "9e6"], "channel.cfo_hz"),
        (["--query", QUERY, "--taps", "0,0"], "not all zero"),
        (["--query", QUERY, "--seed", "-1"], "channel.seed"),
        (["--query", QUERY, "--set", "codec.checkpoint=none.safetensors"], "none.safetensors"),
        (["--query", QUERY, "--output", PHOTO], "cannot make this folder"),
    ],
)
def test_loopback_mistakes(
    options: list[str], expected: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["loopback", PHOTO, "--json", *options]) == errors.EXIT_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    one_line_error(captured.err, expected)
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda data: data[:-100], "truncated"),
        (lambda data: data[:10], "too short"),
        (lambda data: b"", "too short"),
        (lambda data: data + b"\0", "truncated or extended"),
        (lambda data: data[:2000] + bytes([data[2000] ^ 4]) + data[2001:], "corrupted"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "not an index frame"),
    ],
    ids=["cut", "stump", "empty", "longer", "bit", "foreign"],
)
def test_damaged_frames(
    damage: object,
    expected: str,
    encoded: bytes,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert callable(damage)
    (workplace / "frame.uoisc").write_bytes(damage(encoded))
    assert run(["decode", "frame.uoisc", "-o", "picture.png"]) == errors.EXIT_ERROR
    one_line_error(capsys.readouterr().err, expected)
    assert not (workplace / "picture.png").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["decode", "frame.uoisc", "-o", "picture.xyz"], "expected a name that ends in .png"),
        (["decode", "frame.uoisc", "-o", "picture"], "expected a name that ends in .png"),
        (["decode", "frame.uoisc", "-o", "none/picture.png"], "its folder does not exist"),
        (["decode", "frame.uoisc", "-o", "p.png", "--device", "gpu"], "device 'gpu'"),
        (["decode", "frame.uoisc", "-o", "p.png", "--checkpoint", PHOTO], "chelsea.png: damaged"),
        (["encode", PHOTO, "-q", "x", "-o", "f", "--frame-id", "-1"], "frame_id"),
        (
            ["encode", PHOTO, "-q", "x", "-o", "f", "--checkpoint", "none"],
            "codec 'none': no shipped codec of that name",
        ),
    ],
)
def test_encode_and_decode_mistakes(
    arguments: list[str],
    expected: str,
    encoded: bytes,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (workplace / "frame.uoisc").write_bytes(encoded)
    assert run(arguments) == errors.EXIT_ERROR
    one_line_error(capsys.readouterr().err, expected)
    assert [path.name for path in workplace.iterdir()] == ["frame.uoisc"]


def test_missing_weights(tmp_path: Path) -> None:
    """A copy of the program without its checkpoints, as after an incomplete download."""
    for package in ("blocks", "cli", "flowgraphs", "sdr_config", "semantic"):
        shutil.copytree(
            REPOSITORY / package,
            tmp_path / package,
            ignore=shutil.ignore_patterns("checkpoints", "__pycache__"),
        )
    result = subprocess.run(
        [sys.executable, "-m", "cli.main", "encode", PHOTO, "--query", QUERY, "-o", "f.uoisc"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == errors.EXIT_ERROR
    one_line_error(result.stderr, "codec 'two_layer': no shipped codec of that name")
    assert not (tmp_path / "f.uoisc").exists()


@pytest.fixture
def taken_address() -> Iterator[str]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield f"tcp://127.0.0.1:{other.getsockname()[1]}"


@pytest.mark.parametrize("key", ["frames_in", "pictures_out", "watch_out"])
def test_port_in_use(key: str, taken_address: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["loopback", PHOTO, "--query", QUERY, "--set", f"zmq.{key}={taken_address}"]
    assert run(arguments) == errors.EXIT_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    one_line_error(captured.err, f"{taken_address}: address already in use")


def test_loopback_as_process(uoisc: RunCommand, tmp_path: Path) -> None:
    result = uoisc(
        *("loopback", PHOTO, "--query", QUERY, "--mcs", "4", "--snr-db", "20", "--seed", "3"),
        *("--output", "results", "--json"),
        timeout_s=300,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert set(report) >= REPORT_KEYS
    assert report["status"] == "ok"
    assert report["index_error_rate"] == 0
    assert report["mcs"] == 4
    assert report["seed"] == 3
    assert report["bursts_detected"] == report["bursts_sent"] == sum(report["fates"].values())
    assert report["bursts_detected"] == report["fates"]["decoded"]
    assert report["snr_db_estimated"] == pytest.approx(20, abs=1)
    folder = tmp_path / "results"
    assert {path.name for path in folder.iterdir()} == {*PICTURES, "report.json"}
    assert json.loads((folder / "report.json").read_text()) == report


def test_loopback_that_hears_nothing_says_so(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["loopback", PHOTO, "-q", QUERY, "--snr-db", "-20", "-o", "out", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["status"] == "not_received"
    assert report["psnr_db"] is None
    assert report["ms_ssim"] is None
    assert report["bursts_sent"] > 0
    assert not (workplace / "out" / "received.png").exists()
