"""Runs beside one another: their curves, their losses, and where their recipes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from shortrun.errors import UserError
from shortrun.report.blocks import Block, Figure, Items, Paragraph, Section, Table
from shortrun.report.names import anchor
from shortrun.report.plain import spec
from shortrun.report.subjects import NamedRun, Split
from shortrun.view.architecture_figure import architecture_svg
from shortrun.view.compare import compare_runs
from shortrun.view.compare_text import sections as comparison_tables
from shortrun.view.compare_text import sentences
from shortrun.view.curve_charts import leaves_out_first, training_chart, validation_chart
from shortrun.view.curves import Curves
from shortrun.view.glance import glance

SHOWN = 3
"""Documents that have become better and worse."""


def curves_section(runs: Sequence[NamedRun], split: Split, command: str) -> Section:
    """Loss over steps of all runs."""
    return Section.of("Curves", _curves(runs, split, command))


def results_section(runs: Sequence[NamedRun], split: Split) -> Section:
    """Losses and costs of all runs."""
    return Section.of("Results", _results(runs, split))


def comparison_section(first: NamedRun, last: NamedRun, split: Split) -> Section:
    """Two runs beside each other: recipes, paired difference, evaluation by evaluation, documents."""
    return Section.of(f"{first.name} and {last.name}", _comparison(first, last, split))


def architecture_section(run: NamedRun, command: str) -> Section:
    """The drawn model, and the parameters of its parts."""
    return Section.of("The model", _architecture(run, command))


def unfinished(run: NamedRun, split: Split) -> str:
    """How far a run is that has not taken all its steps, and where its loss stands."""
    told = f"{run.name} is not finished: it has taken {run.progress}"
    last = run.last_evaluation(split)
    if last is None:
        return f"{told}, and the {split} documents have not been evaluated yet."
    return f"{told}; at step {last.step:,} the loss is {last.loss:.4f} nats per character of the {split} documents."


def _curves(runs: Sequence[NamedRun], split: Split, command: str) -> Iterator[Block]:
    curves: Mapping[str, Curves] = {run.name: run.curves for run in runs}
    names = tuple(run.name for run in runs)
    for each in curves.values():
        for note in each.notes:
            yield Paragraph(f"{note}.")
    try:
        chart = validation_chart(curves, ("steps",), split=split)
    except UserError as error:
        yield Paragraph(str(error))
    else:
        cut = (
            " An evaluation before learning, at step 1, is above the chart." if leaves_out_first(curves, split) else ""
        )
        yield Figure(
            name="validation-loss" if split == "validation" else "tuning-loss",
            caption=(
                f"Loss on the {split} documents, nats per character, at each evaluation. The end of a line says whose it is.{cut}"
            ),
            chart=spec(chart),
            runs=names,
            command=command,
        )
    if any(len(each.steps_N) for each in curves.values()):
        yield Figure(
            name="training",
            caption=(
                "Training loss of a step's batch, learning rate, and gradient norm before clipping. Loss and norm are means over "
                "a hundredth of the steps to either side."
            ),
            chart=spec(training_chart(curves)),
            runs=names,
            command=command,
        )


def _results(runs: Sequence[NamedRun], split: Split) -> Iterator[Block]:
    rows = [(run.name, _told(run.loss(split), "{:.4f}"), *_losses(run, split), *_costs(run)) for run in runs]
    headings = ["run", "loss", "parameters", "steps", "tokens", "passes", "minutes"]
    if split == "validation":
        headings[2:2] = ["official (coverage)", "bits/byte", "perplexity"]
    caption = f"Losses of the last step on the {split} documents: nats per character"
    if split == "validation":
        caption += "; perplexity is per token"
    open_ended = [run for run in runs if not run.finished]
    if open_ended:
        caption += "; of a run without scores, those of its last evaluation"
    yield Table(tuple(headings), tuple(rows), caption)
    for run in open_ended:
        yield Paragraph(unfinished(run, split))
    if split == "tuning":
        yield Paragraph(
            "Changes were chosen by tuning documents, so these losses are of them. Nothing here is of the validation documents; "
            "with --final it is, and the day on which they were first looked at is written down."
        )


def _losses(run: NamedRun, split: Split) -> tuple[str, ...]:
    """The other losses of the validation documents."""
    if split != "validation":
        return ()
    found = run.scores or {**asdict(last), "bits_per_byte": None} if (last := run.curves.last) else run.scores
    official, coverage = found.get("official_loss"), found.get("coverage")
    return (
        f"{official:.4f} ({coverage:.1%})" if coverage else "-",
        _told(found.get("bits_per_byte"), "{:.4f}"),
        _told(found.get("perplexity"), "{:.1f}"),
    )


def _costs(run: NamedRun) -> tuple[str, ...]:
    scores, curves = run.scores, run.curves
    logged = len(curves.steps_N) > 0
    tokens = scores.get("tokens", curves.tokens_N[-1] if logged else None)
    seconds = scores.get("seconds", curves.seconds_N[-1] if logged else None)
    return (
        _told(scores.get("parameters"), "{:.2f}M", 1e6),
        f"{run.steps:,}",
        _told(tokens, "{:.2f}M", 1e6),
        _told(scores.get("passes"), "{:,.0f}"),
        _told(seconds, "{:.1f}", 60),
    )


def _told(value: float | None, form: str, by: float = 1.0) -> str:
    return "-" if value is None else form.format(value / by)


def _comparison(first: NamedRun, last: NamedRun, split: Split) -> Iterator[Block]:
    paths, names = [first.folder.path, last.folder.path], [first.name, last.name]
    found = compare_runs(paths, show=SHOWN, split=split, names=names)
    for sentence in sentences(found):
        yield Paragraph(sentence)
    for table in comparison_tables(found):
        if table.rows:
            yield Table(table.headings, tuple(table.rows), caption=table.title)


def _architecture(run: NamedRun, command: str) -> Iterator[Block]:
    found = glance(run.folder.path)
    try:
        svg = architecture_svg(run.recipe, found.model, run.name)
    except UserError as error:
        yield Paragraph(str(error))
    else:
        yield Figure(
            name=anchor("architecture", run.name),
            caption=f"The model of {run.name}, read from the top.",
            svg=svg,
            runs=(run.name,),
            command=command,
        )
    yield Items(tuple((part.replace("_", " "), f"{count:,} parameters") for part, count in found.parameters.items()))
