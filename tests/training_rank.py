"""One of several processes that train together; tests/test_semantic_train_processes.py starts them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

import semantic.train
from cli.main import run
from semantic.processes import Processes


def check_exchange(processes: Processes) -> None:
    """What the processes tell each other, and where they listen."""
    share = processes.own(torch.arange(6).reshape(6, 1))
    assert torch.equal(processes.gather(share), torch.arange(6).reshape(6, 1))
    assert processes.mean_record({"a": 1.0 + processes.index}) == {"a": 1.5}
    connections = psutil.Process().net_connections("inet")
    addresses = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}, addresses


def train_and_keep(folder: Path, runs: Sequence[tuple[int, list[str]]]) -> None:
    """Several runs one after the other.

    Args:
        folder: for what this process says, ``rank-<rank>.txt``, and for the weights that it ends each run
            with, ``weights-<run>-<rank>.pt``.
        runs: a port to meet at, and arguments of the ``uoisc`` command.
    """
    rank = os.environ["RANK"]
    start, started = semantic.train.start_run, []

    def noting(*arguments: Any) -> Any:
        started.append(start(*arguments))
        check_exchange(started[-1].processes)
        return started[-1]

    semantic.train.start_run = noting
    sys.stderr.flush()
    os.dup2(os.open(folder / f"rank-{rank}.txt", os.O_CREAT | os.O_WRONLY), 2)
    for number, (port, arguments) in enumerate(runs):
        os.environ["MASTER_PORT"] = str(port)
        assert run(arguments) == 0
        weights = started[-1].model.state_dict()
        if started[-1].adversary is not None:
            weights |= started[-1].adversary.network.state_dict()
        torch.save(weights, folder / f"weights-{number}-{rank}.pt")
