"""Where Numba and GNU Radio keep what they write, for users who may write nowhere of their own.

A service account has no home, another user none of this installation's folders: Numba then refuses to
load any compiled function. They get a temporary folder that goes when the process ends.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

NUMBA_VARIABLE = "NUMBA_CACHE_DIR"
_PACKAGE = Path(__file__).parent / "modem"


def provide_caches() -> None:
    """Set the environment where that is needed; before Numba is loaded."""
    home = Path(os.environ.get("HOME", "/"))
    # GNU Radio makes ~/.gnuradio, and stops where it cannot.
    needs_home = not (home / ".gnuradio").is_dir() and not is_writable(home)
    needs_cache = NUMBA_VARIABLE not in os.environ and not (
        is_writable(_PACKAGE) or is_writable(user_cache())
    )
    if not (needs_home or needs_cache):
        return
    # New for every process: Numba unpickles what it finds there.
    folder = tempfile.mkdtemp(prefix="uoisc-cache-")
    # A forked child's end must not take it from its parent.
    atexit.register(_remove, folder, os.getpid())
    if needs_cache:
        os.environ[NUMBA_VARIABLE] = folder
    if needs_home:
        os.environ["HOME"] = folder


def user_cache() -> Path:
    """The user's own folder for such things."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which may have to be made first."""
    there = next((one for one in (folder, *folder.parents) if one.exists()), None)
    return there is not None and os.access(there, os.W_OK | os.X_OK)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
