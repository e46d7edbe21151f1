"""Runs beside one another: their curves, their losses, and where their recipes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from shortrun.errors import UserError
from shortrun.report.blocks import Block, Figure, Items, Paragraph, Section, Table
from shortrun.report.names import anchor
from shortrun.report.subjects import NamedRun
from shortrun.view.architecture_figure import architecture_svg
from shortrun.view.compare import Comparison, compare_runs
from shortrun.view.compare_text import sections as comparison_tables
from shortrun.view.curve_charts import training_chart, validation_chart
from shortrun.view.curves import Curves, read_curves
from shortrun.view.glance import glance

SHOWN = 3
"""Documents that have become better and worse."""


def curves_section(runs: Sequence[NamedRun], command: str) -> Section:
    """Loss over steps of all runs."""
    return Section("Curves", tuple(_curves(runs, command)))


def results_section(runs: Sequence[NamedRun]) -> Section:
    """Losses and costs of all runs."""
    return Section("Results", tuple(_results(runs)))


def comparison_section(first: NamedRun, last: NamedRun) -> Section:
    """Two runs beside each other: recipes, paired difference, evaluation by evaluation, documents."""
    found = compare_runs([first.folder.path, last.folder.path], show=SHOWN)
    return Section(f"{first.name} and {last.name}", tuple(_comparison(found)))


def architecture_section(run: NamedRun, command: str) -> Section:
    """The drawn model, and the parameters of its parts."""
    return Section("The model", tuple(_architecture(run, command)))


def _curves(runs: Sequence[NamedRun], command: str) -> Iterator[Block]:
    curves: Mapping[str, Curves] = {run.name: read_curves(run.folder.path) for run in runs}
    names = tuple(run.name for run in runs)
    for each in curves.values():
        for note in each.notes:
            yield Paragraph(note)
    try:
        chart = validation_chart(curves, ("steps",), {run.name: run.change for run in runs})
    except UserError as error:
        yield Paragraph(str(error))
        return
    yield Figure(
        name="validation-loss",
        caption="Loss on the validation documents, nats per character, at each evaluation. The end of a line says whose it is.",
        chart=chart.to_dict(),
        runs=names,
        command=command,
    )
    if any(len(each.steps_N) for each in curves.values()):
        yield Figure(
            name="training",
            caption="Training loss of each step's batch, learning rate, and gradient norm before clipping.",
            chart=training_chart(curves).to_dict(),
            runs=names,
            command=command,
        )


def _results(runs: Sequence[NamedRun]) -> Iterator[Block]:
    rows = []
    for run in runs:
        scores = run.scores
        if not scores:
            rows.append((run.name, *["-"] * 9))
            continue
        official = f"{scores['official_loss']:.4f} ({scores['coverage']:.1%})" if scores["coverage"] else "-"
        rows.append(
            (
                run.name,
                f"{scores['loss']:.4f}",
                official,
                f"{scores['bits_per_byte']:.4f}",
                f"{scores['perplexity']:.1f}" if scores["perplexity"] is not None else "-",
                f"{scores['parameters'] / 1e6:.2f}M",
                f"{scores['steps']:,}",
                f"{scores['tokens'] / 1e6:.2f}M",
                f"{scores['passes']:,}",
                f"{scores['seconds'] / 60:.1f}",
            )
        )
    headings = (
        "run", "loss", "official (coverage)", "bits/byte", "perplexity", "parameters", "steps", "tokens", "passes", "minutes",
    )  # fmt: skip
    caption = "Losses of the last step on the validation documents: nats per character; perplexity is per token"
    yield Table(headings, tuple(rows), caption)
    unfinished = [run.name for run in runs if run.scores.get("complete") is not True]
    if unfinished:
        yield Paragraph(f"Not finished: {', '.join(unfinished)}.")


def _comparison(found: Comparison) -> Iterator[Block]:
    for note in found.notes:
        yield Paragraph(note)
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
