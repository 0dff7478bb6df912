"""``uoisc train``: a codec from photos and questions."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.output import make_console, make_folder, print_json

if TYPE_CHECKING:
    from semantic.codec_config import Recipe


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


def train(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="embedded, tiny, ..., or a path of a .yaml file."),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="JSON lines with image and question, VQA v2 JSON, or a folder of photos."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in it.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value: training.steps=1000."),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Start from this codec's weights, or a run's state.pt; fresh optimiser."),
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Anneal over so much time, not over steps.")
    ] = None,
    device: options.Device = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch; default: torch decides.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16; default: as the recipe says.")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Share every batch among so many, one GPU each.")
    ] = 1,
    as_json: options.Json = False,
) -> None:
    """Train a codec.

    Instead of --processes, torchrun or accelerate launch (-m cli.main train ...) may start them.
    """
    from semantic.recipes import load_recipe
    from semantic.training.detail_recipe import is_detail_recipe
    from semantic.training_state import TrainingError, check_folder

    if is_detail_recipe(recipe):
        if overrides or precision or processes > 1:
            raise TrainingError(
                f"{recipe}: a recipe with a base takes neither --set, --precision nor --processes"
            )
        check_folder(output, resume)
        _train_detail(recipe, data, output, init_from, max_minutes, device, threads, as_json)
        return
    if resume and init_from is not None:
        raise TrainingError("--init-from is for new runs: one that resumes has its weights already")
    exact = [] if precision is None else [f"training.precision={precision}"]
    settings: dict[str, Any] = {
        "recipe": load_recipe(recipe, [*(overrides or ()), *exact]),
        "data": data,
        "output": output,
        "init_from": init_from,
        "max_minutes": max_minutes,
        "device": device,
        "threads": threads,
    }
    check_folder(output, resume)
    if processes == 1:
        main = train_here(**settings)
    else:
        from cli.train_processes import train_together

        if code := train_together(train_here, processes, settings):
            raise typer.Exit(code)
        main = True
    if main:
        _conclude(output / "codec.safetensors", as_json)


def train_here(
    recipe: Recipe,
    data: Path,
    output: Path,
    *,
    init_from: Path | None,
    max_minutes: float | None,
    device: str,
    threads: int | None,
) -> bool:
    """Train in this process, with its fellows where it has some; True in the main one, which reports."""
    from semantic.dataset import read_photo_set
    from semantic.train import train as train_codec

    _set_torch_up(recipe, threads)
    photos = read_photo_set(data, recipe.codec.image_size)
    with _Progress(recipe.training.steps, max_minutes) as progress:
        run = train_codec(
            recipe,
            photos,
            output,
            max_minutes=max_minutes,
            device=device,
            report=progress.report,
            watch=progress.watch,
            init_from=init_from,
        )
    run.processes.end()
    return run.processes.main


def _train_detail(
    recipe_file: Path,
    data: Path,
    output: Path,
    init_from: Path | None,
    max_minutes: float | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """The detail layer of a two-layer codec, or a second head for one."""
    import torch

    from semantic.codec.detail_checkpoint import base_file
    from semantic.codec.vq_codec import load_vq_codec
    from semantic.dataset import read_photo_set
    from semantic.geometries import CHECKPOINT_FOLDER
    from semantic.training.detail import CHECKPOINT_FILE, train_detail
    from semantic.training.detail_recipe import DetailRecipe, read_detail_recipe
    from semantic.training.recognition import HEAD_FILE, train_recognition
    from semantic.training_state import TrainingError

    if threads is not None:
        torch.set_num_threads(threads)
    recipe = read_detail_recipe(recipe_file)
    of_detail = isinstance(recipe, DetailRecipe)
    if init_from is not None and not of_detail:
        raise TrainingError(f"{recipe_file}: a head begins as its codec's own, without --init-from")
    make_folder(output)
    start = recipe.base if isinstance(recipe, DetailRecipe) else recipe.codec
    if start.name == str(start):
        start = CHECKPOINT_FOLDER / start
    base = load_vq_codec(start if of_detail else base_file(start), device, towers=False)
    photos = read_photo_set(data, base.config.image_size)
    with _Progress(recipe.training.steps, max_minutes) as progress:
        common: dict[str, Any] = {
            "max_minutes": max_minutes,
            "report": progress.report,
            "watch": progress.watch,
            "watch_base": progress.watch_base,
        }
        if isinstance(recipe, DetailRecipe):
            train_detail(recipe, base, photos, output, init_from=init_from, **common)
        else:
            train_recognition(recipe, start, base, photos, output, **common)
    _conclude(output / (CHECKPOINT_FILE if of_detail else HEAD_FILE), as_json)


def _set_torch_up(recipe: Recipe, threads: int | None) -> None:
    """Threads, and how exact products of float32 matrices are where the recipe asks for less."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # accelerate would choose otherwise
    if recipe.training.arithmetic(fast_bf16=True) != "fp32":
        torch.set_float32_matmul_precision("medium")


# What the different kinds of training call the PSNR on the held-out photos.
_PSNR_KEYS = ("validation_psnr_db", "psnr_db_at_0", "psnr_db_at_-0.9")


def _conclude(file: Path, as_json: bool) -> None:
    """What came of it."""
    import json

    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    metrics = json.loads(metadata.get("metrics") or metadata["training"])
    if as_json:
        print_json({"checkpoint": str(file), "codec_id": metadata["codec_id"], "metrics": metrics})
        return
    psnr_db = next(metrics[key] for key in _PSNR_KEYS if key in metrics)
    make_console().print(
        f"{file}: codec {metadata['codec_id']}, {psnr_db:.2f} dB on the held-out photos after "
        f"{metrics['steps']:.0f} steps",
        markup=False,
    )


class _Progress:
    """A bar with the time left on a terminal; elsewhere the time left stands in every line.

    Args:
        steps: of the schedule.
        max_minutes: of the schedule, where it follows the clock.
    """

    def __init__(self, steps: int, max_minutes: float | None) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = make_console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[left]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=1.0, left="")
        self._of = f" of {steps}" if max_minutes is None else ""
        self._begun: tuple[float, float] | None = None
        self._left = ""

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def watch(self, step: int, done: float, elapsed_s: float) -> None:
        """After every step: the share that is done, and from this session's pace the time left."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now, done
        begun_at, begun_done = self._begun
        if done > begun_done:
            left_s = (now - begun_at) * max(0.0, 1 - done) / (done - begun_done)
            self._left = f"{hours(left_s)} left"
        self._bar.update(
            self._task,
            completed=min(done, 1.0),
            description=f"step {step}{self._of}, {hours(elapsed_s)}",
            left=self._left,
        )

    def watch_base(self, done: int, rows: int) -> None:
        """After every batch of photos whose base layer is made."""
        self._bar.update(
            self._task, completed=done / rows, description=f"base layer, {done} of {rows}"
        )
        if not self._console.is_terminal and (done == rows or done % 1600 == 0):
            self._console.print(f"base layer, {done} of {rows}", markup=False)

    def report(self, entry: dict[str, Any]) -> None:
        """One line per logged entry."""
        parts = [
            f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in entry.items()
            if not isinstance(value, list)
        ]
        if self._left and not self._console.is_terminal and "step" in entry:
            parts.append(self._left)
        self._console.print(" ".join(parts), markup=False)


def hours(seconds: float) -> str:
    """``h:mm:ss``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
