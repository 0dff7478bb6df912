"""``uoisc send`` and ``uoisc receive``: pictures to a running transmitter and from a running receiver."""

from __future__ import annotations

import itertools
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.output import atomic_write, make_console, make_folder

if TYPE_CHECKING:
    from rich.console import Console

    from blocks.frame_sender import FrameSender, NobodyTakesError, Receipt
    from sdr_config.schema import Profile
    from semantic.codec.loader import PictureCodec
    from semantic.codec.settings import EncoderSettings
    from semantic.index_frame import IndexFrame

_POLL_MS = 200
_LISTEN_S = 0.02
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
    keep_numbers: Annotated[
        bool,
        typer.Option(
            "--keep-numbers",
            help="Frames keep the numbers of their files, as for record --sent; by default every picture "
            "gets a new one.",
        ),
    ] = False,
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
    run = _Sending(query, settings, encoder, keep_numbers)
    with FrameSender(settings.zmq.frames_in, patience, run.told, keys) as sender:
        run.send_all(sender, itertools.chain([first], pictures), rate)
    run.report()


class _Sending:
    """One run of ``uoisc send``: a bad picture does not stop it, but is told of in the end."""

    def __init__(
        self,
        query: str | None,
        settings: Profile,
        encoder: EncoderSettings,
        keep_numbers: bool,
    ) -> None:
        self._query, self._settings, self._encoder = query, settings, encoder
        self._keep_numbers = keep_numbers
        self._kept: dict[int, Path] = {}  # numbers that files brought with them
        self._address = settings.zmq.frames_in
        # A receiver takes the same number twice for one picture: every run begins anywhere and counts up.
        self._frame_id = secrets.randbits(32)
        self._started_s = self._due_s = time.monotonic()
        self._sent = 0
        self._failed: list[Exception] = []
        self._paths: dict[int, Path] = {}  # of the frames that wait for a receipt
        self._gave_up: NobodyTakesError | None = None
        self._console = make_console()

    @cached_property
    def _codec(self) -> PictureCodec:
        """Loaded with the first photo: frames need none."""
        from cli.encoder_settings import load_codec_of

        return load_codec_of(self._settings)

    def send_all(self, sender: FrameSender, paths: Iterator[Path], rate: float | None) -> None:
        """Hand pictures over, at most ``rate`` per second, and wait for the last receipt."""
        from blocks.frame_sender import NobodyTakesError

        try:
            for path in _listening(paths, sender):
                self._pause(sender, rate)
                frame = self._make(path)
                if frame is not None:
                    self._paths[frame.frame_id] = path
                    sender.send(frame, self._notice)
            sender.finish(self._notice)
        except NobodyTakesError as error:
            if self._sent + len(self._failed) == 0 and len(self._paths) == 1:
                raise
            for frame_id, path in self._paths.items():
                handed = frame_id in sender.waiting
                self._fail(path, "no receipt, it may have been sent" if handed else "not taken")
            self._gave_up = error

    def told(self, receipt: Receipt) -> None:
        """What became of a frame."""
        path = self._paths.pop(receipt.frame_id)
        if not receipt.sent:
            self._fail(path, receipt.reason)
            return
        self._sent += 1
        self._console.print(
            f"{path}: sent by {self._address} as picture {receipt.frame_id}", markup=False
        )

    def _pause(self, sender: FrameSender, per_second: float | None) -> None:
        """Wait for the picture's turn; the first one's is now."""
        if per_second is None:
            return
        sender.listen(self._due_s - time.monotonic())
        self._due_s = max(self._due_s, time.monotonic()) + 1 / per_second

    def _make(self, path: Path) -> IndexFrame | None:
        """Encode one photo, or read one frame, and give it the next number; None where that fails."""
        from cli.picture_list import FRAME_ENDING
        from semantic.index_frame import MAX_FRAME_ID, IndexFrame, IndexFrameError
        from semantic.pictures import PictureError

        is_frame = path.suffix.lower() == FRAME_ENDING
        try:
            frame = IndexFrame.read(path) if is_frame else self._encode(path)
        except (PictureError, IndexFrameError) as error:
            self._failed.append(error)
            self._console.print(f"not sent: {error}", markup=False)
            return None
        if is_frame and self._keep_numbers:
            other = self._kept.setdefault(frame.frame_id, path)
            if other != path or frame.frame_id in self._paths:
                self._fail(path, f"has number {frame.frame_id}, as {other}")
                return None
            return frame
        numbered = replace(frame, frame_id=self._frame_id)
        self._frame_id = (self._frame_id + 1) & MAX_FRAME_ID
        return numbered

    def _encode(self, path: Path) -> IndexFrame:
        from semantic.pictures import read_picture

        if self._query is None:
            raise typer.BadParameter(f"needed to encode {path}", param_hint="--query")
        with self._console.status(f"{self._sent} sent, encoding"):
            return self._codec.encode(read_picture(path), self._query, self._encoder)

    def _fail(self, path: Path, reason: str) -> None:
        self._failed.append(ExchangeError(f"{path}: {reason}"))
        self._console.print(f"not sent: {path}: {reason}", markup=False)

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
        if self._gave_up is not None:
            raise ExchangeError(
                f"{self._sent} pictures sent, {len(self._failed)} not, the rest not tried: {self._gave_up}"
            )
        if len(self._failed) == total == 1:
            raise self._failed[0]
        if self._failed:
            raise ExchangeError(
                f"{len(self._failed)} of {total} pictures were not sent, the first: {self._failed[0]}"
            )


def _listening(paths: Iterator[Path], sender: FrameSender) -> Iterator[Path]:
    """Paths as they come, the receipts taken meanwhile: who types them on standard input takes his time."""
    read: Queue[Path | BaseException | None] = Queue(1)

    def fill() -> None:
        try:
            for path in paths:
                read.put(path)
            read.put(None)
        except BaseException as error:  # noqa: BLE001 (raised by who reads)
            read.put(error)

    threading.Thread(target=fill, name="paths", daemon=True).start()
    while True:
        try:
            one = read.get(timeout=0.002)
        except Empty:
            sender.listen(_LISTEN_S)
            continue
        if one is None:
            return
        if isinstance(one, BaseException):
            raise one
        yield one


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

    from blocks.frame_gaps import FrameGaps
    from blocks.picture_taker import PictureTaker

    console = make_console()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    gaps = FrameGaps()
    done = dropped = 0
    with PictureTaker(settings.zmq.pictures_out, _PICTURES_AHEAD, keys) as taker:
        console.print(f"waiting for pictures from {settings.zmq.pictures_out}", markup=False)
        while count is None or done < count:
            # At the end what is here already is still decoded.
            taker.asking = not ended.is_set()
            picture = taker.take(_POLL_MS)
            if picture is None:
                if ended.is_set():
                    break
                continue
            gaps.note(picture.stream, picture.frame.frame_id)
            decoded = _decode(picture.frame, codec, output, console)
            taker.done(picture)
            done += decoded
            dropped += not decoded
        counts = {
            "dropped": dropped,
            **taker.reader.to_json(),
            "slices damaged": codec.slices_damaged,
            "numbers between them not seen here": gaps.missing,
        }
    parts = [f"{done} pictures", *(f"{n} {name}" for name, n in counts.items() if n)]
    console.print(", ".join(parts).replace("_", " "), markup=False)


def _decode(frame: IndexFrame, codec: PictureCodec, folder: Path, console: Console) -> bool:
    """Decode and write one picture; False where it is another codec's."""
    from semantic.index_frame import IndexFrameError

    started = time.monotonic()
    try:
        picture = codec.decode(frame, soft=True)
    except IndexFrameError as error:
        console.print(f"picture {frame.frame_id} dropped: {error}", markup=False)
        return False
    path = _free_path(folder, f"{frame.frame_id:010}")
    atomic_write(path, partial(picture.save, format="PNG"))
    state = "complete" if frame.complete else f"{100 * frame.erased_fraction:.0f} % estimated"
    console.print(f"{path}: {state}, {time.monotonic() - started:.3f} s", markup=False)
    return True


def _free_path(folder: Path, stem: str) -> Path:
    """A name that no picture has: numbers come round again, pictures are never overwritten."""
    names = (f"{stem}{f'-{k}' if k else ''}.png" for k in itertools.count())
    return next(folder / name for name in names if not (folder / name).exists())


def _load(profile: str, overrides: list[str] | None) -> Profile:
    from sdr_config.load import load_profile

    return load_profile(profile, overrides or [])
