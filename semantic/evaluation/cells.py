"""The cells of the grid: which there are, and the digest by which a finished one is known again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from semantic.evaluation.plan import Plan
from semantic.evaluation.rates import FIXED_MCS, ChannelName, PolicyName, choose_mcs
from semantic.evaluation.table import FORMAT_VERSION

# Raised whenever something that a cell computes changes its result.
_COMPUTATION_VERSION = 1


@dataclass(frozen=True)
class Cell:
    """All pictures of a set through one system and one air.

    Args:
        set: label of the data set.
        system: label.
        channel: over which it is sent.
        snr_db: Es/N0; None without a channel.
        mcs: index of the code rate; None where nothing is sent.
        policies: that take this rate here: what they share is computed once.
        seed: of the air.
    """

    set: str
    system: str
    channel: ChannelName
    snr_db: float | None
    mcs: int | None
    policies: tuple[PolicyName, ...]
    seed: int


def enumerate_cells(plan: Plan) -> list[Cell]:
    """Every cell of a plan, in an order in which a run that is broken off has something of everything.

    Without a channel there is one cell for each set and system, under policy ``fixed`` and the first seed; so
    it is for controls, which send nothing.
    """
    cells = [
        Cell(one.label, control.label, "none", None, None, ("fixed",), plan.seeds[0])
        for one in plan.sets
        for control in plan.controls
    ]
    if "none" in plan.channels:
        cells += [
            Cell(one.label, system.label, "none", None, FIXED_MCS, ("fixed",), plan.seeds[0])
            for one in plan.sets
            for system in plan.coded
        ]
    airs = [channel for channel in plan.channels if channel != "none"]
    return cells + [
        Cell(one.label, system.label, channel, snr_db, mcs, policies, seed)
        for seed in plan.seeds
        for channel in airs
        for snr_db in plan.snr_db
        for mcs, policies in _rates(plan, channel, snr_db).items()
        for one in plan.sets
        for system in plan.coded
    ]


def _rates(plan: Plan, channel: ChannelName, snr_db: float) -> dict[int, tuple[PolicyName, ...]]:
    """Code rates at a point, and the policies that take them."""
    found: dict[int, tuple[PolicyName, ...]] = {}
    for policy in plan.policies:
        mcs = choose_mcs(
            policy,
            snr_db,
            channel=channel,
            lowest_snr_db=min(plan.snr_db),
            fading_margin_db=plan.fading_margin_db,
        )
        found[mcs] = (*found.get(mcs, ()), policy)
    return found


def digest(**parts: Any) -> str:
    """Name of a result by everything that determines it (plain data), versions of the code included."""
    whole = {"table": FORMAT_VERSION, "computation": _COMPUTATION_VERSION, **parts}
    text = json.dumps(whole, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
