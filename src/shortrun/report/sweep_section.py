"""What a sweep searched, what it found, and what finding it has cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shortrun.report.blocks import Block, Figure, Paragraph, Section, Table
from shortrun.report.names import anchor
from shortrun.report.plain import spec
from shortrun.report.subjects import NamedRun, names_of
from shortrun.view.sweep import SweepReport, number, summary
from shortrun.view.sweep_charts import sweep_chart

SHOWN = 15
"""Trials in the table; all are in the chart and in the report's JSON."""


def sweep_section(sweep: SweepReport, runs: Sequence[NamedRun], command: str) -> Section:
    """What the search was told, the trials, and what they cost."""
    return Section.of(f"Sweep: {sweep.sweep}", _blocks(sweep, runs, command))


def _blocks(sweep: SweepReport, runs: Sequence[NamedRun], command: str) -> Iterator[Block]:
    for sentence in summary(sweep):
        yield Paragraph(sentence)
    if any(trial.loss is not None for trial in sweep.trials):
        yield Figure(
            name=anchor("sweep", sweep.sweep),
            caption="Every trial's loss on the tuning documents, in the order of the trials and against each field searched.",
            chart=spec(sweep_chart(sweep)),
            runs=names_of([sweep.best.run], runs) if sweep.best and sweep.best.run else (),
            command=command,
        )
    fields = list(sweep.search)
    rows = [
        (
            str(trial.number),
            trial.state.lower(),
            "-" if trial.loss is None else f"{trial.loss:.4f}",
            *(number(trial.params.get(name, "-")) for name in fields),
        )
        for trial in sweep.trials[:SHOWN]
    ]
    left = len(sweep.trials) - len(rows)
    more = f"The best {len(rows)} trials; {left} more are in the chart" if left > 0 else "All trials, best first"
    yield Table(("trial", "state", "tuning loss", *fields), tuple(rows), caption=more)
