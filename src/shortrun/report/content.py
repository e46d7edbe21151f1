"""A report's content, from run folders."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from shortrun.errors import ShortrunError
from shortrun.report.blocks import Paragraph, Report, Section
from shortrun.report.machine_section import recipe_section, repeat_section
from shortrun.report.model_section import model_sections
from shortrun.report.rules_section import rules_section
from shortrun.report.run_section import architecture_section, comparison_section, curves_section, results_section
from shortrun.report.study_section import effect, study_section
from shortrun.report.subjects import NamedRun, Subjects
from shortrun.report.sweep_section import sweep_section
from shortrun.runs.trained import Trained, load_trained
from shortrun.view.sweep import summary

OUTPUTS = ("--html", "--pdf", "--myst", "--json")
Tell = Callable[[str], None]
"""Hears what is being made."""


def report_of(subjects: Subjects, argv: Sequence[str], tell: Tell = lambda _: None) -> Report:
    """The report on some runs, studies and sweeps.

    argv: the command that asked for it, which the report shows. Raises UserError where there is no run yet.
    """
    command = shlex.join(["shortrun", *argv])
    drawn_by = shlex.join(["shortrun", *_without_outputs(argv)])
    runs = subjects.named_runs()
    last = subjects.last(runs)
    return Report(
        title=subjects.title,
        summary=_summary(subjects, runs, last),
        date=datetime.now(tz=UTC).strftime("%Y-%m-%d"),
        sections=tuple(_sections(subjects, runs, last, drawn_by, command, tell)),
        data={
            "studies": [study.as_dict() for study in subjects.studies],
            "sweeps": [sweep.as_dict() for sweep in subjects.sweeps],
            "runs": {run.name: {"run": str(run.folder.path), "scores": run.scores} for run in runs},
        },
    )


def _sections(
    subjects: Subjects, runs: Sequence[NamedRun], last: NamedRun, drawn_by: str, command: str, tell: Tell
) -> Iterator[Section]:
    for study in subjects.studies:
        yield study_section(study, drawn_by)
    for sweep in subjects.sweeps:
        yield sweep_section(sweep, drawn_by)
    tell("reading curves")
    yield curves_section(runs, drawn_by)
    yield results_section(runs)
    if last is not runs[0]:
        yield comparison_section(runs[0], last)
    yield architecture_section(last, drawn_by)
    yield rules_section(last)
    tell("looking into the models")
    chosen = [runs[0], last] if last is not runs[0] else [last]
    try:
        models: list[tuple[NamedRun, Trained]] = [(run, load_trained(run.folder.path)) for run in chosen]
    except ShortrunError as error:
        yield Section("Predictions", (Paragraph(f"The models can't be looked into: {error}"),))
    else:
        yield from model_sections(models, drawn_by)
    yield repeat_section(runs, command)
    yield recipe_section(last)


def _without_outputs(argv: Sequence[str]) -> Iterator[str]:
    """A command of `report` without the forms that it writes, which no figure depends on."""
    words = iter(argv)
    for word in words:
        flag, given, _ = word.partition("=")
        if flag not in OUTPUTS:
            yield word
        elif not given:
            next(words, None)


def _summary(subjects: Subjects, runs: Sequence[NamedRun], last: NamedRun) -> str:
    """What was found, in a few sentences."""
    told = []
    for study in subjects.studies:
        done = [row for row in study.rows if row.loss is not None]
        if len(done) > 1:
            best = min(done, key=lambda row: row.loss or 0.0)
            helped = sum(row.tie is False and (row.difference or 0) < 0 for row in done)
            told.append(
                f"{study.about} From {done[0].loss:.4f} ({done[0].change}) to {best.loss:.4f} ({best.change}) nats per "
                f"character on the {study.split} documents, {study.scale}. {helped} of {len(done) - 1} changes helped beyond "
                "their noise."
            )
        else:
            told.append(" ".join([study.about, *map(effect, done)]))
    for sweep in subjects.sweeps:
        told += summary(sweep)[:3]
    if not told and last.scores:
        told.append(
            f"{last.name} reaches a loss of {last.scores['loss']:.4f} nats per character after {last.scores['epochs']:g} epochs "
            f"({last.scores['parameters'] / 1e6:.2f}M parameters, seed {last.scores['seed']})."
        )
        if last is not runs[0] and runs[0].scores:
            told.append(f"{runs[0].name} reaches {runs[0].scores['loss']:.4f}.")
    return " ".join(told) or "No run has ended yet."
