"""Check the LDPC encoder and decoder against a file of test vectors.

A file is an ``.npz`` with, for every case, ``k{K}_n{N}_q{Q}_info`` and ``k{K}_n{N}_q{Q}_coded``: one
block per row, bits packed as by ``numpy.packbits`` and padded with zeros to whole bytes. K counts
information bits, N transmitted bits, Q the bits per symbol of the interleaver (0: none). Redundancy
version 0, no CRC inside, base graph by TS 38.212 7.2.2.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blocks.modem.ldpc_code import LdpcCode, LdpcError, get_code
from blocks.modem.ldpc_decoder import decode_blocks
from blocks.modem.ldpc_encoder import encode

BitArray = NDArray[np.uint8]

_KEY = re.compile(r"k(\d{1,7})_n(\d{1,7})_q(\d{1,2})_(info|coded)")
_STRONG_LLR = 20.0
# The noisy pass sends the bits over a Gaussian channel this far above the Shannon limit of the rate.
_NOISE_MARGIN_DB = 4.0
_SEED = 20240213


class VectorFileError(ValueError):
    """A vector file that cannot be read or breaks the format; the message is one line."""


@dataclass(frozen=True)
class VectorCase:
    """Outcome of one case. ``decode_ok``: noiseless and noisy blocks all gave the information bits."""

    name: str
    base_graph: int
    lifting_size: int
    encode_ok: bool
    decode_ok: bool


@dataclass(frozen=True)
class VectorReport:
    """Outcome of one file."""

    cases: list[VectorCase]

    @property
    def all_ok(self) -> bool:
        """Whether every case encoded and decoded as the file says."""
        return all(case.encode_ok and case.decode_ok for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """``{"cases": [{name, base_graph, lifting_size, encode_ok, decode_ok}], "all_ok"}``."""
        return {"cases": [asdict(case) for case in self.cases], "all_ok": self.all_ok}


def _load(path: Path) -> dict[str, BitArray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise VectorFileError(f"{path}: expected an .npz archive, found a single array")
        with archive:
            return {key: archive[key] for key in archive.files}
    except VectorFileError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VectorFileError(f"{path}: expected a readable .npz archive: {reason}") from error


def _unpacked(path: Path, key: str, packed: BitArray, bits: int) -> BitArray:
    if packed.dtype != np.uint8 or packed.ndim != 2 or not packed.shape[0]:
        raise VectorFileError(
            f"{path}: {key}: expected uint8 rows of packed bits, "
            f"got {packed.dtype} {list(packed.shape)}"
        )
    if packed.shape[1] != -(-bits // 8):
        raise VectorFileError(
            f"{path}: {key}: expected {-(-bits // 8)} bytes a row for {bits} bits, "
            f"got {packed.shape[1]}"
        )
    unpacked = np.unpackbits(packed, axis=1)
    if unpacked[:, bits:].any():
        raise VectorFileError(f"{path}: {key}: expected zeros after bit {bits} of each row")
    return np.ascontiguousarray(unpacked[:, :bits])


def _case_sizes(path: Path, keys: list[str]) -> dict[str, tuple[int, int, int]]:
    """Name of every case with its K, N, Q; each has both its arrays."""
    cases: dict[str, tuple[int, int, int]] = {}
    for key in keys:
        match = _KEY.fullmatch(key)
        if match is None:
            raise VectorFileError(
                f"{path}: {key!r}: expected names like k640_n2559_q3_info and k640_n2559_q3_coded"
            )
        name = key.rsplit("_", 1)[0]
        for partner in (f"{name}_info", f"{name}_coded"):
            if partner not in keys:
                raise VectorFileError(f"{path}: {key}: expected its partner {partner}, not found")
        cases[name] = (int(match[1]), int(match[2]), int(match[3]))
    if not cases:
        raise VectorFileError(f"{path}: expected at least one case, found none")
    return cases


def _noisy_llrs(coded: BitArray, rate: float) -> NDArray[np.float32]:
    """LLRs of the bits after BPSK over seeded noise, ``_NOISE_MARGIN_DB`` above the Shannon limit."""
    limit = (2.0 ** (2.0 * rate) - 1.0) / 2.0  # Es/N0 of a real Gaussian channel at this rate
    snr = limit * 10.0 ** (_NOISE_MARGIN_DB / 10.0)
    noise = np.random.default_rng(_SEED).standard_normal(coded.shape) * np.sqrt(0.5 / snr)
    return (4.0 * snr * (1.0 - 2.0 * coded + noise)).astype(np.float32)


def _decodes(code: LdpcCode, info: BitArray, llrs: NDArray[np.float32], order: int) -> bool:
    result = decode_blocks(code, llrs, bits_per_symbol=order)
    return bool(result.parity_ok.all() and np.array_equal(result.bits, info))


def _check_case(name: str, code: LdpcCode, info: BitArray, coded: BitArray, q: int) -> VectorCase:
    clean = (_STRONG_LLR * (1.0 - 2.0 * coded)).astype(np.float32)
    return VectorCase(
        name=name,
        base_graph=code.base_graph,
        lifting_size=code.lifting_size,
        encode_ok=np.array_equal(encode(code, info, 0, q), coded),
        decode_ok=_decodes(code, info, clean, q)
        and _decodes(code, info, _noisy_llrs(coded, code.rate), q),
    )


def check_vector_file(path: str | PathLike[str]) -> VectorReport:
    """Encode and decode every case of the file at ``path``.

    Decoding starts from the coded bits of the file, once without noise and once with some (seeded).
    Raises :class:`VectorFileError` when the file is unreadable, empty or breaks the format.
    """
    file = Path(path)
    arrays = _load(file)
    cases = []
    for name, (info_bits, coded_bits, q) in _case_sizes(file, list(arrays)).items():
        info = _unpacked(file, f"{name}_info", arrays[f"{name}_info"], info_bits)
        coded = _unpacked(file, f"{name}_coded", arrays[f"{name}_coded"], coded_bits)
        if info.shape[0] != coded.shape[0]:
            raise VectorFileError(
                f"{file}: {name}: expected as many info as coded rows, "
                f"got {info.shape[0]} and {coded.shape[0]}"
            )
        try:
            cases.append(_check_case(name, get_code(info_bits, coded_bits), info, coded, q))
        except LdpcError as error:
            raise VectorFileError(f"{file}: {name}: {error}") from error
    return VectorReport(cases)
