"""``uoisc train``: what it writes, how it goes on, and how it says no."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cli import train as command
from cli import train_processes
from cli.main import run
from cli.train_processes import train_together
from semantic.checkpoint import EMBEDDED_CHECKPOINT, read_checkpoint
from semantic.demo_photos import load_photo, photo_names
from semantic.training_state import TrainingError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photos and a listing of them with two questions each."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    rows = []
    for name in photo_names():
        load_photo(name, 32).save(folder / "images" / f"{name}.png")
        for question in ("What is it?", f"Is it a {name}?"):
            rows.append(json.dumps({"image": f"{name}.png", "question": question}))
    (folder / "train.jsonl").write_text("\n".join(rows))
    return folder / "train.jsonl"


@pytest.fixture(autouse=True)
def _settings_of_torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command sets torch up for the whole process, as it should; tests share one."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


def _train(data: Path, output: Path, *more: str) -> int:
    places = ["--data", str(data), "--output", str(output), "--device", "cpu"]
    return run(["train", "tiny", *places, *more])


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_codec_is_trained_and_its_run_goes_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    short = ["--set", "training.validate_every=10", "--set", "training.feature_cache=false"]
    assert _train(photos, output, *short, "--threads", "1", "--precision", "bf16") == 0
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("step 1 elapsed_s")
    assert lines[2].startswith("step 20 ")
    assert lines[2].endswith(" left")
    assert "codec.safetensors: codec " in lines[-1]
    assert "dB on the held-out photos after 40 steps" in lines[-1]
    _, geometry, metadata = read_checkpoint(output / "codec.safetensors")
    assert geometry.image_size == 32
    metrics = json.loads(metadata["metrics"])
    assert metrics["steps"] == 40
    assert {"validation_psnr_db", "usage", "perplexity", "elapsed_s"} <= metrics.keys()
    training = json.loads(metadata["training"])
    assert (training["validate_every"], training["precision"]) == (10, "bf16")
    assert "intent_judge" not in metadata
    names = {"best.safetensors", "last.safetensors", "state.pt", "samples", "log.jsonl"}
    assert names <= {file.name for file in output.iterdir()}

    assert _train(photos, output) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert _train(photos, output, "--resume") == 1
    assert "belongs to another recipe (training." in capsys.readouterr().err
    # A finished run has nothing left to do, and says the same again.
    assert _train(photos, output, *short, "--precision", "bf16", "--resume", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["codec_id"] == geometry.codec_id
    assert result["metrics"]["validation_psnr_db"] == metrics["validation_psnr_db"]
    assert [entry["step"] for entry in _log(output)] == [1, 10, 20, 30, 40]


def test_start_from_another_codec_is_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--set", "training.steps=3"]
    assert _train(photos, tmp_path / "first", *short) == 0
    file = tmp_path / "first" / "codec.safetensors"
    capsys.readouterr()
    assert _train(photos, tmp_path / "second", *short, "--init-from", str(file)) == 0
    assert "weights of another codec, fresh optimiser" in capsys.readouterr().err
    assert _log(tmp_path / "second")[0]["init_from"] == str(file)


def test_the_clock_ends_a_run(photos: Path, tmp_path: Path) -> None:
    # A hundredth of a minute, however many steps that is.
    steps = ["--set", "training.steps=1000000", "--set", "training.warm_up_steps=0"]
    assert _train(photos, tmp_path / "run", *steps, "--max-minutes", "0.01") == 0
    assert _log(tmp_path / "run")[0]["step"] == 1
    metadata = read_checkpoint(tmp_path / "run" / "codec.safetensors")[2]
    assert json.loads(metadata["metrics"])["elapsed_s"] >= 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--set", "training.stepz=4"],
            "--set training.stepz=4: training.stepz: unknown key, did you",
        ),
        (["--set", "training.steps=many"], "training.steps: Input should be a valid integer"),
        (["--precision", "fp8"], "training.precision: Input should be 'fp32', 'bf16' or 'fp16'"),
        (["--precision", "fp16"], "precision fp16 needs device cuda, this is cpu"),
        (["--device", "tpu"], "device 'tpu': expected one of auto, cpu, cuda, mps"),
        (["--set", "training.validation_photos=7"], "7 photos, and training.validation_photos"),
        (["--init-from", str(EMBEDDED_CHECKPOINT)], "another codec than this recipe's"),
        (["--init-from", "absent.safetensors"], "absent.safetensors: no such checkpoint"),
        (["--init-from", "absent.pt"], "absent.pt: no such file"),
        (["--resume"], "holds no run to resume"),
        (["--data", "absent.jsonl"], "absent.jsonl: No such file"),
    ],
)
def test_a_mistake_is_one_line(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert _train(photos, tmp_path / "run", *arguments) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert message in said[0]
    assert "fault in the program" not in said[0]


def test_an_unknown_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "nothing", "--data", "x.jsonl", "--output", str(tmp_path / "run")]) == 1
    assert "nothing.yaml: No such file" in capsys.readouterr().err


def test_weights_that_a_run_has_already(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state.pt").touch()
    more = ["--resume", "--init-from", str(EMBEDDED_CHECKPOINT)]
    assert _train(photos, tmp_path, *more) == 1
    assert "--init-from is for new runs" in capsys.readouterr().err
    assert _train(photos, tmp_path, "--resume") == 1
    assert "state.pt: damaged, or not the state of a training run" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["--set", "training.learning_rate=1e30", "--set", "training.warm_up_steps=0"]
    assert _train(photos, tmp_path / "run", *wild) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: step 1: ")
    assert "lower the learning_rate" in last


def test_the_time_left_follows_this_sessions_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(command.time, "monotonic", lambda: next(clock))
    progress = command._Progress(1000, None)
    # A run that resumed at half of its schedule, and makes a tenth of it in ten seconds.
    progress.watch(500, 0.5, 7000.0)
    progress.watch(600, 0.6, 7010.0)
    progress.report({"step": 600.0, "l1": 0.25})
    assert capsys.readouterr().err == "step 600 l1 0.25 0:00:40 left\n"


def test_processes_are_started_and_report_once(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command's part; what the processes do is in test_semantic_train_processes.py."""
    counts, codes = [], [0, 3]

    def here(function: Any, count: int, settings: Any) -> int:
        counts.append(count)
        pickle.dumps((function, settings))
        function(**settings)
        return codes.pop(0)

    monkeypatch.setattr(train_processes, "train_together", here)
    short = ["--set", "training.steps=3", "--processes", "2", "--json"]
    assert _train(photos, tmp_path / "run", *short) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["steps"] == 3
    assert _train(photos, tmp_path / "run", *short, "--resume") == 3
    assert capsys.readouterr().out == ""
    assert counts == [2, 2]


def _fail(rank_that_fails: int) -> None:
    rank = int(os.environ["RANK"])
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"
    if rank == rank_that_fails:
        raise TrainingError("this one fails")
    if rank == 0:
        time.sleep(60)


@pytest.mark.parametrize("rank_that_fails", [0, 1])
def test_when_one_process_fails_the_others_stop(
    rank_that_fails: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_processes, "GRACE_S", 0.2)
    began = time.monotonic()
    assert train_together(_fail, 2, {"rank_that_fails": rank_that_fails}) == 1
    assert time.monotonic() - began < 40
    reports = ["error: this one fails"] if rank_that_fails == 0 else []
    assert capfd.readouterr().err.splitlines() == reports


def _say_who_and_wait(folder: Path) -> None:
    (folder / os.environ["RANK"]).write_text(str(os.getpid()))
    time.sleep(120)


def test_a_run_whose_parent_is_killed_does_not_go_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    parent = context.Process(
        target=train_together, args=(_say_who_and_wait, 2, {"folder": tmp_path})
    )
    parent.start()
    files = [tmp_path / "0", tmp_path / "1"]
    _wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    parent.kill()
    parent.join()
    _wait_until(lambda: not any(_runs(int(file.read_text())) for file in files))


def _wait_until(happened: Callable[[], bool]) -> None:
    for _ in range(600):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("still not so after a minute")


def _runs(process: int) -> bool:
    """Whether there is such a process, other than one whose end nobody has asked after."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
