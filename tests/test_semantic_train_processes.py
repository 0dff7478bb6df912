"""Two real processes train what one does."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cli.main import run
from cli.train_processes import train_together
from semantic.codec_config import read_recipe
from semantic.dataset import PhotoSet
from semantic.demo_photos import photo_names, photo_path
from semantic.pictures import fit_square
from semantic.processes import Processes
from semantic.training_state import TrainingError, start_run
from tests.training_rank import train_and_keep

# Every part of a step in which processes could come apart: noise in place of the quantiser, k-means, dead
# codewords, random damage, both phases, a judge that sees a part of the batch.
EVERYTHING = {
    "training.steps": 16,
    "training.batch_size": 4,
    "training.continuous_steps": 4,
    "training.validate_every": 8,
    "training.ladder_probability": 0.5,
    "training.feature_cache": False,
    "training.intent": "{weight: 0.5, share: 0.75}",
    "training.adversarial": "{weight: 0.1, begins: 0.5, channels: 8}",
    "codec.ladder": "{grid: 4, levels: [[1, 1], [2, 3]]}",
    "codec.quantizer.codewords": 64,
    "codec.quantizer.decay": 0.5,
    "codec.film": "gated",
}
# Parameters without gradient: codebooks in the phase without quantiser, the end of a trained tower.
IDLE_PARAMETERS = {
    "training.steps": 8,
    "training.continuous_steps": 4,
    "training.feature_cache": False,
    "codec.quantizer.update": "gradient",
    "codec.backbone.trainable": True,
}
RUNS = {"everything": EVERYTHING, "idle": IDLE_PARAMETERS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen small photos in ``photos``, and the runs of one and of two processes: ``one``, ``two``."""
    folder = tmp_path_factory.mktemp("training")
    for name in ("photos", "one", "two"):
        (folder / name).mkdir()
    for name in photo_names():
        # The files' own numbers: where rounding decides between codewords the runs part, as they do with
        # the rocket in its own colour space.
        with Image.open(photo_path(name)) as picture:
            whole = fit_square(picture.convert("RGB"), 64)
        whole.info.clear()
        whole.crop((0, 0, 32, 32)).save(folder / "photos" / f"{name}-a.png")
        whole.crop((32, 32, 64, 64)).save(folder / "photos" / f"{name}-b.png")
    for name in RUNS:
        assert run(_arguments(folder, "one", name)) == 0
    return folder


def _arguments(folder: Path, processes: str, name: str) -> list[str]:
    changes = [f"--set={key}={value}" for key, value in RUNS[name].items()]
    places = [f"--data={folder / 'photos'}", f"--output={folder / processes / name}"]
    return ["train", "tiny", *places, "--device=cpu", *changes]


@pytest.fixture(scope="module")
def said(folder: Path) -> list[str]:
    """What each of two processes said on standard error while they trained together."""
    runs = [(_free_port(), _arguments(folder, "two", name)) for name in RUNS]
    code = train_together(train_and_keep, 2, {"folder": folder, "runs": runs})
    errors = [(folder / f"rank-{rank}.txt").read_text() for rank in range(2)]
    assert code == 0, errors
    return errors


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_end_with_the_same_weights(folder: Path, said: list[str], name: str) -> None:
    number = list(RUNS).index(name)
    one, other = (torch.load(folder / f"weights-{number}-{rank}.pt") for rank in range(2))
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(other[key], value), key


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_does(folder: Path, said: list[str], name: str) -> None:
    one, two = folder / "one" / name, folder / "two" / name
    expected, found = _log(one), _log(two)
    assert [e["step"] for e in found] == [e["step"] for e in expected]
    for wanted, entry in zip(expected, found, strict=True):
        assert wanted.keys() == entry.keys()
        for key in wanted.keys() - {"elapsed_s"}:
            assert np.allclose(entry[key], wanted[key], rtol=1e-3, atol=1e-4), (key, wanted)
    alone, shared = (torch.load(run / "state.pt", weights_only=True) for run in (one, two))
    for key, value in alone["model"].items():
        # Not biases: those that a normalisation takes out again have rounding for a gradient.
        if value.ndim > 1:
            distance = (shared["model"][key] - value).norm() / value.norm()
            assert distance < 1e-3, (key, distance)


def test_the_run_had_every_part(folder: Path) -> None:
    log = _log(folder / "one" / "everything")
    assert [e["step"] for e in log] == [1, 8, 16]
    assert sum(e["revived"] for e in log) > 0
    assert {"discriminator", "intent"} <= log[-1].keys()


def test_only_the_main_process_speaks_and_writes(folder: Path, said: list[str]) -> None:
    assert "codec.safetensors" in said[0]
    assert said[1] == ""
    for name in RUNS:
        one, two = (sorted(p.name for p in (folder / n / name).iterdir()) for n in ("one", "two"))
        assert one == two


def test_a_batch_that_cannot_be_shared_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    def three(self: Processes, *_: Any) -> None:
        self.count, self.index, self.device = 3, 0, torch.device("cpu")

    monkeypatch.setattr(Processes, "__init__", three)
    photos = PhotoSet(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), (("What is it?",),) * 5, "0")
    with pytest.raises(TrainingError, match="batch_size 4 cannot be shared evenly by 3 processes"):
        start_run(read_recipe(Path("tiny")), photos)


def test_alone_nothing_is_shared() -> None:
    processes = Processes("cpu")
    values = torch.rand(4, 2)
    assert (processes.index, processes.count, processes.main) == (0, 1, True)
    assert processes.gather(values) is values
    assert processes.mean(values) is values
    assert processes.own([1, 2, 3]) == [1, 2, 3]
