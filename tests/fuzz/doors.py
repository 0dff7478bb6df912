"""The doors for bytes from outside: what each takes, and the one error it may answer with."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from blocks.air_messages import Ready as AirReady
from blocks.air_messages import pack_chunk, pack_ready, parse_chunk, parse_ready
from blocks.modem.header import BurstHeader
from blocks.picture_desk import Ready
from blocks.picture_desk import _parse as parse_ready_for_pictures
from blocks.picture_taker import _parse as parse_picture
from blocks.zmq_messages import (
    TOPIC_FRAME,
    TOPIC_PICTURE,
    TOPIC_READY,
    Dropped,
    MessageReader,
    MessageWriter,
    unpack_frame,
)
from captures.errors import CaptureError
from captures.metadata import Metadata, read_json
from sdr_config.load import ConfigError, load_profile, shipped_profiles
from semantic.backbone import WeightsError
from semantic.checkpoint import read_metadata
from semantic.codec.loader import EncoderSettings, load_codec
from semantic.demo_photos import load_photo
from semantic.frame.slices import find_slices
from semantic.geometries import CHECKPOINT_FOLDER
from semantic.index_frame import IndexFrame, IndexFrameError
from semantic.plain_yaml import read_plain_yaml
from tests.link_parts import GEOMETRY, random_frame

REPOSITORY = Path(__file__).resolve().parents[2]
_MOST_SLICE_BYTES = 400


@dataclass(frozen=True)
class Door:
    """What comes in, and how.

    Args:
        seeds: valid inputs; made once.
        take: reads an input in a folder of its own.
        refuses: the only error that may come out.
    """

    seeds: Callable[[Path], list[bytes]]
    take: Callable[[bytes, Path], object]
    refuses: tuple[type[Exception], ...] = ()


def _frames(_: Path) -> list[bytes]:
    shipped = sorted((REPOSITORY / "captures/shipped").glob("*.sent/*.uoisc"))
    partial = IndexFrame.from_bits(
        GEOMETRY,
        random_frame(1).to_bits(),
        frame_id=1,
        erased_bits=np.arange(GEOMETRY.payload_bits) < 900,
        bit_llrs=np.zeros(GEOMETRY.payload_bits, np.int8),
    )
    return [
        random_frame(3).to_bytes(),
        partial.to_bytes(),
        *(one.read_bytes() for one in shipped[:3]),
    ]


def _join(parts: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def _split(data: bytes) -> list[bytes]:
    """Parts of a message; damaged lengths make other parts."""
    parts = []
    while len(data) >= 4 and len(parts) < 6:
        (size,) = struct.unpack_from(">I", data)
        parts.append(data[4 : 4 + size])
        data = data[4 + size :]
    return parts or [data]


_PARSERS = (
    lambda parts: unpack_frame(parts, TOPIC_FRAME),
    parse_picture,
    parse_ready_for_pictures,
    parse_chunk,
    parse_ready,
)


def _messages(_: Path) -> list[bytes]:
    writer = MessageWriter()
    return [
        _join(writer.pack_frame(TOPIC_FRAME, random_frame(1))),
        _join(writer.pack_frame(TOPIC_PICTURE, random_frame(2), 3)),
        _join(writer.pack(TOPIC_READY, Ready(2, (1, 2)).to_header())),
        _join(pack_ready(writer, AirReady("abc", 7))),
        _join(
            pack_chunk(
                writer, np.ones(100, np.complex64), position=5, sample_rate_hz=1e6, burst_samples=100, left=0
            )
        ),
    ]  # fmt: skip


def _take_message(data: bytes, _: Path) -> object:
    parts = _split(data)
    for parse in _PARSERS:
        reader = MessageReader()
        found = reader.examine(parts, parse)
        assert isinstance(found, Dropped) == (sum(reader.refused.values()) == 1)
    return None


def _recordings(_: Path) -> list[bytes]:
    """The shipped recordings' metadata, with few annotations: what is fuzzed are their fields."""
    found = []
    for file in sorted((REPOSITORY / "captures/shipped").glob("*.sigmf-meta")):
        raw = json.loads(file.read_text())
        found.append(json.dumps({**raw, "annotations": raw["annotations"][:2]}).encode())
    return found


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def take(data: bytes, folder: Path) -> object:
        file = folder / name
        file.write_bytes(data)
        return read(file)

    return take


def _profiles(_: Path) -> list[bytes]:
    folder = REPOSITORY / "sdr_config/profiles"
    return [(folder / f"{name}.yaml").read_bytes() for name in shipped_profiles()]


def _plans(_: Path) -> list[bytes]:
    return [one.read_bytes() for one in (REPOSITORY / "semantic/evaluation/plans").glob("*.yaml")]


def _checkpoints(_: Path) -> list[bytes]:
    """Small files of the form, with the shipped codec's own description."""
    about = read_metadata(CHECKPOINT_FOLDER / "embedded.safetensors")
    tensors = {"a": np.ones((3, 2), np.float32), "b": np.arange(4, dtype=np.int8)}
    return [save(tensors, about), save(tensors, {"format": about["format"]})]


def _bits(count: int) -> Callable[[bytes], np.ndarray]:
    return lambda data: np.unpackbits(np.frombuffer(data.ljust(-(-count // 8), b"\0"), np.uint8))[
        :count
    ]


def _burst_headers(_: Path) -> list[bytes]:
    header = BurstHeader(4, 77, 0, GEOMETRY.payload_bits, 0, 2, 1, GEOMETRY.codec_tag)
    return [np.packbits(header.to_bits()).tobytes()]


def _take_slices(data: bytes, _: Path) -> object:
    payload = data[:_MOST_SLICE_BYTES] or b"\0"
    return find_slices(payload, np.zeros(len(payload), np.bool_))


def _slices(_: Path) -> list[bytes]:
    """Payloads of the two-layer codec, as its encoder makes them."""
    frame = load_codec("two_layer", "cpu").encode(
        load_photo("chelsea", 64), "a cat", EncoderSettings(bits=2000, slice_bits=700)
    )
    return [np.packbits(frame.to_bits()).tobytes()]


DOORS = {
    "index frames": Door(_frames, lambda data, _: IndexFrame.from_bytes(data), (IndexFrameError,)),
    "index frame files": Door(_frames, _in_file("f.uoisc", IndexFrame.read), (IndexFrameError,)),
    "messages": Door(_messages, _take_message),
    "recordings": Door(
        _recordings,
        _in_file("r.sigmf-meta", lambda file: Metadata.parse(read_json(file))),
        (CaptureError,),
    ),
    "profiles": Door(_profiles, _in_file("p.yaml", load_profile), (ConfigError,)),
    "plans": Door(_plans, _in_file("p.yaml", read_plain_yaml), (ValueError,)),
    "checkpoints": Door(_checkpoints, _in_file("c.safetensors", read_metadata), (WeightsError,)),
    "slices": Door(_slices, _take_slices),
    "burst headers": Door(_burst_headers, lambda data, _: BurstHeader.from_bits(_bits(128)(data))),
}


def describe(data: bytes) -> str:
    """An input as a test may quote it."""
    return json.dumps(data.decode("latin-1"))[:2000]
