"""SigMF's sample types: every complex one round the trip and as the sigmf library reads it; no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sigmf

from captures.datatypes import parse_datatype
from captures.errors import CaptureError
from captures.recording import open_recording
from tests.recordings import write_foreign

FLOATS = ["cf32_le", "cf32_be", "cf64_le", "cf64_be"]
INTEGERS = [
    *("ci8", "cu8", "ci8_le", "cu8_be"),
    *(f"c{kind}{bits}_{order}" for kind in "iu" for bits in (16, 32) for order in ("le", "be")),
]


def some_samples(count: int = 1000) -> np.ndarray:
    generator = np.random.default_rng(1)
    parts = generator.uniform(-0.99, 0.99, 2 * count).astype(np.float32)
    return parts.view(np.complex64)


@pytest.mark.parametrize("name", FLOATS)
def test_floats_come_back_exactly(name: str) -> None:
    kind = parse_datatype(name)
    samples = some_samples()
    data = kind.encode(samples)
    assert len(data) == samples.size * kind.sample_bytes
    assert np.array_equal(kind.decode(data), samples)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_come_back_to_half_a_step(name: str) -> None:
    kind = parse_datatype(name)
    samples = some_samples()
    decoded = kind.decode(kind.encode(samples))
    step = max(2.0 ** (1 - kind.bits), 1e-6)  # float32 has 24 bits
    assert np.abs((decoded - samples).view(np.float32)).max() <= 0.5001 * step


@pytest.mark.parametrize("name", ["ci8", "cu8", "ci16_le", "ci16_be"])
def test_every_code_of_small_integers_is_exact(name: str) -> None:
    kind = parse_datatype(name)
    codes = np.arange(2**kind.bits).astype(kind.part.newbyteorder("=").str[1:])
    data = np.repeat(codes, 2).astype(kind.part).tobytes()
    assert kind.encode(kind.decode(data)) == data


@pytest.mark.parametrize("name", [*FLOATS, *INTEGERS])
def test_the_same_as_the_sigmf_library(tmp_path: Path, name: str) -> None:
    path = write_foreign(tmp_path, some_samples(200), name)
    ours = open_recording(path).read_all()
    theirs = sigmf.fromfile(str(path), skip_checksum=True).read_samples()
    assert np.allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_too_loud_saturates() -> None:
    kind = parse_datatype("ci16_le")
    loud = np.array([2 - 2j, 1 + 1j], np.complex64)
    assert np.frombuffer(kind.encode(loud), "<i2").tolist() == [32767, -32768, 32767, 32767]


def test_doubles_beyond_float32_do_not_stop_anything() -> None:
    kind = parse_datatype("cf64_le")
    decoded = kind.decode(np.array([1e300, -1e300, np.nan, 1.0]).tobytes())
    assert not np.isfinite(decoded[0])
    assert decoded[1].imag == 1.0


@pytest.mark.parametrize("name", ["rf32_le", "ri16_be", "ru8"])
def test_real_samples_are_refused(name: str) -> None:
    with pytest.raises(CaptureError, match="real samples"):
        parse_datatype(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "cf32", "ci16", "cf16_le", "cf8", "ci64_le", "ci12_le", "CF32_LE"),
        *("cf32_le\n", "cf32_lex", None, 7, []),
    ],
)
def test_what_is_no_type(name: object) -> None:
    with pytest.raises(CaptureError, match="core:datatype"):
        parse_datatype(name)
