"""A study's table for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from shortrun.study.table import ResultRow, StudyResult
from shortrun.view.text import markdown_table, plain_cell

OFFICIAL = "official (coverage)"
HEADINGS = (
    "change", "loss", "difference", "95 % interval", "p", "", OFFICIAL, "parameters", "tokens", "passes", "FLOPs", "minutes",
    "seeds",
)  # fmt: skip


def lines(result: StudyResult) -> Iterator[tuple[str, ...]]:
    """The table as text, its headings first.

    The official loss is of the validation documents, so its column is there only where these are looked at anyway.
    """
    official = HEADINGS.index(OFFICIAL)
    for line in (HEADINGS, *map(_cells, result.rows)):
        yield line if result.split == "validation" else line[:official] + line[official + 1 :]


def _cells(row: ResultRow) -> tuple[str, ...]:
    """One row as text; a dash where nothing is known."""
    sd = "" if row.sd is None else f" ± {row.sd:.4f}"
    return (
        row.change,
        _told(row.loss, f"{{:.4f}}{sd}"),
        _told(row.difference, "{:+.4f}"),
        "-" if row.interval is None else f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}",
        _told(row.p, "{:.3g}"),
        verdict(row),
        "-" if row.official_loss is None else f"{row.official_loss:.4f} ({row.coverage:.1%})",
        _told(row.parameters and row.parameters / 1e6, "{:.2f}M"),
        _told(row.tokens and row.tokens / 1e6, "{:.2f}M"),
        _told(row.passes, "{:,}"),
        _told(row.flops, "{:.2g}"),
        _told(row.seconds and row.seconds / 60, "{:.1f}"),
        f"{row.seeds}/{row.asked}" + (f", {len(row.failures)} failed" if row.failures else ""),
    )


def _told(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def verdict(row: ResultRow) -> str:
    """Whether the change helped, as far as its interval says."""
    if row.tie is None or row.difference is None:
        return ""
    found = "tie" if row.tie else "better" if row.difference < 0 else "worse"
    return found if row.pairs > 1 else f"{found}?"


def sentences(result: StudyResult) -> Iterator[str]:
    """What a reader has to know to read the table."""
    compared = {"ladder": "the row above", "ablation": "the first row", "grid": "the first row"}[result.form]
    yield (
        f"{result.about} Base {result.base}, {result.scale}. Losses in nats per character on the {result.split} documents, mean "
        f"± sd over seeds {', '.join(map(str, result.seeds))}; each difference is from {compared}, over the seeds and the "
        "documents that both share."
    )
    yield (
        f"p is the exact sign-flip test over paired seeds; with {len(result.seeds)} it can't be below "
        f"{result.smallest_p:.3g}. A tie is a difference whose interval holds 0."
    )
    more = sorted({row.pairs for row in result.rows if row.pairs > len(result.seeds)})
    if more:
        from shortrun.study.statistics import smallest_p  # it needs scipy, and charts of runs need this module

        yield (
            f"Steps near a tie were run with more seeds: {' and '.join(map(str, more))} in all, where p can be as low as "
            f"{smallest_p(more[-1]):.2g}."
        )
    if any(row.pairs == 1 for row in result.rows):
        yield "A question mark stands where one seed alone was compared: its interval says nothing about other seeds."
    if result.smallest_difference is not None:
        yield f"The smallest difference that this study shows four times out of five is {result.smallest_difference:.4f}."
    if result.final:
        yield f"The validation documents were first looked at on {result.final}."
    for row in result.rows:
        if row.note:
            told = "has no difference from" if row.difference is None else "beside"
            yield f"{row.change} {told} {row.reference}: {row.note}"
        for seed, reason in row.failures.items():
            yield f"{row.change}, seed {seed}: {reason}"


def markdown(result: StudyResult) -> str:
    """The table with its sentences and the reasons for the changes."""
    headings, *rows = lines(result)
    table = markdown_table([*map(plain_cell, headings)], ([*map(plain_cell, row)] for row in rows))
    reasons = [f"- **{plain_cell(row.change)}**: {plain_cell(row.reason)}" for row in result.rows if row.reason]
    return "\n".join([f"## {result.study}", "", *sentences(result), "", table, "", *reasons, ""])
