"""Where the numbers in semantic/relevance_confidence.py come from.

    python -m benchmarks.relevance_confidence FOLDER      # as coco128: images/ and objects.jsonl

A ridge logistic regression of "the map's largest token lies in the asked box" on the two signs, over the
objects (persons among them) of the photos of even number.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.named_objects import askable, read_named_regions
from semantic.codec.vq_codec import picture_to_tensor
from semantic.codec_config import PackagedTowers, read_recipe
from semantic.pictures import load_picture
from semantic.relevance import RelevanceMapper, load_relevance

_PICTURE_SIDE = 160
_GRID = 20
# Of the squared coefficients of standardised signs, per object.
_RIDGE = 0.05
_NEWTON_STEPS = 30

Array = NDArray[np.float64]


def signs_and_hits(mapper: RelevanceMapper, data: Path) -> tuple[Array, Array]:
    """Signs ``[N, 2]`` (peak, presence) and hits ``[N]``, 0 or 1, of all objects in even photos."""
    signs, hits = [], []
    for region in read_named_regions(data):
        if region.photo % 2 or not askable(region, _GRID):
            continue
        picture = picture_to_tensor(load_picture(region.file, _PICTURE_SIDE))
        cells, weights = mapper.cells(picture), mapper.class_weights([region.question])
        found = mapper.signs(cells, weights)
        signs.append([float(found.peak), float(found.presence)])
        largest = int(mapper.maps(cells, weights, _GRID).argmax())
        hits.append(float(region.cover(_GRID).ravel()[largest] > 0.5))
    return np.array(signs), np.array(hits)


def fit(signs: Array, hits: Array) -> Array:
    """Bias and one coefficient per sign: ``[1 + signs]``. Newton's method."""
    mean, spread = signs.mean(0), signs.std(0)
    inputs = np.column_stack([np.ones(len(signs)), (signs - mean) / spread])
    ridge = _RIDGE * len(hits) * np.diag([0.0, *np.ones(signs.shape[1])])
    found = np.zeros(inputs.shape[1])
    for _ in range(_NEWTON_STEPS):
        guess = 1 / (1 + np.exp(-inputs @ found))
        curvature = (inputs.T * (guess * (1 - guess))) @ inputs + ridge
        found -= np.linalg.solve(curvature, inputs.T @ (guess - hits) + ridge @ found)
    slopes = found[1:] / spread
    return np.array([found[0] - slopes @ mean, *slopes])


def main() -> None:
    """Print the three numbers."""
    towers = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(towers, PackagedTowers)
    torch.set_num_threads(1)  # sums in the same order on every machine
    signs, hits = signs_and_hits(load_relevance(towers), Path(sys.argv[1]))
    bias, per_peak, per_presence = fit(signs, hits)
    print(f"{len(hits)} objects, {hits.mean():.2f} hit")
    print(f"bias {bias:.3f}, per peak {per_peak:.3f}, per presence {per_presence:.3f}")


if __name__ == "__main__":
    main()
