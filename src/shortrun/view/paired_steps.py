"""The validation losses of several runs, evaluation by evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shortrun.errors import counted
from shortrun.view.curves import Curves, Evaluated

NEAR = 0.05
"""Epochs that evaluations may be apart to be paired. Their steps are rounded down, so they fall behind a little at each."""


@dataclass(frozen=True)
class StepRow:
    """Evaluations of all runs at the same step, or near the same epoch."""

    epoch: float | None
    """Of the first run."""
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    """Nats per character."""
    improvement_percent: tuple[float | None, ...]
    """By how much less each run loses than the first, of that one's loss; None where their losses are of other documents."""


def paired_steps(
    curves: Sequence[Curves], names: Sequence[str], alike: Sequence[bool]
) -> tuple[list[StepRow], list[str]]:
    """The rows, and sentences about how they were paired and what had no partner.

    Where an epoch has as many steps in all runs, rows are of the same step. Elsewhere they are of nearly the same epoch.
    alike: of each run, whether its losses are of the first one's documents.
    """
    first, *others = curves
    empty = [name for name, each in zip(names, curves, strict=True) if not each.evaluations]
    if empty:
        have = "has" if len(empty) == 1 else "have"
        return [], [f"{', '.join(empty)} {have} no evaluation in the log, so no evaluations are set side by side."]
    by_step = len({_steps_an_epoch(each) for each in curves}) == 1
    rows = []
    for at in first.evaluations:
        partners = [_same_step(at, each) if by_step else _same_epoch(at, first, each) for each in others]
        found = [at, *(partner for partner in partners if partner is not None)]
        if len(found) == len(curves):
            rows.append(
                StepRow(
                    epoch=at.epoch,
                    steps=tuple(each.step for each in found),
                    losses=tuple(each.loss for each in found),
                    improvement_percent=tuple(
                        100 * (at.loss - each.loss) / at.loss if same else None
                        for each, same in zip(found, alike, strict=True)
                    ),
                )
            )
    sentences = []
    if not by_step:
        sentences.append(
            "The epochs of these runs differ in their number of steps, so evaluations are paired that lie within a twentieth of "
            "an epoch."
        )
    alone = max(len(each.evaluations) for each in curves) - len(rows)
    if alone:
        where = "at the same step" if by_step else "near the same epoch"
        sentences.append(f"{counted(alone, 'evaluation')} of a run had no partner {where} in every other.")
    return rows, sentences


def _same_step(at: Evaluated, other: Curves) -> Evaluated | None:
    return next((each for each in other.evaluations if each.step == at.step), None)


def _same_epoch(at: Evaluated, first: Curves, other: Curves) -> Evaluated | None:
    """The nearest evaluation of another run, if this one is also the nearest to it."""
    if at.step == 1:  # before learning, however long an epoch is
        return _same_step(at, other)
    nearest = _nearest(at, other)
    return nearest if nearest is not None and _nearest(nearest, first) == at else None


def _nearest(at: Evaluated, other: Curves) -> Evaluated | None:
    """The evaluation of another run that is nearest in epochs, and near enough."""
    apart = [
        (abs(each.epoch - at.epoch), each)
        for each in other.evaluations
        if each.step > 1 and each.epoch is not None and at.epoch is not None
    ]
    distance, found = min(apart, key=lambda pair: pair[0], default=(NEAR, None))
    return found if distance <= NEAR else None


def _steps_an_epoch(curves: Curves) -> float | None:
    return curves.max_steps / curves.epochs if curves.max_steps and curves.epochs else None
