"""``uoisc doctor``: is everything here that the link needs, and if not, what mends it?

Looks at this machine only. In particular no radio is searched for: an unfiltered search broadcasts on
every network interface.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from cli import options
from cli.errors import describe, one_line
from cli.output import make_console, print_json

_SETUP = "run: make setup (docs/install.md)"


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, whether it will do, what is there, what to do about it."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(json: options.Json = False) -> None:
    """Check this machine; exit code 1 when something is missing."""
    checks = []
    with make_console().status("checking") as status:
        for name, (look, mend) in _LOOKS.items():
            status.update(f"checking {name}")
            checks.append(_check(name, look, mend))
    all_ok = all(check.ok for check in checks)
    if json:
        print_json({"checks": [asdict(check) for check in checks], "all_ok": all_ok})
    else:
        print_table(checks)
    if not all_ok:
        raise typer.Exit(1)


class _NotOkError(Exception):
    """What was found will not do."""


def _check(name: str, look: Callable[[], str], mend: str) -> Check:
    try:
        return Check(name, True, look())
    except _NotOkError as error:
        return Check(name, False, one_line(str(error)), mend)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return Check(name, False, one_line(describe(error)), mend)


def _python() -> str:
    version = platform.python_version()
    if sys.version_info < (3, 11):  # noqa: UP036 - a doctor does not take the patient's word
        raise _NotOkError(f"{version}, expected 3.11 or newer")
    return f"{version}, {sys.executable}"


def _gnuradio() -> str:
    from gnuradio import gr

    version = str(gr.version())
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < (3, 10):
        raise _NotOkError(f"{version}, expected 3.10 or newer")
    return version


def _uhd() -> str:
    from gnuradio import uhd

    return f"gr-uhd, UHD {uhd.get_version_string()}"


def _soapy() -> str:
    from gnuradio import soapy

    return f"gr-soapy, with {soapy.source.__name__} and {soapy.sink.__name__}"


def _numpy() -> str:
    import numpy as np

    # GNU Radio's bindings were compiled for the NumPy of the Python below the virtual environment.
    base = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    system = subprocess.run(
        [base, "-c", "import numpy; print(numpy.__version__)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()
    if np.__version__.partition(".")[0] != system.partition(".")[0]:
        raise _NotOkError(f"{np.__version__}, but GNU Radio was made for {system}")
    return f"{np.__version__} (GNU Radio's: {system})"


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none, the CPU computes"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def _weights() -> str:
    from semantic.codec.loader import load_codec
    from semantic.geometries import shipped_geometries

    codec = load_codec(None, "cpu")
    if not set(codec.geometries) <= set(shipped_geometries()):
        raise _NotOkError(f"codec {codec.codec_id}: its .json does not describe its .safetensors")
    return f"codec {codec.codec_id}"


def _caches() -> str:
    import tempfile

    from blocks.caches import NUMBA_VARIABLE, is_writable, user_cache

    folder = Path(os.environ.get(NUMBA_VARIABLE, user_cache()))
    if not is_writable(folder):
        raise _NotOkError(f"{folder}: not writable")
    passing = folder.is_relative_to(tempfile.gettempdir())
    return (
        f"{folder}{' (for this process alone: Numba compiles anew every time)' if passing else ''}"
    )


def _ports() -> str:
    from sdr_config.load import load_profile, shipped_profiles
    from sdr_config.schema import ZmqRadio

    addresses = set()
    for name in shipped_profiles():
        profile = load_profile(name)
        sockets = profile.zmq
        addresses |= {sockets.frames_in, sockets.pictures_out, sockets.watch_out}
        if isinstance(profile.radio, ZmqRadio):
            addresses.add(profile.radio.address)
    ports = sorted(int(one.rpartition(":")[2]) for one in addresses if one[-1].isdecimal())
    taken = [port for port in ports if not _is_free(port)]
    if taken:
        raise _NotOkError(f"in use on 127.0.0.1: {', '.join(map(str, taken))}")
    return f"free on 127.0.0.1: {', '.join(map(str, ports))}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As ZMQ does it: a port that is only cooling down counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_LOOKS: dict[str, tuple[Callable[[], str], str]] = {
    "Python": (_python, _SETUP),
    "GNU Radio": (_gnuradio, _SETUP),
    "UHD": (_uhd, "install gr-uhd: apt-get install gnuradio uhd-host"),
    "SoapySDR": (_soapy, "install gr-soapy: apt-get install gnuradio"),
    "NumPy": (_numpy, f"rm -r .venv, then {_SETUP}"),
    "torch": (_torch, _SETUP),
    "CUDA": (_cuda, "check the NVIDIA driver, or use --device cpu"),
    "weights": (_weights, "git checkout semantic/checkpoints, then run: make setup"),
    "caches": (_caches, "set NUMBA_CACHE_DIR to a folder that this user may write to"),
    "ports": (
        _ports,
        "stop the other transmitter or receiver, or choose other addresses in section zmq",
    ),
}


def print_table(checks: list[Check]) -> None:
    """The findings for people, on standard output."""
    from rich.table import Table

    table = Table("check", "", "found", "what to do")
    for check in checks:
        mark = "[green]ok[/]" if check.ok else "[red]FAILED[/]"
        table.add_row(check.name, mark, check.found, check.mend)
    make_console(stderr=False).print(table)
