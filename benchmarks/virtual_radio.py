"""The tests' virtual radio as something to measure on: built, put into a profile, in an air of its own."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from benchmarks.radio import Bench
from benchmarks.radio_processes import REPOSITORY, RadioBenchmarkError

_BUILDER = REPOSITORY / "tests/virtual_radio/build.py"
_DRIVER = "uoiscvirtual"
# Es/N0 14 dB at the profiles' level of 0.25 and 4 samples per symbol: 10 log10(4 x 0.25^2) + 20.
_NOISE = "noise_dbfs=-20"
_SETTINGS = {
    "uhd": ("usrp", ["radio.device_args=type=soapy,driver={driver},{arguments}"]),
    "soapy": (
        "soapy",
        [
            *("radio.driver={driver}", "radio.device_args={arguments}"),
            *("radio.tx.antenna=TX/RX", "radio.rx.antenna=RX2"),
            *("radio.tx.gain_db=10", "radio.rx.gain_db=20"),
        ],
    ),
}


@contextmanager
def virtual_bench(kind: str, overrides: Sequence[str] = ()) -> Iterator[Bench]:
    """A bench at 1 Msym/s and 4 Msps, whose air is removed afterwards.

    Args:
        kind: uhd or soapy.
        overrides: of its profile.

    Raises:
        RadioBenchmarkError: the driver cannot be built here.
    """
    builder = _load_builder()
    if (missing := builder.why_not()) is not None:
        raise RadioBenchmarkError(f"{missing}: the virtual radio cannot be built")
    place = builder.build(REPOSITORY / ".cache/virtual_radio")
    air = f"benchmark-{os.getpid()}"
    profile, settings = _SETTINGS[kind]
    arguments = f"air={air},{_NOISE}"
    rates = ["waveform.symbol_rate_hz=1e6", "waveform.samples_per_symbol=4"]
    own = [text.format(driver=_DRIVER, arguments=arguments) for text in settings]
    try:
        # That driver and no other: with two that were built apart SoapySDR takes either.
        yield Bench(profile, [*own, *rates, *overrides], {"SOAPY_SDR_PLUGIN_PATH": str(place)})
    finally:
        Path(f"/dev/shm/uoisc-air-{air}").unlink(missing_ok=True)


def _load_builder() -> ModuleType:
    """The tests are not installed, and their folder is not on the path."""
    spec = importlib.util.spec_from_file_location("virtual_radio_build", _BUILDER)
    if not _BUILDER.exists() or spec is None or spec.loader is None:
        raise RadioBenchmarkError(
            f"{_BUILDER} is not there: the virtual radio comes with the project's source"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
