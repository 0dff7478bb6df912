"""Several processes on this machine that train together (:mod:`semantic.processes`)."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from cli.errors import is_user_error, report_error

# How long the others may take to say why they stop, once one has stopped.
GRACE_S = 10.0


def train_together(command: Callable[..., object], count: int, settings: Mapping[str, Any]) -> int:
    """Call a command with the same settings in ``count`` processes, and wait for all of them.

    They meet at a free port of 127.0.0.1. When one fails, the others are stopped.

    Args:
        command: a function of a module.
        count: of processes.
        settings: keyword arguments of the command.

    Returns:
        The exit code: that of the main process, or else of the first that failed.
    """
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    processes: list[BaseProcess] = [
        context.Process(target=_take_part, args=(command, rank, count, port, settings))
        for rank in range(count)
    ]
    try:
        for process in processes:
            process.start()
        _wait_for(processes)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            process.join()
    codes = [process.exitcode or 0 for process in processes]
    return abs(next((code for code in codes if code > 0), min(codes)))


def _wait_for(processes: Sequence[BaseProcess]) -> None:
    """Until all have ended, or a while after the first failure."""
    waiting = {process.sentinel: process for process in processes}
    while waiting:
        ended = [waiting.pop(number) for number in wait(list(waiting)) if isinstance(number, int)]
        for process in ended:
            process.join()  # its exit code may come a little later than its end
        if any(process.exitcode for process in ended):
            deadline = time.monotonic() + GRACE_S
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))
            return


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _end_with_parent() -> None:
    """Killed outright, the parent stops nobody; a run must not go on unseen and write into its folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _take_part(
    command: Callable[..., object],
    rank: int,
    count: int,
    port: int,
    settings: Mapping[str, Any],
) -> None:
    """What each process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(count),
        LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    try:
        command(**settings)
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - as cli.main does
        # A mistake of the user's is every process's: one report is enough.
        if rank and (is_user_error(error) or isinstance(error, KeyboardInterrupt)):
            sys.exit(1)
        sys.exit(report_error(error))
