"""Eq. (11) in a training step: which pictures of a batch the judge looks at, and how much each counts."""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor

from semantic.codec_config import IntentConfig
from semantic.intent_judge import AnsweringJudge, answer_distances, intent_distances
from semantic.losses import IntentTerms, intent_terms
from semantic.model import IndexDamage
from semantic.training_state import Run


def judge_batch(
    run: Run,
    pictures: Tensor,
    reconstructed: Tensor,
    queries: list[str],
    damage: IndexDamage | None,
) -> IntentTerms | None:
    """Eq. (11) over the share of the batch that the recipe says; None without a judge.

    Args:
        run: with the judge, the step's number, and how many processes share the batch.
        pictures: sources of this process's share, float ``[B, 3, h, w]``, 0..1.
        reconstructed: float ``[B, 3, h, w]``, not clipped; gradients reach it.
        queries: B questions.
        damage: what of the pictures is received; None means everything.
    """
    config = run.training.intent
    if run.judge is None or config is None:
        return None
    seen = math.ceil(config.share * run.training.batch_size)
    own = len(range(run.processes.index, seen, run.processes.count))
    if own == 0:
        nothing = pictures.new_zeros(())
        names = ["intent", "answer"] if config.answer_weight else ["intent"]
        return IntentTerms(dict.fromkeys(names, nothing), nothing)
    received = pictures.new_ones(len(pictures)) if damage is None else damage.received
    chosen = order_of_interest(config, received, run.step)[:own]
    shown = (pictures[chosen], reconstructed[chosen], [queries[number] for number in chosen])
    if config.answer_weight:
        # The configuration gives this weight only to a judge that answers.
        distances = answer_distances(cast(AnsweringJudge, run.judge), *shown)
    else:
        distances = intent_distances(run.judge, *shown)
    found = intent_terms(distances, received[chosen], config)
    # So that the mean over the processes is the mean over what all of them have seen.
    part = own * run.processes.count / seen
    return IntentTerms(
        {name: part * value for name, value in found.terms.items()}, part * found.weighted
    )


def order_of_interest(config: IntentConfig, received: Tensor, step: int) -> list[int]:
    """Pictures of a batch in the order in which the judge should see them.

    They come in random order. With a ``sparse_gain`` every second step puts those first of which least is
    received, each process among its own.

    Args:
        config: of the judge.
        received: share of each picture's indices, float ``[B]``.
        step: number of the training step.
    """
    if config.sparse_gain and step % 2 == 0:
        return [int(number) for number in received.argsort(stable=True)]
    return list(range(len(received)))
