"""What the blocks take in GNU Radio Companion, where parameters are numbers and text.

Named in ``blocks/grc/*.block.yml``; flowgraphs written in Python go by a profile instead.
"""

from __future__ import annotations

import re
from pathlib import Path

from blocks.zmq_messages import AddressError
from blocks.zmq_security import CurveKeys, load_keys
from semantic.geometries import read_geometries, shipped_geometries
from semantic.index_frame import FrameGeometry

_LOCAL_ADDRESS = re.compile(
    r"tcp://(127\.0\.0\.1|localhost|\[::1\]):(\*|\d{1,5})|(ipc|inproc)://\S+"
)


def local_address(address: str, key_file: str = "") -> str:
    """The address, if it is one that nobody but this machine can reach, or any where there are keys.

    Args:
        address: of a ZMQ socket.
        key_file: as :func:`keys_of` takes it; empty: what travels is neither encrypted nor authenticated.

    Raises:
        AddressError: an address that others may reach, without keys.
    """
    if not key_file and not _LOCAL_ADDRESS.fullmatch(address):
        raise AddressError(
            f"address {address!r}: expected tcp://127.0.0.1:port, localhost or [::1], ipc://path or "
            "inproc://name; addresses that other machines may reach need keys (uoisc keys new)"
        )
    return address


def geometries_of(file: str) -> tuple[FrameGeometry, ...]:
    """Every rate of the codec that a geometry file describes, of all shipped codecs where ``file`` is empty.

    Raises:
        IndexFrameError: naming the file, when it is missing or malformed.
    """
    return read_geometries(Path(file)) if file else shipped_geometries()


def keys_of(file: str) -> CurveKeys | None:
    """The key pair in a file of ``uoisc keys new``, which all sides share; None where ``file`` is empty.

    Raises:
        KeyFileError: a file that is missing, malformed, or readable for others.
    """
    return load_keys(file) if file else None
