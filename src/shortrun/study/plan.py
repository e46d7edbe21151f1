"""What a study will take before anything runs: runs, passes, memory, time; and what its seeds can show."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from shortrun.errors import counted
from shortrun.runs.folder import RunFolder
from shortrun.study.ledger import Ledger, State, outcomes
from shortrun.study.result import results
from shortrun.study.run import cores
from shortrun.train.plan import Plan, plan

ENOUGH_SEEDS = 6
"""The fewest with which a sign-flip test can give p below 0.05: 2 / 2^6 = 0.031."""


@dataclass(frozen=True)
class PlannedRow:
    """The runs of one row."""

    change: str
    states: dict[int, State]
    """By seed."""
    parameters: int
    steps: int
    passes: int
    memory_bytes: int
    seconds: float
    """Of one run: on all cores, or once some are done, on as many as they had."""


@dataclass(frozen=True)
class StudyPlan:
    """What `shortrun study plan --json` prints."""

    study: str
    scale: str
    rows: list[PlannedRow]
    runs: dict[State, int]
    """Different runs by state; rows may share one."""
    passes: int
    """Of the runs that are not done."""
    seconds: float
    """Until they are, with the workers keeping all cores busy."""
    seconds_from: str
    workers: int
    memory_bytes: int
    """Where each worker has a run of the largest row."""
    says: list[str]
    """What the number of seeds can show, and what else a person should know."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan_study(ledger: Ledger, workers: int) -> StudyPlan:
    """Estimates from the recipes, corrected by the seconds of those runs of the study that are done."""
    study = ledger.study
    plans = [plan(next(iter(row.recipes.values()))) for row in study.rows]
    factor, at_once, source = _measured(ledger, plans)
    rows = [
        PlannedRow(
            change=row.change,
            states={entry.seed: entry.state for entry in ledger.of_row(number)},
            parameters=found.parameters,
            steps=found.steps,
            passes=round(found.steps * found.passes_per_step),
            memory_bytes=found.memory_bytes["total"],
            seconds=found.seconds * factor,
        )
        for number, (row, found) in enumerate(zip(study.rows, plans, strict=True))
    ]
    left = ledger.to_do()
    memory = workers * max(row.memory_bytes for row in rows)
    return StudyPlan(
        study=study.name,
        scale=str(study.scale),
        rows=rows,
        runs=dict(outcomes(ledger)),
        passes=sum(rows[entry.row].passes for entry in left),
        seconds=sum(rows[entry.row].seconds for entry in left) / at_once,
        seconds_from=source,
        workers=workers,
        memory_bytes=memory,
        says=[*_too_much(memory), *what_seeds_show(ledger)],
    )


def _too_much(needed: int) -> Iterator[str]:
    """A sentence where the machine has less memory, as far as it says how much it has."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > there:
            yield (
                f"That is more than this machine's {there / 1e9:.1f} GB: fewer --workers, or a --train.memory-limit, fit"
            )


def what_seeds_show(ledger: Ledger) -> Sequence[str]:
    """Sentences about what so many seeds can show, and how small a difference."""
    count = len(ledger.study.seeds)
    found = results(ledger)
    says = []
    if count < ENOUGH_SEEDS:
        says.append(
            f"With {count} seed{'s' * (count != 1)} no sign-flip test gives p below {found.smallest_p:.3g}; "
            f"{ENOUGH_SEEDS} are the fewest that can be significant"
        )
    if found.smallest_difference is not None:
        says.append(
            f"From the seeds so far: a difference of {found.smallest_difference:.4f} is the smallest that {count} seeds "
            "show four times out of five"
        )
    return says


def _measured(ledger: Ledger, plans: Sequence[Plan]) -> tuple[float, int, str]:
    """How many times the estimate the runs took that are done, how many of them the cores have room for, and a source."""
    done = [entry for entry in ledger.entries if entry.scores]
    if not done:
        return 1.0, 1, f"estimated from {plans[0].flops_per_second_from}"
    real = sum(entry.scores["seconds"] for entry in done if entry.scores)
    planned = sum(plans[entry.row].seconds for entry in done)
    threads = max(RunFolder(entry.job.path).manifest()["machine"]["threads"] for entry in done)
    return real / planned, max(cores() // threads, 1), f"scaled by the {counted(len(done), 'run')} done"
