"""``uoisc send`` and ``uoisc receive`` as commands, against real sockets."""

from __future__ import annotations

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
    MessageWriter,
    SocketLimits,
    bound_address,
    open_socket,
    unpack_frame,
)
from semantic.codec import load_codec
from semantic.demo_photos import load_photo, photo_path
from semantic.index_frame import IndexFrame

RunCommand = Callable[..., subprocess.CompletedProcess[str]]
LIMITS = SocketLimits(4, 5000)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made = zmq.Context[zmq.Socket[bytes]]()
    yield made
    made.destroy(linger=0)


def test_sent_picture_is_what_the_codec_makes(
    context: zmq.Context[zmq.Socket[bytes]], uoisc: RunCommand
) -> None:
    pull = open_socket(context, zmq.PULL, bind="tcp://127.0.0.1:*", limits=LIMITS)
    query = "Is this a cat?"
    done = uoisc(
        *("send", photo_path("chelsea"), "--query", query),
        *("--set", f"zmq.frames_in={bound_address(pull)}"),
    )
    assert done.returncode == 0, done.stderr
    assert pull.poll(5000)
    frame = unpack_frame(pull.recv_multipart(), TOPIC_FRAME)
    codec = load_codec()
    expected = codec.encode(load_photo("chelsea", codec.image_size), query, rate=codec.rate(None))
    assert frame.query == query
    assert frame.geometry == expected.geometry
    for ours, theirs in zip(frame.indices, expected.indices, strict=True):
        assert np.array_equal(ours, theirs)


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
    codec = load_codec()
    frame = codec.encode(load_photo("coffee", codec.image_size), "Is there a spoon?", 42)
    partial = IndexFrame.from_bits(
        codec.geometry,
        frame.to_bits(),
        frame_id=43,
        erased_bits=np.arange(codec.geometry.payload_bits) < 4000,
    )
    push = open_socket(context, zmq.PUSH, bind="tcp://127.0.0.1:*", limits=LIMITS)
    writer = MessageWriter()
    messages = [
        [b"rubbish"],
        [TOPIC_PICTURE, b"{}", b""],
        writer.pack_frame(TOPIC_PICTURE, frame),
        writer.pack_frame(TOPIC_PICTURE, partial),
    ]
    # The command takes seconds to load; a send waits for it in a thread of its own.
    push.setsockopt(zmq.SNDTIMEO, 60_000)
    sender = threading.Thread(target=lambda: [push.send_multipart(m) for m in messages])
    sender.start()
    done = uoisc(
        *("receive", "--output", tmp_path / "pictures", "--count", "2"),
        *("--set", f"zmq.pictures_out={bound_address(push)}"),
    )
    sender.join(60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("message dropped") == 2
    assert "43.png: 11 % estimated" in done.stderr
    written = np.asarray(Image.open(tmp_path / "pictures" / "0000000042.png"))
    assert np.array_equal(written, np.asarray(codec.decode(frame)))
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
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
