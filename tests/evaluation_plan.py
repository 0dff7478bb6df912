"""A small evaluation that the tests run: two demo photos, a tiny untrained codec, a grid of a few points."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import yaml

from semantic.checkpoint import write_checkpoint
from semantic.codec_config import Recipe, read_recipe
from semantic.demo_photos import describe_photo, photo_path
from semantic.model import CodecModel

SIDE = 96  # MS-SSIM needs 88
# (photo, question) of every row.
ROWS = (
    ("chelsea.png", describe_photo("chelsea").questions[0]),
    ("chelsea.png", describe_photo("chelsea").questions[1]),
    ("coffee.png", describe_photo("coffee").questions[0]),
)
PLAN = {
    "sets": [{"label": "demo", "folder": "photos", "questions": "questions.jsonl"}],
    "systems": [
        {"kind": "uoisc", "label": "tiny", "checkpoint": "tiny.safetensors"},
        {"kind": "jpeg2000", "label": "JPEG 2000", "same_bits_as": "tiny"},
        {"kind": "webp", "label": "too small", "bytes": 4, "image_size": SIDE},
        {"kind": "blank", "label": "blank"},
        {"kind": "wrong_picture", "label": "wrong"},
    ],
    "channels": ["none", "awgn", "rayleigh"],
    "snr_db": [3.8, 20],
    "policies": ["fixed", "table"],
    "seeds": [1],
    "keep_pictures": 1,
}
# One air, one system and a control: what a command test needs of a grid.
SMALL = {
    "systems": [
        {"kind": "uoisc", "label": "tiny", "checkpoint": "tiny.safetensors"},
        {"kind": "blank", "label": "blank"},
    ],
    "channels": ["awgn"],
    "snr_db": [20],
    "policies": ["fixed"],
    "keep_pictures": 0,
}


def tiny_checkpoint(file: Path) -> None:
    """An untrained codec of the tiny recipe for 96 pixels, 9,216 bits a picture."""
    data = read_recipe(Path("tiny")).model_dump()
    codec = data["codec"]
    codec["image_size"] = codec["backbone"]["description"]["vision_cfg"]["image_size"] = SIDE
    codec["quantizer"]["codewords"] = 256
    for layer in codec["layers"]:
        layer["grid"] = SIDE // 8
    recipe = Recipe.model_validate(data)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CodecModel(recipe.codec)
    write_checkpoint(file, recipe, model, {}, "0" * 64)


def write_plan(folder: Path, **changes: object) -> Path:
    """Photos, questions, checkpoint and plan; the plan's file."""
    photos = folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    for name in ("chelsea", "coffee"):
        shutil.copy(photo_path(name), photos / f"{name}.png")
    lines = [json.dumps({"image": image, "question": question}) for image, question in ROWS]
    (photos / "questions.jsonl").write_text("\n".join(lines))
    if not (folder / "tiny.safetensors").exists():
        tiny_checkpoint(folder / "tiny.safetensors")
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump(PLAN | changes))
    return file
