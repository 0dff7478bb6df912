"""``uoisc send`` and ``uoisc receive``: pictures to a running transmitter and from a running receiver."""

from __future__ import annotations

import secrets
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.output import atomic_write, make_console, make_folder

if TYPE_CHECKING:
    from rich.console import Console

    from sdr_config.schema import Profile
    from semantic.codec import Codec
    from semantic.index_frame import IndexFrame

_POLL_MS = 200


class ExchangeError(RuntimeError):
    """Nobody takes what is sent."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("send")(send)
    app.command("receive")(receive)


def send(
    image: options.Image,
    query: options.Query,
    profile: options.Profile = "usrp",
    overrides: options.Overrides = None,
) -> None:
    """Encode a photo and hand it to the transmitter of a profile (uoisc tx)."""
    from semantic.index_frame import MAX_FRAME_ID, check_query

    query = check_query(query)
    settings = _load(profile, overrides)

    from semantic.pictures import load_picture

    console = make_console()
    codec = _codec(settings)
    # Any number will do as long as the next picture has another: a receiver takes the same number
    # twice in a row for one picture.
    frame = codec.encode(
        load_picture(image, codec.image_size),
        query,
        secrets.randbelow(MAX_FRAME_ID + 1),
        rate=codec.rate(settings.codec.bits_per_pixel),
    )
    _hand_over(frame, settings)
    console.print(f"picture {frame.frame_id} handed to {settings.zmq.frames_in}", markup=False)


def _hand_over(frame: IndexFrame, settings: Profile) -> None:
    import zmq

    from blocks.zmq_messages import TOPIC_FRAME, MessageWriter, SocketLimits, open_socket

    timeout_ms = settings.zmq.send_timeout_ms
    context = zmq.Context[zmq.Socket[bytes]]()
    try:
        socket = open_socket(
            context,
            zmq.PUSH,
            connect=settings.zmq.frames_in,
            limits=SocketLimits(settings.zmq.high_water_mark, timeout_ms),
        )
        # What is sent is on its way when the socket closes, not yet at its end.
        socket.setsockopt(zmq.LINGER, timeout_ms)
        try:
            socket.send_multipart(MessageWriter().pack_frame(TOPIC_FRAME, frame))
        except zmq.Again:
            raise ExchangeError(
                f"nobody takes pictures at {settings.zmq.frames_in}: is uoisc tx running with this profile?"
            ) from None
        socket.close()
        context.term()
    finally:
        context.destroy(linger=0)


def receive(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")],
    profile: options.Profile = "usrp",
    count: Annotated[
        int | None, typer.Option(min=1, help="End after this many pictures; default Ctrl-C.")
    ] = None,
    overrides: options.Overrides = None,
) -> None:
    """Decode what the receiver of a profile (uoisc rx) hands on; several may share the work."""
    settings = _load(profile, overrides)
    make_folder(output)
    codec = _codec(settings, towers=False)

    import zmq

    from blocks.zmq_messages import SocketLimits, open_socket

    console = make_console()
    context = zmq.Context[zmq.Socket[bytes]]()
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        socket = open_socket(
            context,
            zmq.PULL,
            connect=settings.zmq.pictures_out,
            limits=SocketLimits(settings.zmq.high_water_mark, settings.zmq.send_timeout_ms),
        )
        console.print(f"waiting for pictures from {settings.zmq.pictures_out}", markup=False)
        done = 0
        while not ended and (count is None or done < count):
            if socket.poll(_POLL_MS):
                done += _take(socket.recv_multipart(), codec, output, console)
    finally:
        context.destroy(linger=0)


def _take(parts: list[bytes], codec: Codec, folder: Path, console: Console) -> int:
    """Decode and write one message; 1 where it was a picture, 0 where it was dropped."""
    from blocks.zmq_messages import TOPIC_PICTURE, MessageError, unpack_frame
    from semantic.index_frame import IndexFrameError

    try:
        frame = unpack_frame(parts, TOPIC_PICTURE)
        started = time.monotonic()
        picture = codec.decode(frame, soft=True)
    except (MessageError, IndexFrameError) as error:
        console.print(f"message dropped: {error}", markup=False)
        return 0
    path = folder / f"{frame.frame_id:010}.png"
    atomic_write(path, partial(picture.save, format="PNG"))
    state = "complete" if frame.complete else f"{100 * frame.erased_fraction:.0f} % estimated"
    console.print(f"{path}: {state}, {time.monotonic() - started:.3f} s", markup=False)
    return 1


def _load(profile: str, overrides: list[str] | None) -> Profile:
    from sdr_config.load import load_profile

    return load_profile(profile, overrides or [])


def _codec(settings: Profile, *, towers: bool = True) -> Codec:
    from semantic.codec import load_codec

    wanted = settings.codec
    return load_codec(
        None if wanted.checkpoint == "embedded" else Path(wanted.checkpoint),
        wanted.device,
        towers=towers,
        amp=wanted.bf16,
        compiled=wanted.compiled,
    )
