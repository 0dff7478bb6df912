"""What of a picture file a receiver that knows the coder does not need: take it off, put it back.

A file of three hundred bytes is mostly headers, so a comparison at equal bits must say which of them count.
Here the answer is a pair of functions per format. ``strip`` takes off all that follows from the coder, its
settings and the side of the picture, and lengths that follow from the number of bytes received;
``restore`` puts it back. ``strip`` returns only bytes from which ``restore`` has just made the same file
again, bit for bit: nothing is left uncounted that a receiver could not have made itself.

The constant bytes are no tables in this module. They are read from a file that the same coder makes of a
grey picture of the same side, and every file is checked against them.
"""

from __future__ import annotations

from collections.abc import Callable

# ISO/IEC 15444-1, Table A.2: markers of a codestream.
_SOC, _SOT, _SOD, _EOC, _COM = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9, 0xFF64
# A packet that brings nothing, as OpenJPEG writes it: the bit "not of length zero", then zeros (ISO/IEC
# 15444-1, B.10.3 and B.10.4).
_EMPTY_PACKET = b"\x80"
# RFC 6386, 9.1: what follows the 3-byte frame tag of a key frame, and the tag's constant five bits
# (key frame, version 0, shown).
_VP8_START_CODE = b"\x9d\x01\x2a"
_VP8_TAG_BITS = 0b10000
# AV1 specification, 6.2.2: types of open bitstream units.
_OBU_SEQUENCE_HEADER, _OBU_TEMPORAL_DELIMITER, _OBU_FRAME = 1, 2, 6


class PictureCoderError(ValueError):
    """A picture, a budget or a file that a picture coder cannot work with."""


def strip_jpeg2000(data: bytes, header: bytes) -> bytes:
    """Packets of a codestream of one tile part, with the number of empty ones at the end in front.

    Taken off (ISO/IEC 15444-1, Annex A): the main header SOC, SIZ, COD, QCD; SOT (its one variable field,
    Psot, is the length of the tile part); SOD; EOC. Packets at the end that bring nothing cost a byte each
    in a codestream; a byte that counts them is kept instead.

    Args:
        data: the codestream.
        header: main header that every codestream of these settings and this side begins with.

    Raises:
        PictureCoderError: another kind of codestream.
    """
    start = len(header)
    body = data[start + 14 : -2]
    packets = body.rstrip(_EMPTY_PACKET)
    packets = body[: max(len(packets), len(body) - 255)]
    stripped = bytes([len(body) - len(packets)]) + packets
    return _proven(data, stripped, lambda kept: restore_jpeg2000(kept, header))


def restore_jpeg2000(stripped: bytes, header: bytes) -> bytes:
    """The codestream of which :func:`strip_jpeg2000` left these bytes."""
    body = stripped[1:] + _EMPTY_PACKET * stripped[0]
    # Lsot = 10, tile 0, Psot from SOT to the end of the tile part, tile part 0 of 1 (A.4.2).
    tile = _SOT.to_bytes(2, "big") + (10).to_bytes(2, "big") + bytes(2)
    tile += (14 + len(body)).to_bytes(4, "big") + b"\x00\x01"
    return header + tile + _SOD.to_bytes(2, "big") + body + _EOC.to_bytes(2, "big")


def jpeg2000_header(data: bytes) -> bytes:
    """Main header of a codestream, without comments: SOC to the last segment before the first SOT.

    Raises:
        PictureCoderError: no codestream.
    """
    header, _ = _split_main_header(data)
    return header


def drop_jpeg2000_comments(data: bytes) -> bytes:
    """The same codestream without COM segments, which say nothing about the picture (A.9.2).

    Raises:
        PictureCoderError: no codestream.
    """
    header, rest = _split_main_header(data)
    return header + rest


def _split_main_header(data: bytes) -> tuple[bytes, bytes]:
    """Main header without comments, and everything from the first SOT on."""
    if data[:2] != _SOC.to_bytes(2, "big"):
        raise PictureCoderError("a JPEG 2000 codestream begins with SOC")
    kept, at = data[:2], 2
    while at + 4 <= len(data):
        marker = int.from_bytes(data[at : at + 2], "big")
        if marker == _SOT:
            return kept, data[at:]
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker != _COM:
            kept += data[at : at + length]
        at += length
    raise PictureCoderError("a JPEG 2000 codestream without a tile")


def strip_webp(data: bytes, side: int) -> bytes:
    """VP8 data of a plain lossy WebP file, with the size of the first partition in front.

    Taken off (RFC 9649, 2.3 to 2.5; RFC 6386, 9.1): the RIFF header, the header and padding of the ``VP8``
    chunk, of the frame header the five constant bits of its tag, the start code and width and height. Of the
    tag remains the size of the first partition, in as few bytes as it needs (LEB128).

    Args:
        data: the file: no alpha channel, profile or metadata.
        side: pixels of the square picture.

    Raises:
        PictureCoderError: another kind of file.
    """
    length = int.from_bytes(data[16:20], "little")
    first_partition = int.from_bytes(data[20:23], "little") >> 5
    stripped = _to_leb128(first_partition) + data[30 : 20 + length]
    return _proven(data, stripped, lambda kept: restore_webp(kept, side))


def restore_webp(stripped: bytes, side: int) -> bytes:
    """The file of which :func:`strip_webp` left these bytes."""
    first_partition, at = _from_leb128(stripped, 0)
    tag = (first_partition << 5 | _VP8_TAG_BITS).to_bytes(3, "little")
    frame = tag + _VP8_START_CODE + side.to_bytes(2, "little") * 2 + stripped[at:]
    padded = frame + bytes(len(frame) % 2)
    chunk = b"VP8 " + len(frame).to_bytes(4, "little") + padded
    return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk


def strip_avif(data: bytes, example: bytes) -> bytes:
    """Content of the frame OBU of an AVIF file with one AV1 key frame.

    Taken off (ISO/IEC 14496-12; AV1 Image File Format; AV1 specification, 5.3): every box but ``mdat``, the
    header of that one, and in it the temporal delimiter, the sequence header, and type and size of the frame
    OBU.

    Args:
        data: the file.
        example: any other file made with the same settings, of a picture of the same side.

    Raises:
        PictureCoderError: another kind of file.
    """
    stripped = data[_avif_frame_start(data) :]
    return _proven(data, stripped, lambda kept: restore_avif(kept, example))


def restore_avif(stripped: bytes, example: bytes) -> bytes:
    """The file of which :func:`strip_avif` left these bytes."""
    media = _find_box(example, b"mdat", 0)
    meta = _find_box(example, b"meta", 0)
    location = _find_box(example, b"iloc", meta + 12)
    obus = _avif_obus(example, media + 8)
    head = bytearray(example[:media])
    # The temporal delimiter and the sequence header as they are, then a frame with a size of its own.
    first, _ = obus[-1]
    payload = example[media + 8 : first + 1] + _to_leb128(len(stripped)) + stripped
    # One item of one extent with 4-byte fields (iloc version 0): its length is the box's last field.
    end = location + int.from_bytes(head[location : location + 4], "big")
    head[end - 4 : end] = len(payload).to_bytes(4, "big")
    return bytes(head) + (8 + len(payload)).to_bytes(4, "big") + b"mdat" + payload


def _avif_frame_start(data: bytes) -> int:
    """Offset of the content of the frame OBU in a file."""
    return _avif_obus(data, _find_box(data, b"mdat", 0) + 8)[-1][1]


def _avif_obus(data: bytes, start: int) -> list[tuple[int, int]]:
    """Begin and begin of the content of the three OBUs from an offset to the end of the file.

    Raises:
        PictureCoderError: anything but temporal delimiter, sequence header and frame.
    """
    found, kinds, at = [], [], start
    while at < len(data):
        # obu_header: forbidden bit, 4 bits type, extension flag, has_size_field, reserved bit.
        size, content = _from_leb128(data, at + 1)
        kinds.append(data[at] >> 3 & 15)
        found.append((at, content))
        at = content + size
    if kinds != [_OBU_TEMPORAL_DELIMITER, _OBU_SEQUENCE_HEADER, _OBU_FRAME] or at != len(data):
        raise PictureCoderError(f"expected one AV1 key frame in an AVIF file, found OBUs {kinds}")
    return found


def _find_box(data: bytes, kind: bytes, start: int) -> int:
    """Offset of the first box of a kind (ISO/IEC 14496-12, 4.2) among those that begin at an offset.

    Raises:
        PictureCoderError: there is none.
    """
    at = start
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == kind:
            return at
        if size < 8:
            break
        at += size
    raise PictureCoderError(f"no {kind.decode()} box where an AVIF file has one")


def _to_leb128(value: int) -> bytes:
    """An unsigned number, 7 bits a byte, least significant first (AV1 specification, 4.10.5)."""
    coded = bytearray()
    while value > 127:
        coded.append(value & 127 | 128)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def _from_leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at an offset, and the offset behind it.

    Raises:
        PictureCoderError: the bytes end within it, or it takes more than 8.
    """
    value = 0
    for place in range(8):
        if at + place >= len(data):
            break
        byte = data[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise PictureCoderError("a length that does not end")


def _proven(data: bytes, stripped: bytes, restore: Callable[[bytes], bytes]) -> bytes:
    """The stripped bytes, if the file can be made from them again."""
    try:
        same = restore(stripped) == data
    except (IndexError, OverflowError):
        same = False
    if not same:
        raise PictureCoderError(f"these {len(data)} bytes are no file of this coder and side")
    return stripped
