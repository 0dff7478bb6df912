"""Recordings as rows of an evaluation's table: what became of the pictures that were sent while recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.replay import (
    Outcome,
    decode_outcomes,
    match_pictures,
    photo_as_sent,
    replay_profile,
    source_of,
)

if TYPE_CHECKING:
    import polars as pl
    from PIL import Image

    from flowgraphs.replayer import ReplayResult
    from semantic.codec.loader import PictureCodec
    from semantic.index_frame import IndexFrame
    from semantic.judge import Judge
    from semantic.link_statistics import BurstRecord

CHANNEL, POLICY = "captured", "recorded"


@dataclass
class _Picture:
    """One picture that was sent while recording.

    Args:
        outcome: what became of it.
        records: of the bursts that were heard of it.
        snr_db: mean Es/N0 measured in its recording; None where nothing was heard there.
        photo: name of the photo, or of what stands for it.
    """

    outcome: Outcome
    records: list[BurstRecord]
    snr_db: float | None
    photo: str

    @property
    def frame(self) -> IndexFrame:
        """As it was sent."""
        assert self.outcome.sent is not None
        return self.outcome.sent.frame


def captured_table(
    folder: Path,
    codec: PictureCodec,
    judge: Judge,
    *,
    system: str = "uoisc",
    sources: Path | None = None,
) -> pl.DataFrame:
    """Replay every recording of a folder that has its sent frames beside it, and judge what arrives.

    One row for each picture that was sent, in the order of recordings and frames. ``channel`` is captured,
    ``policy`` recorded, ``set`` the folder's name, ``snr_db`` the mean Es/N0 measured in the recording.
    ``symbols``, ``bursts`` and ``bursts_lost`` are known where every burst of a picture was heard.

    Quality refers to the photo of the same number in ``sources`` (7.png, 0000000007.jpg), else to the one
    beside the sent frame, else to the picture that its indices decode to without errors.

    Args:
        folder: with ``*.sigmf-meta`` files.
        codec: of the frames.
        judge: who answers the questions.
        system: label of the table.
        sources: folder of photos, None where there is none.

    Raises:
        CaptureError: no recording with sent frames, or one that cannot be used.
        IndexFrameError: a frame of another codec, or without a question.
        PictureError: a photo that cannot be read.
    """
    from captures.errors import CaptureError
    from semantic.evaluation.quality import Meter, SourceAnswers, quality_columns
    from semantic.evaluation.table import make_table, sort_table
    from semantic.judge import ask_reference
    from semantic.systems.controls import grey_picture

    photos = _photos_by_number(sources)
    pictures = [
        picture
        for path in sorted(folder.glob("*.sigmf-meta"))
        for picture in _replay(path, codec, photos)
    ]
    if not pictures:
        raise CaptureError(f"{folder}: no recording (*.sigmf-meta) with sent frames beside it")
    originals = _shared([picture.outcome.source for picture in pictures])
    side = _one_side(folder, originals)
    grey = grey_picture(side)
    shown = [picture.outcome.picture or grey for picture in pictures]
    queries = [_query(picture.frame) for picture in pictures]
    reference = ask_reference(judge, originals, queries)
    qualities = Meter(judge, side).measure(originals, shown, queries)
    rows = [
        {
            "system": system,
            "kind": "uoisc",
            "codec_id": picture.frame.geometry.codec_id,
            "segment_length": codec.segment_length,
            "channel": CHANNEL,
            "policy": POLICY,
            "seed": 0,
            "set": folder.resolve().name,
            "row": row,
            "photo": picture.photo,
            "query": queries[row],
            **_link_columns(picture),
            **quality_columns(qualities[row], SourceAnswers.of(reference, row)),
        }
        for row, picture in enumerate(pictures)
    ]
    return sort_table(make_table(rows))


def _one_side(folder: Path, originals: Sequence[Image.Image]) -> int:
    """Side of the pictures, which the measures need to be squares of one size."""
    from captures.errors import CaptureError

    sizes = {picture.size for picture in originals}
    side = originals[0].width
    if sizes != {(side, side)}:
        found = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:4])
        raise CaptureError(f"{folder}: pictures of {found} pixels, expected squares of one size")
    return side


def _replay(path: Path, codec: PictureCodec, photos: dict[int, Path]) -> list[_Picture]:
    """What became of the pictures sent with one recording; an empty list where none are known."""
    from captures.recording import open_recording
    from captures.sent_frames import known_geometries, load_sent
    from flowgraphs.replayer import run_replay

    recording = open_recording(path)
    sent = load_sent(recording)
    if not sent:
        return []
    result = run_replay(replay_profile(recording), known_geometries(sent), recording)
    outcomes = match_pictures(sent, result.pictures)[: len(sent)]
    decode_outcomes(codec, outcomes)
    found = []
    for one in outcomes:
        assert one.sent is not None
        photo = photos.get(one.sent.frame.frame_id, one.sent.picture)
        one.source = (
            source_of(codec, one) if photo is None else photo_as_sent(photo, one.sent.frame)
        )
        name = f"{recording.name}: {one.sent.frame.frame_id}" if photo is None else photo.name
        found.append(_Picture(one, _records_of(result, one), result.statistics.snr_db_mean, name))
    return found


def _records_of(result: ReplayResult, outcome: Outcome) -> list[BurstRecord]:
    """Bursts heard of a picture, each once."""
    if outcome.heard is None:
        return []
    number = outcome.heard.frame_id
    by_burst = {one.burst_number: one for one in result.records if one.frame_id == number}
    return list(by_burst.values())


def _link_columns(picture: _Picture) -> dict[str, Any]:
    from blocks.modem.waveform import BITS_PER_SYMBOL, MCS_CODE_RATES

    outcome, records, bits = picture.outcome, picture.records, picture.frame.geometry.payload_bits
    heard = outcome.heard
    rates = {one.mcs for one in records if one.mcs is not None}
    mcs = rates.pop() if len(rates) == 1 else None
    all_heard = heard is not None and sum(one.code_blocks for one in records) == heard.blocks
    symbols = sum(one.symbols for one in records) if all_heard else None
    energy = None
    if symbols is not None and picture.snr_db is not None:
        energy = symbols * 10 ** (picture.snr_db / 10)
    return {
        "snr_db": picture.snr_db,
        "mcs": mcs,
        "status": _status(outcome),
        "symbols": symbols,
        "payload_symbols": None
        if mcs is None
        else bits / (BITS_PER_SYMBOL * float(MCS_CODE_RATES[mcs])),
        "bits": bits,
        "bits_per_pixel": picture.frame.bits_per_pixel,
        "energy": energy,
        "bursts": len(records) if all_heard else None,
        "bursts_lost": sum(one.code_blocks_ok == 0 for one in records) if all_heard else None,
        "code_blocks": None if heard is None else heard.blocks,
        "code_blocks_ok": 0 if heard is None else heard.blocks_ok,
    }


def _status(outcome: Outcome) -> str:
    if outcome.received is None:
        return "lost"
    if outcome.picture is None:
        return "undecodable"
    return "ok" if outcome.received.complete else "partial"


def _photos_by_number(folder: Path | None) -> dict[int, Path]:
    from captures.errors import CaptureError

    if folder is None:
        return {}
    if not folder.is_dir():
        raise CaptureError(f"{folder}: expected a folder of photos")
    return {int(path.stem): path for path in sorted(folder.iterdir()) if path.stem.isdecimal()}


def _shared(pictures: Sequence[Image.Image | None]) -> list[Image.Image]:
    """The same photo is the same object: another one of the set is a chance match, itself is none."""
    by_content: dict[bytes, Image.Image] = {}
    found = []
    for picture in pictures:
        assert picture is not None
        found.append(by_content.setdefault(picture.tobytes(), picture))
    return found


def _query(frame: IndexFrame) -> str:
    from semantic.index_frame import IndexFrameError

    if frame.query is None:
        raise IndexFrameError(f"frame {frame.frame_id} was sent without a question, expected one")
    return frame.query
