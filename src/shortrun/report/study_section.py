"""What a study changed, and what each change gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from shortrun.errors import counted
from shortrun.report.blocks import Block, Figure, Items, Paragraph, Section, Table
from shortrun.report.names import anchor
from shortrun.report.plain import spec
from shortrun.report.subjects import NamedRun, names_of
from shortrun.study.table import ResultRow, StudyResult
from shortrun.view.charts import study_chart
from shortrun.view.study import lines, sentences, verdict

COSTS = ("parameters", "tokens", "passes", "FLOPs", "minutes")
"""Columns of a study's table that stand in a table of their own, because a page has no room for all."""


JUDGED = {
    "better": "better than {}.",
    "worse": "worse than {}.",
    "tie": "a tie with {}.",
    "better?": "with this seed better than {}, which says nothing about other seeds.",
    "worse?": "with this seed worse than {}, which says nothing about other seeds.",
    "tie?": "with this seed a tie with {}.",
}
"""The end of a sentence, by the verdict on a change."""


def study_section(study: StudyResult, runs: Sequence[NamedRun], command: str) -> Section:
    """The study's chart, its table, and each change with its author's reason and its effect."""
    return Section.of(f"Study: {study.study}", _blocks(study, runs, command))


def study_summary(study: StudyResult) -> str:
    """What it asked and found. A change that one seed alone was tried with is not said to have helped."""
    done = [row for row in study.rows if row.loss is not None]
    if len(done) < 2:
        return " ".join([study.about, *map(effect, done)])
    best = min(done, key=lambda row: row.loss or 0.0)
    found = Counter(map(verdict, done))
    told = [
        f"{study.about} From {done[0].loss:.4f} ({done[0].change}) to {best.loss:.4f} ({best.change}) nats per character on the "
        f"{study.split} documents, {study.scale}."
    ]
    if several := sum(row.pairs > 1 for row in done):
        told.append(f"{found['better']} of {counted(several, 'change')} helped beyond their noise.")
    if one := sum(row.pairs == 1 for row in done):
        told.append(
            f"{found['better?']} of {one} that were compared with one seed alone came out better, which says nothing about other "
            "seeds."
        )
    return " ".join(told)


def effect(row: ResultRow) -> str:
    """What was measured of a change, as a sentence."""
    if row.loss is None:
        return "Not measured: " + "; ".join(row.failures.values()) if row.failures else "Not run yet."
    spread = "" if row.sd is None else f" ± {row.sd:.4f} over {counted(row.seeds, 'seed')}"
    told = f"Loss {row.loss:.4f}{spread}"
    if row.difference is None or row.interval is None:
        return told + "."
    low, high = row.interval
    one_seed = ", one seed" if row.pairs == 1 else ""
    judged = JUDGED[verdict(row)].format(row.reference)
    return f"{told}; {row.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f}{one_seed}), {judged}"


def _blocks(study: StudyResult, runs: Sequence[NamedRun], command: str) -> Iterator[Block]:
    for sentence in sentences(study):
        yield Paragraph(sentence)
    done = [row for row in study.rows if row.loss is not None]
    if done:
        alone = (
            " Where one seed alone was compared, the colour is that of this seed."
            if any(row.pairs == 1 for row in done)
            else ""
        )
        yield Figure(
            name=anchor("study", study.study),
            caption=(
                "Loss of each change, a point a seed and a bar their mean; beside it the difference from its reference with the "
                f"95 % interval. Green is better, red worse, grey a tie.{alone}"
            ),
            chart=spec(study_chart(study)),
            runs=names_of([row.runs[0] for row in done if row.runs], runs),
            command=command,
        )
    headings, *rows = lines(study)
    costs = [at for at, heading in enumerate(headings) if heading in COSTS]
    effects = [at for at in range(len(headings)) if at not in costs]
    for columns, caption in ((effects, "What each change gave"), ([0, *costs], "What one run of each costs")):
        picked = [tuple(row[at] for at in columns) for row in (headings, *rows)]
        yield Table(picked[0], tuple(picked[1:]), caption)
    reasons = ("" if row.reference is None else row.reason for row in study.rows)  # the first row's is the study's own
    yield Items(
        tuple((row.change, f"{reason} {effect(row)}".strip()) for row, reason in zip(study.rows, reasons, strict=True))
    )
