"""How loud the question should be to the embedded judge: its temperature tau, measured.

    python -m benchmarks.judge_temperature --labelled DIR --objects DIR [--seed 0]

A small tau lets the question decide (any photo is an elephant when one is asked for), a large one does not
hear it. What is wanted is a judge that says the asked name where the thing is and not where it is not:

    gain = P(asked name | photo that shows it) - P(asked name | another photo)

measured twice: on photos with their ImageNet class in the file name (``n02123045_tabby.jpg``; the answer
must be that very class), and on photos with named objects (``objects.jsonl``; the answer must be a class
whose nearest object name, by the text tower, is the asked one; person left out, it is no ImageNet class).
The question is always "Is there a NAME?".
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semantic.asked_photos import PhotosError, list_photos
from semantic.judge import RecognitionJudge
from semantic.judges.agreement import another_each
from semantic.pictures import load_picture

TEMPERATURES = (0.03, 0.05, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.3, 0.5, 1.0, 3.0)
SIDE = 160


def look(judge: RecognitionJudge, files: list[Path]) -> Tensor:
    """Logarithm of p(class | photo), float32 ``[N, 1000]``, of photos at the codec's size."""
    return judge.log_classes([load_picture(file, SIDE) for file in files])


def labelled_gain(
    judge: RecognitionJudge, seen: Tensor, labels: NDArray[np.int64], seed: int
) -> tuple[float, float]:
    """P(own class) when it is asked for, about the photo itself and about another one."""
    others = another_each(len(labels), seed)
    if others is None:
        raise PhotosError("one labelled photo is not enough")
    heard = judge.log_relevance([f"Is there a {judge.class_names[label]}?" for label in labels])
    own = (seen + heard).argmax(1).numpy() == labels
    other = (seen[torch.from_numpy(others)] + heard).argmax(1).numpy() == labels
    return float(own.mean()), float(other.mean())


def object_gain(
    judge: RecognitionJudge, seen: Tensor, objects: list[set[str]], seed: int
) -> tuple[float, float]:
    """P(asked object) about a photo that shows it and about a random one that does not."""
    rng = np.random.default_rng(seed)
    names = sorted(set().union(*objects))
    nearest = (judge.name_vectors @ judge.text_vectors(names).T).argmax(1).numpy()
    asked = [(photo, name) for photo, shown in enumerate(objects) for name in sorted(shown)]
    without = [
        int(rng.choice([k for k, shown in enumerate(objects) if name not in shown]))
        for _, name in asked
    ]
    heard = judge.log_relevance([f"Is there a {name}?" for _, name in asked])
    wanted = np.array([names.index(name) for _, name in asked])
    shown = (seen[[photo for photo, _ in asked]] + heard).argmax(1).numpy()
    absent = (seen[without] + heard).argmax(1).numpy()
    return float((nearest[shown] == wanted).mean()), float((nearest[absent] == wanted).mean())


def imagenet_ids() -> list[str]:
    """WordNet ids of the 1000 classes in the order of their indices, from the list in timm."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        raise SystemExit("timm is not installed; run `make setup`")
    file = Path(spec.origin).parent / "data" / "_info" / "imagenet_synsets.txt"
    return file.read_text(encoding="utf-8").split()


def read_labelled(folder: Path) -> tuple[list[Path], NDArray[np.int64]]:
    """Photos and their class indices."""
    ids, files = imagenet_ids(), list_photos(folder)
    found = [re.match(r"n\d{8}", file.name) for file in files]
    unnamed = [file.name for file, match in zip(files, found, strict=True) if match is None]
    if unnamed:
        raise PhotosError(f"{folder / unnamed[0]}: no ImageNet id at the start of its name")
    return files, np.array([ids.index(match[0]) for match in found if match is not None])


def read_objects(folder: Path) -> tuple[list[Path], list[set[str]]]:
    """Photos and the names of what is in them, person left out."""
    lines = (folder / "objects.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    names = [{thing["name"] for thing in row["objects"]} - {"person"} for row in rows]
    return [folder / "images" / row["image"] for row in rows], names


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--labelled", type=Path, required=True, help="class in the file names")
    parser.add_argument("--objects", type=Path, required=True, help="images/ and objects.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    judge = RecognitionJudge()
    files, labels = read_labelled(arguments.labelled)
    seen = look(judge, files)
    top = float((seen.argmax(1).numpy() == labels).mean())
    object_files, objects = read_objects(arguments.objects)
    seen_objects = look(judge, object_files)
    asked = sum(map(len, objects))
    print(f"{len(files)} labelled photos at {SIDE} pixels: top-1 {top:.1%} with no question")
    print(f"{len(object_files)} photos with {asked} named kinds of objects; seed {arguments.seed}")
    print("        labelled photos           named objects         sum of")
    print("   tau  shown  other   gain    shown absent   gain      gains")
    for tau in TEMPERATURES:
        hearing = judge.with_temperature(tau)
        own, other = labelled_gain(hearing, seen, labels, arguments.seed)
        shown, absent = object_gain(hearing, seen_objects, objects, arguments.seed)
        print(
            f"{tau:6.2f} {own:6.3f} {other:6.3f} {own - other:6.3f}   {shown:6.3f} {absent:6.3f} "
            f"{shown - absent:6.3f}   {own - other + shown - absent:8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
