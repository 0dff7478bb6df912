"""What the tests of recordings share: small SigMF files, as anybody might have made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captures.datatypes import parse_datatype
from tests.simulated_air import bursts_of, noise, on_air, random_bits


def burst_samples(
    count: int = 3, amplitude: float = 0.25, tail: int = 2000, mcs: int = 4
) -> NDArray[np.complex64]:
    """``complex64 [n]`` at 4 samples per symbol: bursts of one code block each, with a little noise."""
    bursts = [
        bursts_of(random_bits(3000, seed), mcs=mcs, frame_id=seed)[0] for seed in range(count)
    ]
    samples, _ = on_air(bursts, tail=tail)
    samples += noise(samples.size, 0.1, np.random.default_rng(1))
    return (amplitude * samples).astype(np.complex64)


def write_foreign(
    folder: Path,
    samples: NDArray[np.complex64],
    datatype: str = "cf32_le",
    name: str = "foreign",
    *,
    info: dict[str, Any] | None = None,
    **sections: Any,
) -> Path:
    """A recording that this project did not make; ``info`` changes ``global`` (None removes a key)."""
    path = folder / f"{name}.sigmf-meta"
    entries = {
        "core:datatype": datatype,
        "core:sample_rate": 4e6,
        "core:version": "1.0.0",
        **(info or {}),
    }
    raw = {
        "global": {key: value for key, value in entries.items() if value is not None},
        "captures": [{"core:sample_start": 0}],
        "annotations": [],
        **sections,
    }
    path.write_text(json.dumps(raw))
    data = parse_datatype(datatype).encode(samples)
    path.with_suffix(".sigmf-data").write_bytes(data)
    return path


def change(path: Path, section: str, **values: Any) -> None:
    """Change keys of ``global``, or replace another section; ``core__x`` stands for ``core:x``."""
    raw = json.loads(path.read_text())
    for key, value in values.items():
        raw[section][key.replace("__", ":")] = value
    path.write_text(json.dumps(raw))
