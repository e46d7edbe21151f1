"""A run's table by epoch: what training lost on average in each, what the validation documents lost at its end.

Shapes: N training steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from shortrun.score.losses import perplexity
from shortrun.view.curves import Curves, Evaluated

NEAR = 0.05
"""Epochs that an evaluation may be away from an epoch's end and count as its."""


@dataclass(frozen=True)
class Epoch:
    """One epoch that has ended. Improvements are in percent of the epoch before; None where there is nothing to compare."""

    epoch: int
    step: int
    """The last one of it."""
    train_loss: float
    """Nats per token: the mean over its steps, dropout and label smoothing as in training."""
    train_perplexity: float | None
    train_improvement_percent: float | None
    token_loss: float | None
    """Nats per token on the validation documents; None, as all that follow, where none were scored at its end."""
    perplexity: float | None
    """Per token; also None where it is too large for a number."""
    loss: float | None
    """Nats per character, the project's own."""
    improvement_percent: float | None
    """Of that loss."""


def epochs(curves: Curves) -> list[Epoch]:
    """The epochs that a run has finished, as far as its log tells where they end."""
    if not curves.epochs or not curves.max_steps or not len(curves.steps_N):
        return []
    rows: list[Epoch] = []
    begin = 0
    for number in range(1, curves.epochs + 1):
        end = round(number * curves.max_steps / curves.epochs)
        loss_N = curves.loss_N[(curves.steps_N > begin) & (curves.steps_N <= end)]
        if curves.steps_N[-1] < end or not len(loss_N):
            break
        train_loss = float(np.mean(loss_N))
        at = _at_its_end(curves.evaluations, number)
        last = rows[-1] if rows else None
        rows.append(
            Epoch(
                epoch=number,
                step=end,
                train_loss=train_loss,
                train_perplexity=perplexity(train_loss),
                train_improvement_percent=_improvement(last.train_loss if last else None, train_loss),
                token_loss=log(at.perplexity) if at and at.perplexity else None,
                perplexity=at.perplexity if at else None,
                loss=at.loss if at else None,
                improvement_percent=_improvement(last.loss if last else None, at.loss if at else None),
            )
        )
        begin = end
    return rows


def _at_its_end(evaluations: Sequence[Evaluated], epoch: int) -> Evaluated | None:
    """The evaluation nearest to an epoch's end, if one is near enough."""
    apart = [(abs(each.epoch - epoch), each) for each in evaluations if each.step > 1 and each.epoch is not None]
    distance, found = min(apart, key=lambda pair: pair[0], default=(NEAR, None))
    return found if distance <= NEAR else None


def _improvement(before: float | None, after: float | None) -> float | None:
    return 100 * (before - after) / before if before and after is not None else None
