"""The two messages of the virtual air: samples one way, "ready" the other way. No GNU Radio.

A transmitter (ROUTER) sends chunks of samples to every receiver (DEALER) that has said it is ready. A
receiver says so when it starts, after every chunk it has handed on, and now and then while it hears
nothing; it names the transmitter's session and the number of the chunk it wants next. What is sent and not
yet handed on is limited, which is the back-pressure: PUB and SUB have none, PUSH and PULL have only one
receiver for each chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blocks.zmq_messages import MessageError, MessageWriter, unpack_header

TOPIC_SAMPLES = b"samples"
TOPIC_READY = b"ready"

# 8 ms at 4 Msps. A message costs a tenth of a millisecond at each end, whatever its size.
CHUNK_SAMPLES = 32_768
MAX_CHUNK_SAMPLES = 2 * CHUNK_SAMPLES
MAX_CHUNK_BYTES = 8 * MAX_CHUNK_SAMPLES + 1024
MAX_READY_BYTES = 1024

_MAX_COUNT = (1 << 63) - 1


@dataclass(frozen=True)
class Chunk:
    """Consecutive samples of one transmitter.

    Args:
        session: the transmitter's random id, another one after each start.
        number: of the chunk, counting all chunks of the session.
        position: samples of the session before this chunk.
        sample_rate_hz: of the transmitter.
        burst_samples: length of the burst that begins with this chunk, 0 where none does.
        left: samples of the burst that are still to come after this chunk.
        samples: ``complex64 [n]``, read-only.
    """

    session: str
    number: int
    position: int
    sample_rate_hz: float
    burst_samples: int
    left: int
    samples: NDArray[np.complex64]


@dataclass(frozen=True)
class Ready:
    """What a receiver wants.

    Args:
        session: of the transmitter that it has last heard, empty where none.
        wanted: number of the chunk that it wants next; all before it have been handed on.
    """

    session: str
    wanted: int


def pack_chunk(
    writer: MessageWriter,
    samples: NDArray[np.complex64],
    *,
    position: int,
    sample_rate_hz: float,
    burst_samples: int,
    left: int,
) -> list[bytes | memoryview]:
    """Parts of a message of samples; the writer's id is the session, its number that of the chunk.

    The payload is a view of ``samples``, good until these change.
    """
    header = {
        "position": position,
        "sample_rate_hz": sample_rate_hz,
        "burst_samples": burst_samples,
        "left": left,
    }
    # The memory itself: ZMQ copies it, and does so once.
    little = np.ascontiguousarray(samples, "<c8")
    topic, packed, _ = writer.pack(TOPIC_SAMPLES, header)
    return [topic, packed, little.view(np.uint8).data]


def parse_chunk(parts: list[bytes]) -> Chunk:
    """Inverse of :func:`pack_chunk`.

    Raises:
        MessageError: anything that is not such a message, or samples that are not finite.
    """
    header = _header(parts, TOPIC_SAMPLES)
    counts = [_count(header, name) for name in ("position", "burst_samples", "left", "seq")]
    rate_hz = header.get("sample_rate_hz")
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, (int, float)) or not 0 < rate_hz < 1e12:
        raise MessageError("header: sample_rate_hz is missing or no rate")
    size, rest = divmod(len(parts[2]), 8)
    if rest or not 1 <= size <= MAX_CHUNK_SAMPLES:
        raise MessageError(
            f"payload of {len(parts[2])} bytes, expected 1..{MAX_CHUNK_SAMPLES} samples"
        )
    samples = np.frombuffer(parts[2], "<c8").astype(np.complex64, copy=False)
    # One of them in a filter's memory makes silence of what follows.
    if not np.isfinite(samples.view(np.float32)).all():
        raise MessageError("samples that are not finite")
    position, burst_samples, left, number = counts
    return Chunk(
        str(header.get("sender")), number, position, float(rate_hz), burst_samples, left, samples
    )


def pack_ready(writer: MessageWriter, ready: Ready) -> list[bytes]:
    """Parts of a receiver's message."""
    return writer.pack(TOPIC_READY, {"session": ready.session, "wanted": ready.wanted})


def parse_ready(parts: list[bytes]) -> Ready:
    """Inverse of :func:`pack_ready`; raises MessageError on anything else."""
    header = _header(parts, TOPIC_READY)
    session = header.get("session")
    if not isinstance(session, str) or parts[2]:
        raise MessageError("header: session is missing or no text, or there is a payload")
    return Ready(session, _count(header, "wanted"))


def _header(parts: list[bytes], topic: bytes) -> dict[str, object]:
    header = unpack_header(parts)
    if parts[0] != topic:
        raise MessageError(f"topic {parts[0][:40]!r}, expected {topic!r}")
    return header


def _count(header: dict[str, object], name: str) -> int:
    value = header.get(name)
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        raise MessageError(f"header: {name} is missing or no count")
    return value
