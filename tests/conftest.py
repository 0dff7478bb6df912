"""Settings and fixtures shared by all tests."""

from __future__ import annotations

import os

# Before NumPy, Numba or torch are loaded: several test processes share the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from semantic.codec.settings import EncoderSettings
from tests.virtual_radio import build

if TYPE_CHECKING:
    from semantic.codec.vq_codec import Codec
    from semantic.index_frame import FrameGeometry

REPOSITORY = Path(__file__).resolve().parent.parent

# The same examples in every run: a failure must be one that somebody else can see as well.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

RunCommand = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def uoisc(tmp_path: Path) -> RunCommand:
    """The real command in a process of its own: ``uoisc("encode", "a.png", timeout_s=60)``.

    Runs in an empty folder, so that no command can lean on lying in the repository.
    """

    def run(*arguments: str | Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def virtual_radio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """SoapySDR knows the driver ``uoiscvirtual``, in this process and in those it starts."""
    missing = build.why_not()
    if missing is not None:
        pytest.skip(f"{missing}: the virtual radio cannot be built")
    cache = getattr(request.config, "cache", None)
    folder = cache.mkdir("virtual_radio") if cache else tmp_path_factory.mktemp("virtual_radio")
    build.load(build.build(folder))


def rate_at(codec: Codec, bits_per_pixel: float) -> FrameGeometry:
    """The codec's highest rate that is not above this one."""
    return codec.rate(EncoderSettings(bits_per_pixel=bits_per_pixel))


def at(rate: FrameGeometry, **others: Any) -> EncoderSettings:
    """Settings for exactly this rate of a codec with a few."""
    return EncoderSettings(bits=rate.payload_bits, **others)
