"""Runs beside one another: their curves, their results, and where their recipes differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shortrun.errors import UserError
from shortrun.recipe_file import toml_value
from shortrun.view.curve_charts import training_chart, validation_chart
from shortrun.view.curves import read_curves
from shortrun.view.report.blocks import Block, Figure, Paragraph, Section, Table
from shortrun.view.report.subjects import NamedRun

UNITS = ("steps", "tokens", "seconds")


def curves_section(runs: Sequence[NamedRun], command: str) -> Section:
    return Section("Curves", tuple(_curves(runs, command)))


def results_section(runs: Sequence[NamedRun]) -> Section:
    return Section("Results", tuple(_results(runs)))


def _curves(runs: Sequence[NamedRun], command: str) -> Iterator[Block]:
    curves = {run.name: read_curves(run.folder.path) for run in runs}
    places = tuple(str(run.folder.path) for run in runs)
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
        runs=places,
        command=command,
    )
    if any(len(each.steps_N) for each in curves.values()):
        yield Figure(
            name="training",
            caption="Training loss of each step's batch, learning rate, and gradient norm before clipping.",
            chart=training_chart(curves).to_dict(),
            runs=places,
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
    yield Table(
        headings, tuple(rows),
        caption="Losses of the last step on the validation documents: nats per character; perplexity is per token",
    )  # fmt: skip
    unfinished = [run.name for run in runs if run.scores.get("complete") is not True]
    if unfinished:
        yield Paragraph(f"Not finished: {', '.join(unfinished)}.")
    if len(runs) > 1:
        differing = tuple(_differing(runs))
        if differing:
            yield Table(("field", *(run.name for run in runs)), differing, caption="Where the recipes differ")
        else:
            yield Paragraph("The recipes do not differ.")


def _differing(runs: Sequence[NamedRun]) -> Iterator[tuple[str, ...]]:
    """Each field in which two of the runs differ, with its values; a dash where nothing reads it."""
    unread = [dict(run.recipe.unread()) for run in runs]
    for section, fields in runs[0].recipe:
        for name, _ in fields:
            place = f"{section}.{name}"
            values = tuple(
                "-" if place in nothing else toml_value(getattr(getattr(run.recipe, section), name))
                for run, nothing in zip(runs, unread, strict=True)
            )
            if len(set(values)) > 1:
                yield (place, *values)
