"""Builds the virtual radio and makes SoapySDR know it. Used by the fixture of the same name."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
_SOURCES = (HERE / "air.hpp", HERE / "virtual_radio.cpp")
_COMMAND = ("g++", "-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")
_LIBRARIES = ("-lSoapySDR", "-lpthread")
_PLUGIN_PATH = "SOAPY_SDR_PLUGIN_PATH"


def why_not() -> str | None:
    """What is missing to build it, None where nothing is."""
    if shutil.which("g++") is None:
        return "no g++"
    if not Path("/usr/include/SoapySDR/Device.hpp").exists():
        return "no libsoapysdr-dev"
    return None


def build(folder: Path) -> Path:
    """Compile into a folder, unless it holds the outcome of the same sources already.

    Returns:
        The folder with the module, for ``SOAPY_SDR_PLUGIN_PATH``.
    """
    digest = hashlib.sha256(" ".join(_COMMAND).encode())
    for source in _SOURCES:
        digest.update(source.read_bytes())
    place = folder / digest.hexdigest()[:16]
    module = place / "libuoiscvirtual.so"
    if not module.exists():
        place.mkdir(parents=True, exist_ok=True)
        # Beside its name and then renamed: several test processes may build it at a time.
        partial = place / f"partial-{os.getpid()}"
        subprocess.run(
            [*_COMMAND, "-o", str(partial), str(_SOURCES[-1]), *_LIBRARIES], check=True, timeout=300
        )
        partial.rename(module)
    return place


def load(place: Path) -> None:
    """Make SoapySDR know the module, in this process and those it starts.

    SoapySDR looks at its search path once, which may be over.
    """
    before = os.environ.get(_PLUGIN_PATH)
    if str(place) not in (before or "").split(":"):
        os.environ[_PLUGIN_PATH] = f"{place}:{before}" if before else str(place)
    library = ctypes.CDLL(ctypes.util.find_library("SoapySDR"))
    library.SoapySDR_loadModule.restype = ctypes.c_void_p
    library.SoapySDR_loadModule(str(place / "libuoiscvirtual.so").encode())
