"""``uoisc send`` and ``uoisc receive`` as commands, against real sockets."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from PIL import Image

from blocks.zmq_messages import (
    TOPIC_FRAME,
    TOPIC_PICTURE,
    TOPIC_READY,
    TOPIC_RECEIPT,
    MessageWriter,
    SocketLimits,
    bound_address,
    open_socket,
    unpack_frame,
)
from blocks.zmq_security import load_keys
from cli.encoder_settings import settings_of
from cli.picture_list import list_pictures
from sdr_config.load import load_profile
from semantic.codec.loader import EncoderSettings, load_codec
from semantic.codec.vq_codec import load_vq_codec
from semantic.demo_photos import load_photo, photo_path
from semantic.geometries import CHECKPOINT_FOLDER, read_geometries
from semantic.index_frame import IndexFrame
from semantic.pictures import read_picture
from tests.link_parts import random_frame

RunCommand = Callable[..., subprocess.CompletedProcess[str]]
LIMITS = SocketLimits(4, 5000)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made = zmq.Context[zmq.Socket[bytes]]()
    yield made
    made.destroy(linger=0)


class Transmitter:
    """The transmitter's end of the socket: keeps what comes, and answers.

    Args:
        outcomes: of the first messages; of all that follow "sent". None: no answer.
    """

    def __init__(self, *outcomes: str | None) -> None:
        self.frames: list[IndexFrame] = []
        self._outcomes = list(outcomes)
        self._ended = threading.Event()
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._socket = open_socket(
            self._context, zmq.ROUTER, bind="tcp://127.0.0.1:*", limits=LIMITS
        )
        self.address = f"zmq.frames_in={bound_address(self._socket)}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        writer = MessageWriter()
        while not self._ended.is_set():
            if not self._socket.poll(20):
                continue
            peer, *parts = self._socket.recv_multipart()
            self.frames.append(unpack_frame(parts, TOPIC_FRAME))
            outcome = self._outcomes.pop(0) if self._outcomes else "sent"
            if outcome is not None:
                header = {"of": json.loads(parts[1])["seq"], "outcome": outcome, "detail": "why"}
                self._socket.send_multipart([peer, *writer.pack(TOPIC_RECEIPT, header)])

    def __enter__(self) -> Transmitter:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._context.destroy(linger=0)


def test_sent_picture_is_what_the_codec_makes(uoisc: RunCommand) -> None:
    query = "Is this a cat?"
    with Transmitter() as transmitter:
        done = uoisc("send", photo_path("chelsea"), "--query", query, "--set", transmitter.address)
    assert done.returncode == 0, done.stderr
    (frame,) = transmitter.frames
    settings = settings_of(load_profile("usrp"))
    assert settings.base_copies
    expected = load_codec().encode(read_picture(photo_path("chelsea")), query, settings)
    assert frame.query == query
    assert frame.geometry == expected.geometry
    assert np.array_equal(frame.to_bits(), expected.to_bits())
    for ours, theirs in zip(frame.indices, expected.indices, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_folder_is_sent_in_order_and_a_bad_picture_does_not_stop_it(
    uoisc: RunCommand, tmp_path: Path
) -> None:
    """A folder, a file after it, and a list on standard input; the codec is loaded once for all."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("c.png", "a.png"):
        Image.new("RGB", (64, 64), {"a": "red", "c": "blue"}[name[0]]).save(folder / name)
    (folder / "b.png").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("not sent")
    (folder / ".hidden.png").write_bytes(b"")
    with Transmitter() as transmitter:
        done = uoisc(
            *("send", folder, photo_path("chelsea"), tmp_path / "none.png", "--query", "a colour"),
            *("--rate", "20", "--set", transmitter.address),
        )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    handed = [Path(line.split(": ")[0]).name for line in lines if " sent by " in line]
    assert handed == ["a.png", "c.png", "chelsea.png"]
    assert [line.startswith("not sent: ") for line in lines].count(True) == 2
    assert lines[-2].startswith("3 of 5 pictures sent in ")
    assert lines[-1].startswith("error: 2 of 5 pictures were not sent, the first: ")
    assert "b.png: not a picture" in lines[-1]
    frames = transmitter.frames
    # One number after the other: a receiver takes the same number twice for one picture.
    first = frames[0].frame_id
    assert [frame.frame_id for frame in frames] == [(first + n) % 2**32 for n in range(3)]


def test_frames_of_files_get_new_numbers_and_need_no_question(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from cli import encoder_settings
    from cli.main import run

    def no_codec(*_: object, **__: object) -> None:
        raise AssertionError("the codec was loaded")

    monkeypatch.setattr(encoder_settings, "load_codec_of", no_codec)
    geometry = read_geometries(CHECKPOINT_FOLDER / "embedded.json")[-1]
    random = np.random.default_rng(0)
    indices = tuple(
        random.integers(0, 256, (layer.tokens, layer.segments)).astype(np.uint16)
        for layer in geometry.layers
    )
    frame = IndexFrame(77, geometry, indices, "Is there a dog?")
    (tmp_path / "one.uoisc").write_bytes(frame.to_bytes())
    (tmp_path / "three.uoisc").write_bytes(frame.to_bytes())
    (tmp_path / "two.uoisc").write_bytes(frame.to_bytes()[:-5])
    with Transmitter() as transmitter:
        assert run(["send", str(tmp_path), "--set", transmitter.address]) == 1
        assert "1 of 3 pictures were not sent" in capsys.readouterr().err
    one, other = transmitter.frames
    # Two files of one number are two pictures.
    assert other.frame_id == (one.frame_id + 1) % 2**32
    for sent in (one, other):
        assert sent.query == "Is there a dog?"
        for ours, theirs in zip(sent.indices, frame.indices, strict=True):
            assert np.array_equal(ours, theirs)
    with Transmitter() as transmitter:
        words = ["send", str(tmp_path / "one.uoisc"), str(tmp_path / "three.uoisc")]
        assert run([*words, "--keep-numbers", "--set", transmitter.address]) == 1
        assert "three.uoisc: has number 77, as " in capsys.readouterr().err
    assert [frame.frame_id for frame in transmitter.frames] == [77]
    # A photo cannot do without.
    with Transmitter() as transmitter:
        assert run(["send", str(photo_path("chelsea")), "--set", transmitter.address]) == 2
    assert "needed to encode" in capsys.readouterr().err


def test_what_became_of_every_picture_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused ones with the reason; what has no receipt at the end may or may not have been sent."""
    from cli.main import run

    for number in range(12):
        (tmp_path / f"{number:02}.uoisc").write_bytes(random_frame(number).to_bytes())
    with Transmitter("sent", "refused", "replayed", "given_up", *[None] * 10) as transmitter:
        words = ["send", str(tmp_path), "--patience", "0.5", "--set", transmitter.address]
        assert run(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0][-8:] for line in lines if " sent by " in line] == [
        "00.uoisc",
        "02.uoisc",
    ]
    told = [line.split(".uoisc: ")[1] for line in lines if line.startswith("not sent: ")]
    assert told == [
        "refused: why",
        "given up: why",
        *["no receipt, it may have been sent"] * 4,
        "not taken",
    ]
    assert "2 pictures sent, 7 not, the rest not tried: nobody takes pictures" in lines[-1]


def test_send_where_nobody_listens(uoisc: RunCommand) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = uoisc(
        *("send", photo_path("chelsea"), "--query", "a cat"),
        *("--set", f"zmq.frames_in=tcp://127.0.0.1:{port}", "--patience", "0.3"),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: nobody takes pictures")
    assert len(done.stderr.strip().splitlines()) == 1


def test_received_pictures_are_written_and_rubbish_is_dropped(
    context: zmq.Context[zmq.Socket[bytes]], uoisc: RunCommand, tmp_path: Path
) -> None:
    codec = load_vq_codec()
    frame = codec.encode(
        load_photo("coffee", codec.image_size),
        "Is there a spoon?",
        EncoderSettings(bits_per_pixel=2),
        42,
    )
    partial = IndexFrame.from_bits(
        codec.geometry,
        frame.to_bits(),
        frame_id=43,
        erased_bits=np.arange(codec.geometry.payload_bits) < 4000,
    )
    router = open_socket(context, zmq.ROUTER, bind="tcp://127.0.0.1:*", limits=LIMITS)
    writer = MessageWriter()
    messages = [
        [b"rubbish"],
        [TOPIC_PICTURE, b"{}", b""],
        writer.pack_frame(TOPIC_PICTURE, frame),
        writer.pack_frame(TOPIC_PICTURE, partial),
        # A number that comes round again: another picture.
        writer.pack_frame(TOPIC_PICTURE, frame),
    ]
    said = []

    def hand_on() -> None:
        """One message for each that the command asks for; it takes seconds to load."""
        waiting = list(messages)
        while router.poll(60_000):
            peer, topic, header, _ = router.recv_multipart()
            ready = json.loads(header)
            said.append((topic, ready["count"], ready["done"]))
            for _ in range(ready["count"]):
                if waiting:
                    router.send_multipart([peer, *waiting.pop(0)])
            if sum(len(done) for _, _, done in said) == 3:
                return

    sender = threading.Thread(target=hand_on)
    sender.start()
    done = uoisc(
        *("receive", "--output", tmp_path / "pictures", "--count", "3"),
        *("--set", f"zmq.pictures_out={bound_address(router)}"),
    )
    sender.join(60)
    assert not sender.is_alive()
    assert said[0] == (TOPIC_READY, 2, [])
    assert [number for _, _, numbers in said for number in numbers] == [0, 1, 2]
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("message dropped") == 2
    assert "43.png: 11 % estimated" in done.stderr
    written = np.asarray(Image.open(tmp_path / "pictures" / "0000000042.png"))
    assert np.array_equal(written, np.asarray(codec.decode(frame)))
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "0000000042-1.png",
        "0000000042.png",
        "0000000043.png",
    ]


def test_receive_ends_in_order_on_ctrl_c(tmp_path: Path) -> None:
    import signal

    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "receive", "--output", str(tmp_path)],
        cwd=Path(__file__).parents[1],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("waiting for pictures")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["send", "empty", "--query", "x"], 1, "empty: no pictures in this folder"),
        (["send", "-", "--query", "x"], 1, "no pictures to send"),
        (["send", "a.png", "--query", "x", "--rate", "0"], 2, "expected a number above 0"),
        (["send", "a.png", "--query", "x", "--rate", "nan"], 2, "expected a number above 0"),
        (["send", "a.png", "--query", "x", "--set", "zmq.keys.own=none"], 1, "none: No such file"),
        (["receive", "-o", "out", "--set", "zmq.keys.own=none"], 1, "none: No such file"),
        (["keys", "new", "--name", "a/b"], 2, "expected a plain name"),
    ],
)
def test_mistakes_are_told_before_the_codec_is_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    from cli import encoder_settings
    from cli.main import run

    def no_codec(*_: object, **__: object) -> None:
        raise AssertionError("the codec was loaded")

    monkeypatch.setattr(encoder_settings, "load_codec_of", no_codec)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(arguments) == code
    assert expected in capsys.readouterr().err


def test_list_of_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.PNG", "a.jpg", "c.webp", "d.txt", ".e.png"):
        (folder / name).touch()
    (folder / "f.png").mkdir()
    names = [path.name for path in list_pictures([str(folder), "x.png", str(folder / "b.PNG")])]
    assert names == ["a.jpg", "b.PNG", "c.webp", "x.png", "b.PNG"]
    lines = iter(["one.png\n", "\n", " two words.png\r\n", "three.png"])
    found = list_pictures(["-"], lines)
    assert next(found) == Path("one.png")  # before the next line is there
    assert next(lines) == "\n"
    assert [str(path) for path in found] == [" two words.png", "three.png"]


def test_new_keys(uoisc: RunCommand, tmp_path: Path) -> None:
    done = uoisc("keys", "new", "--name", "bench", "-o", "here")
    assert done.returncode == 0, done.stderr
    keys = load_keys(str(tmp_path / "here" / "bench.key_secret"))
    assert done.stdout == f"{keys.public.decode()}\n"
    assert keys.secret.decode() not in done.stdout + done.stderr
    again = uoisc("keys", "new", "--name", "bench", "-o", "here")
    assert again.returncode == 1
    assert again.stderr == "error: here/bench.key: exists and is not replaced\n"
