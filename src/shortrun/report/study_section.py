"""What a study changed, and what each change gave."""

from __future__ import annotations

from collections.abc import Iterator

from shortrun.errors import counted
from shortrun.report.blocks import Block, Figure, Items, Paragraph, Section, Table
from shortrun.report.names import anchor
from shortrun.study.table import ResultRow, StudyResult
from shortrun.view.charts import study_chart
from shortrun.view.study import lines, sentences, verdict

COSTS = ("parameters", "tokens", "passes", "FLOPs", "minutes")
"""Columns of a study's table that stand in a table of their own, because a page has no room for all."""


def study_section(study: StudyResult, command: str) -> Section:
    """The study's chart, its table, and each change with its author's reason and its effect."""
    return Section(f"Study: {study.study}", tuple(_blocks(study, command)))


def effect(row: ResultRow) -> str:
    """What was measured of a change, as a sentence."""
    if row.loss is None:
        return "Not measured: " + "; ".join(row.failures.values()) if row.failures else "Not run yet."
    spread = "" if row.sd is None else f" ± {row.sd:.4f} over {counted(row.seeds, 'seed')}"
    told = f"Loss {row.loss:.4f}{spread}"
    if row.difference is None or row.interval is None:
        return told + "."
    low, high = row.interval
    judged = {"better": "better than", "worse": "worse than", "tie": "a tie with"}[verdict(row).rstrip("?")]
    one_seed = ", one seed" if row.pairs == 1 else ""
    return (
        f"{told}; {row.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f}{one_seed}), {judged} {row.reference}."
    )


def _blocks(study: StudyResult, command: str) -> Iterator[Block]:
    for sentence in sentences(study):
        yield Paragraph(sentence)
    done = [row for row in study.rows if row.loss is not None]
    if done:
        yield Figure(
            name=anchor("study", study.study),
            caption=(
                "Loss of each change, a point a seed and a bar their mean; beside it the difference from its reference with the "
                "95 % interval. Green is better, red worse, grey a tie."
            ),
            chart=study_chart(study).to_dict(),
            runs=tuple(row.change for row in done),
            command=command,
        )
    headings, *rows = lines(study)
    costs = [at for at, heading in enumerate(headings) if heading in COSTS]
    effects = [at for at in range(len(headings)) if at not in costs]
    for columns, caption in ((effects, "What each change gave"), ([0, *costs], "What one run of each costs")):
        picked = [tuple(row[at] for at in columns) for row in (headings, *rows)]
        yield Table(picked[0], tuple(picked[1:]), caption)
    yield Items(tuple((row.change, " ".join(filter(None, (row.reason, effect(row))))) for row in study.rows))
