"""``uoisc send`` and ``uoisc receive``: pictures to a running transmitter and from a running receiver."""

from __future__ import annotations

import secrets
import signal
import time
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.output import atomic_write, make_console, make_folder

if TYPE_CHECKING:
    from rich.console import Console

    from blocks.frame_sender import FrameSender
    from sdr_config.schema import Profile
    from semantic.codec.loader import PictureCodec
    from semantic.codec.settings import EncoderSettings
    from semantic.index_frame import IndexFrame

_POLL_MS = 200
# A worker takes one picture beside the one it works on, so that the rest stays for other workers.
_PICTURES_AHEAD = 1


class ExchangeError(RuntimeError):
    """Pictures that could not be sent."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("send")(send)
    app.command("receive")(receive)


def send(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FRAME|FOLDER|-",
            help="Photos; frames of uoisc encode, sent as they are; folders of either; - for paths on "
            "standard input, one a line.",
        ),
    ],
    query: Annotated[
        str | None,
        typer.Option("--query", "-q", help="What the receiver wants to know; frames have theirs."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Pictures per second at most; default as fast as it goes.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0.0, help="Seconds a picture may wait for the transmitter.")
    ] = 30.0,
    bits_per_pixel: options.BitsPerPixel = None,
    symbols: options.Symbols = None,
    air_time_ms: options.AirTimeMs = None,
    focus: options.Focus = None,
    boxes: options.Boxes = None,
    max_side: options.MaxSide = None,
    profile: options.Profile = "usrp",
    overrides: options.Overrides = None,
) -> None:
    """Encode photos and hand them to the transmitter of a profile (uoisc tx)."""
    from cli.encoder_settings import as_overrides, settings_of
    from semantic.index_frame import check_query

    query = None if query is None else check_query(query)
    if rate is not None and not 0 < rate < float("inf"):
        raise typer.BadParameter("expected a number above 0", param_hint="--rate")
    budget = {
        "codec.bits_per_pixel": bits_per_pixel,
        "codec.symbols": symbols,
        "codec.air_time_ms": air_time_ms,
        "codec.focus": focus,
        "codec.max_side": max_side,
    }
    settings = _load(profile, [*(overrides or []), *as_overrides(budget)])
    encoder = settings_of(settings, boxes)

    from blocks.frame_sender import FrameSender
    from cli.picture_list import list_pictures
    from flowgraphs.keys import profile_keys

    keys = profile_keys(settings)
    pictures = list_pictures(sources)
    first = next(pictures, None)
    if first is None:
        raise ExchangeError("no pictures to send")
    zmq = settings.zmq
    with FrameSender(zmq.frames_in, patience, zmq.send_timeout_ms, keys) as sender:
        run = _Sending(sender, query, settings, encoder)
        run.send(first)
        for path in pictures:
            run.pause(rate)
            run.send(path)
    run.report()


class _Sending:
    """One run of ``uoisc send``: a bad picture does not stop it, but is told of in the end."""

    def __init__(
        self, sender: FrameSender, query: str | None, settings: Profile, encoder: EncoderSettings
    ) -> None:
        self._sender, self._query, self._settings = sender, query, settings
        self._encoder = encoder
        self._address = settings.zmq.frames_in
        # Any number will do as long as the next picture has another: a receiver takes the same number
        # twice in a row for one picture.
        self._frame_id = secrets.randbits(32)
        self._started_s = self._due_s = time.monotonic()
        self._sent = 0
        self._failed: list[Exception] = []
        self._console = make_console()

    @cached_property
    def _codec(self) -> PictureCodec:
        """Loaded with the first photo: frames need none."""
        from cli.encoder_settings import load_codec_of

        return load_codec_of(self._settings)

    def pause(self, per_second: float | None) -> None:
        """Wait for the next picture's turn."""
        if per_second is None:
            return
        now_s = time.monotonic()
        self._due_s = max(self._due_s + 1 / per_second, now_s)
        time.sleep(self._due_s - now_s)

    def send(self, path: Path) -> None:
        """Encode one photo, or read one frame, and hand it over."""
        from cli.picture_list import FRAME_ENDING
        from semantic.index_frame import IndexFrame, IndexFrameError
        from semantic.pictures import PictureError

        is_frame = path.suffix.lower() == FRAME_ENDING
        try:
            frame = IndexFrame.read(path) if is_frame else self._encode(path)
        except (PictureError, IndexFrameError) as error:
            self._failed.append(error)
            self._console.print(f"not sent: {error}", markup=False)
            return
        self._sender.send(frame, self._notice)
        self._sent += 1
        self._console.print(
            f"{path}: picture {frame.frame_id} handed to {self._address}", markup=False
        )

    def _encode(self, path: Path) -> IndexFrame:
        from semantic.pictures import read_picture

        if self._query is None:
            raise typer.BadParameter(f"needed to encode {path}", param_hint="--query")
        with self._console.status(f"{self._sent} sent, encoding"):
            picture = read_picture(path)
            frame = self._codec.encode(picture, self._query, self._encoder, self._frame_id)
        self._frame_id = (self._frame_id + 1) & 0xFFFF_FFFF
        return frame

    def _notice(self) -> None:
        self._console.print(f"waiting for the transmitter at {self._address}", markup=False)

    def report(self) -> None:
        """Say how it went; raises ExchangeError, or the one picture's own error."""
        total = self._sent + len(self._failed)
        if total > 1:
            seconds = time.monotonic() - self._started_s
            self._console.print(
                f"{self._sent} of {total} pictures sent in {seconds:.1f} s", markup=False
            )
        if len(self._failed) == total == 1:
            raise self._failed[0]
        if self._failed:
            raise ExchangeError(
                f"{len(self._failed)} of {total} pictures were not sent, the first: {self._failed[0]}"
            )


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

    from cli.encoder_settings import load_codec_of
    from flowgraphs.keys import profile_keys

    keys = profile_keys(settings)
    make_folder(output)
    codec = load_codec_of(settings, towers=False)

    import zmq

    from blocks.zmq_messages import MessageReader, SocketLimits, open_socket

    console = make_console()
    context = zmq.Context[zmq.Socket[bytes]]()
    reader = MessageReader()
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    done = 0
    try:
        socket = open_socket(
            context,
            zmq.PULL,
            connect=settings.zmq.pictures_out,
            limits=SocketLimits(_PICTURES_AHEAD, settings.zmq.send_timeout_ms),
            keys=keys,
        )
        console.print(f"waiting for pictures from {settings.zmq.pictures_out}", markup=False)
        while not ended and (count is None or done < count):
            if socket.poll(_POLL_MS):
                frame = reader.read(socket, _parse_picture)
                done += frame is not None and _decode(frame, codec, output, console)
    finally:
        context.destroy(linger=0)
    counts = {**reader.to_json(), "slices_damaged": codec.slices_damaged}
    dropped = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
    console.print(f"{done} pictures" + (f", dropped: {dropped}" if dropped else ""), markup=False)


def _parse_picture(parts: list[bytes]) -> IndexFrame:
    from blocks.zmq_messages import TOPIC_PICTURE, unpack_frame

    return unpack_frame(parts, TOPIC_PICTURE)


def _decode(frame: IndexFrame, codec: PictureCodec, folder: Path, console: Console) -> bool:
    """Decode and write one picture; False where it is another codec's."""
    from semantic.index_frame import IndexFrameError

    started = time.monotonic()
    try:
        picture = codec.decode(frame, soft=True)
    except IndexFrameError as error:
        console.print(f"picture {frame.frame_id} dropped: {error}", markup=False)
        return False
    path = folder / f"{frame.frame_id:010}.png"
    atomic_write(path, partial(picture.save, format="PNG"))
    state = "complete" if frame.complete else f"{100 * frame.erased_fraction:.0f} % estimated"
    console.print(f"{path}: {state}, {time.monotonic() - started:.3f} s", markup=False)
    return True


def _load(profile: str, overrides: list[str] | None) -> Profile:
    from sdr_config.load import load_profile

    return load_profile(profile, overrides or [])
