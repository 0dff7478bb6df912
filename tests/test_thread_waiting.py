"""Torch's threads sleep while they wait, whichever way the program is entered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# Ends at the first import of torch, and says which policy torch would have read.
_STOP_AT_TORCH = """
import os, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Stop())
"""

ENTRIES = {
    "command": "from cli.main import run; run(['benchmark', 'codec', '--help']); "
    "run(['encode', 'x.png', '-q', 'a', '-o', 'x.uoisc'])",
    "library": "import semantic.codec.loader",
    "benchmark": "import runpy; runpy.run_module('benchmarks.codec', run_name='__main__')",
    "script": f"import runpy; runpy.run_path({str(REPOSITORY / 'scripts/make_relevance_classes.py')!r})",
}


@pytest.mark.parametrize("asked", [None, "ACTIVE"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_the_policy_is_set_before_torch_is_loaded(
    tmp_path: Path, entry: str, asked: str | None
) -> None:
    """What the user set stays."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": str(REPOSITORY)}
    if asked is not None:
        environment["OMP_WAIT_POLICY"] = asked
    done = subprocess.run(
        [sys.executable, "-c", _STOP_AT_TORCH + ENTRIES[entry]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == [asked or "PASSIVE"], done.stderr
