"""What a training run leaves behind for people: ``log.jsonl``, tensorboard, sample pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LOG_FILE = "log.jsonl"
SAMPLES_FOLDER = "samples"
TENSORBOARD_FOLDER = "tensorboard"

Report = Callable[[dict[str, Any]], None]


class TrainingLog:
    """Log of one run, in its folder.

    Args:
        output: the run's folder.
        report: called with every entry.
        after: step at which the run goes on; later entries, of steps that are done again, are taken
            out. 0 begins a new log.
    """

    def __init__(self, output: Path, report: Report | None = None, after: int = 0) -> None:
        self.output = output
        self._report = report
        _cut(output / LOG_FILE, after)
        self._writer = _open_writer(output / TENSORBOARD_FOLDER, after)
        if self._writer is None and report is not None:
            report({"event": f"tensorboard is not installed: figures go to {LOG_FILE} alone"})

    def write(self, entry: dict[str, Any]) -> None:
        """One line of ``log.jsonl``; numbers of entries with a step go to tensorboard as well."""
        with (self.output / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if self._writer is not None and "step" in entry:
            for name, value in _scalars(entry):
                self._writer.add_scalar(name, value, int(entry["step"]))
        if self._report is not None:
            self._report(entry)

    def write_samples(self, samples: NDArray[np.uint8], step: int) -> None:
        """Sample pictures ``[h, w, 3]`` as ``samples/step-NNNNNNN.png`` and in tensorboard."""
        folder = self.output / SAMPLES_FOLDER
        folder.mkdir(exist_ok=True)
        file = folder / f"step-{step:07d}.png"
        temporary = file.with_suffix(".tmp")
        Image.fromarray(samples).save(temporary, "PNG")
        os.replace(temporary, file)
        if self._writer is not None:
            self._writer.add_image("samples", samples, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still waiting."""
        if self._writer is not None:
            self._writer.close()


def _cut(file: Path, after: int) -> None:
    """Leave out entries of later steps than ``after``, and half a line at the end; 0 leaves nothing."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines() if after else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("step", 0) <= after:
            kept.append(line + "\n")
    temporary = file.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, file)


def _open_writer(folder: Path, after: int) -> Any:
    """A tensorboard writer; None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=after + 1 if after else None)


def _scalars(entry: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values for tensorboard; a list of numbers becomes one name for each."""
    for name, value in entry.items():
        if isinstance(value, float) and name != "step":
            yield name, value
        elif isinstance(value, list):
            for number, part in enumerate(value):
                if isinstance(part, float):
                    yield f"{name}/{number}", part
