"""What the detail layer's training sees of the base layer: indices and pictures, made once and kept on
disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from semantic.codec.base_layer import BaseLayer
from semantic.dataset import PhotoSet

BatchWatch = Callable[[int, int], None]

_BATCH = 16


@dataclass(frozen=True)
class BasePictures:
    """What the base layer makes of every photo (row ``2 n``) and its mirror image (row ``2 n + 1``).

    Args:
        pictures: uint8 ``[2 N, 3, side, side]``, mapped from disk.
        tokens: uint8 ``[2 N, side/32, side/32, M]``.
    """

    pictures: NDArray[np.uint8]
    tokens: NDArray[np.uint8]


def make_base_pictures(
    folder: Path, base: BaseLayer, base_id: str, photos: PhotoSet, watch: BatchWatch | None = None
) -> BasePictures:
    """Encode and decode every photo with its first question, or go on where that was interrupted.

    Args:
        folder: gets ``base_pictures.npy``, ``base_tokens.npy`` and ``base.json``, which says how far they
            are.
        base: the base layer.
        base_id: its ``codec_id``.
        photos: the training set.
        watch: called after every batch with the number of rows done and of all.
    """
    rows, side = 2 * len(photos), photos.pictures.shape[-1]
    grid = side // 32
    files = folder / "base_pictures.npy", folder / "base_tokens.npy"
    shapes = (rows, 3, side, side), (rows, grid, grid, base.segments)
    asked = hashlib.sha256(f"{base_id} {photos.digest} {shapes}".encode()).hexdigest()
    state_file = folder / "base.json"
    state = json.loads(state_file.read_text()) if state_file.exists() else {}
    if state.get("of") != asked or not all(file.exists() for file in files):
        state = {"of": asked, "done": 0}
    mode = "r+" if state["done"] else "w+"
    pictures, tokens = (
        np.lib.format.open_memmap(file, mode, np.uint8, None if state["done"] else shape)
        for file, shape in zip(files, shapes, strict=True)
    )
    for begin in range(state["done"], rows, _BATCH):
        numbers = range(begin, min(begin + _BATCH, rows))
        batch = photos.pictures[[n // 2 for n in numbers]].float() / 255
        mirrored = torch.tensor([n % 2 == 1 for n in numbers])
        batch[mirrored] = batch[mirrored].flip(-1)
        indices = base.encode(batch, [photos.questions[n // 2][0] for n in numbers])
        made = base.decode(indices)
        tokens[begin : numbers.stop] = indices.cpu().numpy()
        pictures[begin : numbers.stop] = (made * 255).round().to(torch.uint8).cpu().numpy()
        state["done"] = numbers.stop
        if begin // _BATCH % 32 == 31 or numbers.stop == rows:
            pictures.flush()
            tokens.flush()
            temporary = state_file.with_suffix(".tmp")
            temporary.write_text(json.dumps(state))
            os.replace(temporary, state_file)
        if watch is not None:
            watch(numbers.stop, rows)
    return BasePictures(
        np.load(files[0], mmap_mode="r", allow_pickle=False), np.load(files[1], allow_pickle=False)
    )
