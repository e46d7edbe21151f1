"""A report's content, from run folders."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from shortrun.report.blocks import Report, Section, figures_apart
from shortrun.report.machine_section import recipe_section, repeat_section
from shortrun.report.model_section import model_sections
from shortrun.report.plain import shown
from shortrun.report.rules_section import rules_section
from shortrun.report.run_section import (
    architecture_section,
    comparison_section,
    curves_section,
    results_section,
    unfinished,
)
from shortrun.report.study_section import study_section, study_summary
from shortrun.report.subjects import NamedRun, Split, Subjects
from shortrun.report.sweep_section import sweep_section
from shortrun.view.sweep import summary

OUTPUTS = ("--html", "--pdf", "--myst", "--json")
VALIDATION_LOSSES = ("loss", "nats", "bits_per_byte", "perplexity", "official_loss", "excess")
"""What scores.json says of the validation documents."""
Tell = Callable[[str], None]
"""Hears what is being made."""


def report_of(subjects: Subjects, argv: Sequence[str], tell: Tell = lambda _: None) -> Report:
    """The report on some runs, studies and sweeps.

    argv: the command that asked for it, which the report shows. Raises UserError where there is no run yet.
    """
    command = shlex.join(["shortrun", *argv])
    runs = subjects.named_runs()
    last = subjects.last(runs)
    return Report(
        title=shown(subjects.title),
        summary=_summary(subjects, runs, last),
        date=datetime.now(tz=UTC).strftime("%Y-%m-%d"),
        sections=figures_apart(_sections(subjects, runs, last, argv, tell)),
        data={
            "studies": [study.as_dict() for study in subjects.studies],
            "sweeps": [sweep.as_dict() for sweep in subjects.sweeps],
            "runs": {run.name: {"run": str(run.folder.path), "scores": _scores(run, subjects.split)} for run in runs},
        },
        command=command,
    )


def _sections(
    subjects: Subjects, runs: Sequence[NamedRun], last: NamedRun, argv: Sequence[str], tell: Tell
) -> Iterator[Section]:
    drawn_by = shlex.join(["shortrun", *_without(argv, OUTPUTS)])
    split = subjects.split
    for study in subjects.studies:
        yield study_section(study, runs, drawn_by)
    for sweep in subjects.sweeps:
        yield sweep_section(sweep, runs, drawn_by)
    tell("reading curves")
    yield curves_section(runs, split, drawn_by)
    yield results_section(runs, split)
    if last is not runs[0]:
        yield comparison_section(runs[0], last, split)
    yield architecture_section(last, drawn_by)
    yield rules_section(last)
    tell("looking into the models")
    yield from model_sections([runs[0], last] if last is not runs[0] else [last], split, drawn_by)
    alone = len(subjects.studies) == 1 and not (subjects.sweeps or subjects.runs)
    again = (
        shlex.join(["shortrun", "study", "run", *_without(argv[1:], (*OUTPUTS, "--storage"), ("--final",))])
        if alone
        else ""
    )
    yield repeat_section(runs, shlex.join(["shortrun", *argv]), again)
    yield recipe_section(last)


def _scores(run: NamedRun, split: Split) -> dict[str, Any]:
    """What scores.json holds, without the losses of documents that the report does not show."""
    hidden = VALIDATION_LOSSES if split == "tuning" else ()
    return {key: value for key, value in run.scores.items() if key not in hidden}


def _without(argv: Sequence[str], with_value: Collection[str], alone: Collection[str] = ()) -> Iterator[str]:
    """A command's words without some of its flags; those of `with_value` have one behind them."""
    words = iter(argv)
    for word in words:
        flag, given, _ = word.partition("=")
        if flag not in (*with_value, *alone):
            yield word
        elif flag in with_value and not given:
            next(words, None)


def _summary(subjects: Subjects, runs: Sequence[NamedRun], last: NamedRun) -> str:
    """What was found, in a few sentences."""
    told = [study_summary(study) for study in subjects.studies]
    for sweep in subjects.sweeps:
        told += summary(sweep)[:3]
    if not told and not last.finished:
        told.append(unfinished(last, subjects.split))
    elif not told:
        told.append(
            f"{last.name} reaches a loss of {last.scores['loss']:.4f} nats per character after {last.scores['epochs']:g} epochs "
            f"({last.scores['parameters'] / 1e6:.2f}M parameters, seed {last.scores['seed']})."
        )
    if not (subjects.studies or subjects.sweeps) and last is not runs[0]:
        first = runs[0]
        told.append(
            f"{first.name} reaches {first.scores['loss']:.4f}." if first.finished else unfinished(first, subjects.split)
        )
    return " ".join(told)
