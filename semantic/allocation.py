"""Which cells of a picture get how many bits: the choice behind a rung's map of levels.

The classic way (Shoham and Gersho 1988): spend where the weighted squared error falls most per bit. The
weights say how much the query cares about a cell. NumPy only.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from semantic.frame_geometry import FrameGeometry

# Confidence up to which a map moves no bits, and from which it moves as many as asked. Chosen on the objects
# of coco128's photos of even number: of the ramps under which none loses more than 0.5 dB against not asking
# (two-layer codec, 0.25 and 0.45 bit/pixel, full focus 0.7 to 1), the one that gains most.
TRUST_FROM, TRUST_FULLY = 0.4, 0.9


def importance(relevance: NDArray[np.floating], focus: float) -> NDArray[np.float64]:
    """How much a squared error in every cell counts: ``1 - focus + focus r / mean(r)``.

    r is the square of the relevance, smoothed with (1 2 1) / 4 across and down: bits belong where a map is
    sure, and what is asked about ends a little beyond. Square and smoothing were chosen by what asking
    gains on coco128's photos of even number.

    Args:
        relevance: float ``[grid, grid]``, not negative, not zero everywhere.
        focus: how far it decides, 0..1.

    Returns:
        float64 ``[grid * grid]`` with mean 1.
    """
    padded = np.pad(np.square(relevance.astype(np.float64)), 1, mode="edge")
    across = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    smooth = (across[:-2] + 2 * across[1:-1] + across[2:]) / 4
    return (1 - focus + focus * smooth / smooth.mean()).reshape(-1)


def trusted_focus(focus: float, confidence: float) -> float:
    """How far bits should follow a map that is trusted so far.

    Args:
        focus: how far they would follow a sure one, 0..1.
        confidence: of the map, 0..1 (:class:`semantic.relevance.Found`).

    Returns:
        0..``focus``: 0 up to a confidence of :data:`TRUST_FROM`, all of it from :data:`TRUST_FULLY`, and a
        straight line between.
    """
    share = (confidence - TRUST_FROM) / (TRUST_FULLY - TRUST_FROM)
    return focus * min(max(share, 0.0), 1.0)


def cell_costs(geometry: FrameGeometry) -> NDArray[np.int64]:
    """Indices that a cell needs at every level beyond the poorest: int64 ``[levels]``, rising.

    Raises:
        ValueError: a geometry without a map.
    """
    if geometry.rung is None or not geometry.has_map:
        raise ValueError("cell_costs: this geometry has no map of levels")
    cells = geometry.rung.grid**2
    # Layers coarser than the map have the same in all levels, so the division leaves nothing over.
    sizes = [
        sum(sent * layer.tokens for sent, layer in zip(level, geometry.layers, strict=True))
        for level in geometry.rung.levels
    ]
    return (np.array(sizes) - sizes[0]) // cells


def allocate(
    errors: NDArray[np.floating], costs: NDArray[np.int64], room: int
) -> NDArray[np.uint8]:
    """Choose levels that bring the sum of errors down most within a room.

    Steps along the lower convex hull of every cell's errors over costs, steepest first: the best sum for
    the room they fill, up to the last step that no longer fits, after which smaller ones may.

    Args:
        errors: float ``[cells, levels]``, weighted squared error of each cell at each level.
        costs: int ``[levels]``, rising from 0.
        room: sum of costs that may be spent.

    Returns:
        uint8 ``[cells]``, a level for every cell.
    """
    chosen = np.zeros(len(errors), np.uint8)
    steps = [
        (step, cell) for cell in range(len(errors)) if (step := _best_step(errors[cell], costs, 0))
    ]
    heapq.heapify(steps)
    while steps:
        (_, target, cost), cell = heapq.heappop(steps)
        if cost > room:
            continue
        room -= cost
        chosen[cell] = target
        step = _best_step(errors[cell], costs, target)
        if step is not None:
            heapq.heappush(steps, (step, cell))
    return chosen


def _best_step(
    errors: NDArray[np.floating], costs: NDArray[np.int64], level: int
) -> tuple[float, int, int] | None:
    """Steepest way up from a level: minus the gain per cost, the level reached, the cost."""
    best: tuple[float, int, int] | None = None
    for target in range(level + 1, len(costs)):
        cost = int(costs[target] - costs[level])
        slope = float(errors[level] - errors[target]) / cost
        if slope > 0 and (best is None or -slope < best[0]):
            best = (-slope, target, cost)
    return best
