"""What the blocks take in GNU Radio Companion, where parameters are numbers and text.

Named in ``blocks/grc/*.block.yml``; flowgraphs written in Python go by a profile instead.
"""

from __future__ import annotations

import re
from pathlib import Path

from blocks.zmq_messages import AddressError
from semantic.geometries import read_geometries, shipped_geometries
from semantic.index_frame import FrameGeometry

_LOCAL_ADDRESS = re.compile(
    r"tcp://(127\.0\.0\.1|localhost|\[::1\]):(\*|\d{1,5})|(ipc|inproc)://\S+"
)


def local_address(address: str) -> str:
    """The address, if it is one that nobody but this machine can reach.

    Raises:
        AddressError: another address: what travels there is neither encrypted nor authenticated.
    """
    if not _LOCAL_ADDRESS.fullmatch(address):
        raise AddressError(
            f"address {address!r}: expected tcp://127.0.0.1:port, localhost or [::1], ipc://path or "
            "inproc://name; other machines may come through a tunnel, or use uoisc tx and rx"
        )
    return address


def geometries_of(file: str) -> tuple[FrameGeometry, ...]:
    """Every rate of the codec that a geometry file describes, of all shipped codecs where ``file`` is empty.

    Raises:
        IndexFrameError: naming the file, when it is missing or malformed.
    """
    return read_geometries(Path(file)) if file else shipped_geometries()
