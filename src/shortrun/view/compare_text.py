"""A comparison as tables and sentences, for a terminal and as Markdown; and what a chart writes beside a run's name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from shortrun.errors import counted
from shortrun.recipe_file import toml_value
from shortrun.text.visible import shown_token
from shortrun.view.compare import ComparedRun, Comparison
from shortrun.view.paired_documents import RunDifference
from shortrun.view.text import literal_cell, markdown_table, plain_cell

LABEL_FIELDS = 2
"""A run that differs in more fields than that has no room for them in a chart."""


LOSSES: tuple[str, ...] = ("run", "loss", "95 % interval", "official (coverage)", "tuning")
COSTS = ("run", "parameters", "steps", "tokens", "passes", "FLOPs", "minutes")
DIFFERENCES = ("run", "difference", "95 % interval", "p", "", "documents better", "worse")
Row = tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A table with its title; what is text stands in the first `text` columns, numbers in the others."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Row]
    text: int = 1
    documents: bool = False
    """Whether the first column holds texts of documents, whose characters mean nothing to Markdown."""
    first: int = 0
    """Columns that stay in front of each, where the table has to be cut into several."""
    groups: tuple[int, ...] = ()
    """How many columns stay together behind them, such as those of one run; nothing of a table that may not be cut."""


def sections(found: Comparison, names: Sequence[str] = (), *, scores: bool = True) -> Iterator[Section]:
    """All tables: recipes first, then losses, differences, evaluations, documents, and the text that was asked for.

    names: what the runs are called in the tables, if not by their names. scores: whether losses and costs are among them.
    """
    names = tuple(names) or tuple(run.name for run in found.runs)
    called = {run.name: name for run, name in zip(found.runs, names, strict=True)}
    yield _recipes(found, names)
    split = found.runs[0].split
    if scores:
        shown = slice(None) if split == "validation" else slice(3)  # the official loss is of the validation documents
        losses = [(called[run.name], *_losses(run))[shown] for run in found.runs]
        yield Section(f"losses, nats per character of the {split} documents", LOSSES[shown], losses)
        yield Section("what they cost", COSTS, [(called[run.name], *_costs(run)) for run in found.runs])
    if found.differences:
        rows = [(called[each.name], *_difference(each)) for each in found.differences]
        yield Section(f"difference from {names[0]}, paired over documents", DIFFERENCES, rows)
    if found.steps:
        yield _evaluations(found, names)
    for each in found.differences:
        yield from _documents(each, names[0], called[each.name])
    if found.on is not None:
        yield _surprisals(found, names, found.on)


def lettered(found: Comparison) -> tuple[Section, tuple[str, ...]]:
    """Short names for the runs, where tables have no room for others: A, B and so on; and the table that says whose they are."""
    count = len(found.runs)
    letters = tuple(ascii_uppercase[:count] if count <= len(ascii_uppercase) else (f"R{at + 1}" for at in range(count)))
    rows: list[Row] = [(letter, run.name) for letter, run in zip(letters, found.runs, strict=True)]
    return Section("in all tables", ("", "is the run"), rows, text=2), letters


def _recipes(found: Comparison, names: tuple[str, ...]) -> Section:
    rows: list[Row] = [(each.field, *map(_value, each.values)) for each in found.recipe_differences]
    return Section(
        "recipes differ in", ("field", *names), rows, text=1 + len(names), first=2, groups=(1,) * (len(names) - 1)
    )


def _difference(found: RunDifference) -> Row:
    low, high = found.interval
    return (
        f"{found.difference:+.4f}",
        f"{low:+.4f} to {high:+.4f}",
        f"{found.p:.3g}",
        ("tie" if found.tie else "better" if found.difference < 0 else "worse") + "?",
        f"{found.better:,}",
        f"{found.worse:,}",
    )


def _documents(found: RunDifference, first: str, name: str) -> Iterator[Section]:
    """Those that have become better, then those that have become worse."""
    for kind, side in zip(("better", "worse"), found.extremes, strict=True):
        rows: list[Row] = [
            (
                f"document {each.index}" if each.document is None else each.document,
                f"{each.difference:+.2f}",
                f"{each.nats[0]:.2f}",
                f"{each.nats[1]:.2f}",
            )
            for each in side
        ]
        title = f"documents that are {kind} with {name}, in nats"
        yield Section(title, ("document", "difference", first, name), rows, documents=True)


def _surprisals(found: Comparison, names: tuple[str, ...], text: str) -> Section:
    rows: list[Row] = [
        (shown_token(span.text) or "(its end)", *_beside_first(span.nats, span.differences)) for span in found.spans
    ]
    total = [sum(span.nats[at] for span in found.spans) for at in range(len(names))]
    rows.append(("all", *_beside_first(total, [nats - total[0] for nats in total])))
    headings = ["text", names[0]]
    for name in names[1:]:
        headings += [name, f"{name} - {names[0]}"]
    return Section(
        f"surprisal in nats: {text}", tuple(headings), rows, documents=True, first=2, groups=(2,) * (len(names) - 1)
    )


def _beside_first(nats: Sequence[float], differences: Sequence[float]) -> Iterator[str]:
    """The nats of the first run, then those of each other one with their difference."""
    yield f"{nats[0]:.2f}"
    for mine, difference in zip(nats[1:], differences[1:], strict=True):
        yield from (f"{mine:.2f}", f"{difference:+.2f}")


def _evaluations(found: Comparison, names: tuple[str, ...]) -> Section:
    """Each run's loss at each evaluation; its step beside it where runs have steps of their own."""
    own = any(len(set(row.steps)) > 1 for row in found.steps)
    headings = ["epoch"] if own else ["epoch", "step"]
    for number, name in enumerate(names):
        headings += [*(["step"] if own else []), name, *(["improvement"] if number else [])]
    rows: list[Row] = []
    for row in found.steps:
        cells = ["-" if row.epoch is None else f"{row.epoch:.2f}"] + ([] if own else [f"{row.steps[0]:,}"])
        for number, (step, loss) in enumerate(zip(row.steps, row.losses, strict=True)):
            cells += [*([f"{step:,}"] if own else []), f"{loss:.4f}"]
            better = row.improvement_percent[number]
            cells += ["-" if better is None else f"{better:+.2f} %"] if number else []
        rows.append(tuple(cells))
    title = f"{found.runs[0].split} loss by evaluation"
    return Section(title, tuple(headings), rows, text=0, first=3, groups=(3 if own else 2,) * (len(names) - 1))


def sentences(found: Comparison) -> Iterator[str]:
    """What a reader has to know to read the tables."""
    if not found.recipe_differences:
        yield "The recipes are the same in everything that decides a run."
    if found.differences:
        seeds = sorted({run.recipe.train.seed for run in found.runs})
        told = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        yield (
            f"Intervals and p are the noise of the {found.runs[0].split} documents alone (paired bootstrap, sign-flip test over "
            f"{counted(len(found.runs[0].nats.nats_D) if found.runs[0].nats else 0, 'document')}). Seeds have noise of their "
            f'own, which one run each ({told}) can\'t show. So it is "better?", "worse?" or "tie?", with a question mark; a '
            "study of several seeds can do without."
        )
    yield from found.notes


def markdown(found: Comparison) -> str:
    """The whole comparison."""
    parts = [f"## {', '.join(literal_cell(run.name) for run in found.runs)}", *sentences(found)]
    for section in sections(found):
        if section.rows:
            right = [column >= section.text for column in range(len(section.headings))]
            first = literal_cell if section.documents else plain_cell
            rows = ((first(row[0]), *map(plain_cell, row[1:])) for row in section.rows)
            table = markdown_table([*map(plain_cell, section.headings)], rows, right)
            parts += [f"### {literal_cell(section.title)}", table]
    return "\n\n".join(parts) + "\n"


def chart_changes(found: Comparison) -> dict[str, str]:
    """By the run's name, what is different in it from the first run, where that is short."""
    changes = {}
    for at, run in enumerate(found.runs):
        mine = [each for each in found.recipe_differences if at and each.values[at] != each.values[0]]
        if len(mine) <= LABEL_FIELDS:
            changes[run.name] = ", ".join(f"{each.field.partition('.')[2]} {_value(each.values[at])}" for each in mine)
    return changes


def _told(run: ComparedRun, key: str, form: str, by: float = 1.0) -> str:
    value = (run.scores or {}).get(key)
    return "-" if value is None else form.format(value / by)


def _losses(run: ComparedRun) -> Row:
    scores, interval = run.scores or {}, run.interval
    return (
        _told(run, "loss" if run.split == "validation" else "tuning_loss", "{:.4f}"),
        "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
        f"{scores['official_loss']:.4f} ({scores['coverage']:.1%})" if scores.get("coverage") else "-",
        _told(run, "tuning_loss", "{:.4f}"),
    )


def _costs(run: ComparedRun) -> Row:
    return (
        _told(run, "parameters", "{:.2f}M", 1e6),
        _told(run, "steps", "{:,.0f}"),
        _told(run, "tokens", "{:.2f}M", 1e6),
        _told(run, "passes", "{:,.0f}"),
        _told(run, "flops", "{:.2g}"),
        _told(run, "seconds", "{:.1f}", 60),
    )


def _value(value: Any) -> str:
    return "none" if value is None else toml_value(value)
