"""The validation losses of several runs, evaluation by evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shortrun.errors import counted
from shortrun.view.curves import Curves, Evaluated


@dataclass(frozen=True)
class StepRow:
    """Evaluations of all runs at the same step, or at the same epoch."""

    epoch: float | None
    """Of the first run."""
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    """Nats per character."""
    improvement_percent: tuple[float, ...]
    """By how much less each run loses than the first, of that one's loss."""


def paired_steps(curves: Sequence[Curves]) -> tuple[list[StepRow], list[str]]:
    """The rows, and a sentence where evaluations are paired by epochs or have no partner.

    Where all runs were evaluated at the same steps of epochs of the same length, rows are of the same step. Elsewhere they are
    of the same epoch, to a step of either run, because an evaluation falls on the step nearest to its share of an epoch.
    """
    first, *others = curves
    if not all(each.evaluations for each in curves):
        return [], []
    by_step = all(_steps_an_epoch(each) == _steps_an_epoch(first) for each in others)
    rows = []
    for at in first.evaluations:
        partners = [_partner(at, each, by_step, _slack(first) + _slack(each)) for each in others]
        found = [at, *(partner for partner in partners if partner is not None)]
        if len(found) == len(curves):
            rows.append(
                StepRow(
                    epoch=at.epoch,
                    steps=tuple(each.step for each in found),
                    losses=tuple(each.loss for each in found),
                    improvement_percent=tuple(100 * (at.loss - each.loss) / at.loss for each in found),
                )
            )
    sentences = []
    if not by_step:
        sentences.append("An epoch has not as many steps in each run, so their evaluations are paired by epoch.")
    most = max(len(each.evaluations) for each in curves)
    if len(rows) < most:
        where = "at the same step" if by_step else "at the same epoch"
        sentences.append(f"{counted(most - len(rows), 'evaluation')} of a run had no partner {where} in every other.")
    return rows, sentences


def _partner(at: Evaluated, other: Curves, by_step: bool, slack: float) -> Evaluated | None:
    if by_step:
        return next((each for each in other.evaluations if each.step == at.step), None)
    if at.step == 1:  # before the first epoch has begun, whatever its length
        return next((each for each in other.evaluations if each.step == 1), None)
    known = [
        (abs(each.epoch - at.epoch), each) for each in other.evaluations if each.epoch and at.epoch and each.step > 1
    ]
    distance, nearest = min(known, key=lambda pair: pair[0], default=(0.0, None))
    return nearest if distance <= slack else None


def _steps_an_epoch(curves: Curves) -> float | None:
    last = curves.evaluations[-1]
    return round(last.step / last.epoch, 6) if last.epoch else None


def _slack(curves: Curves) -> float:
    """Half a step, in epochs, and a little for rounding."""
    steps = _steps_an_epoch(curves)
    return 0.51 / steps if steps else 0.0
