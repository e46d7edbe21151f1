"""What a person sees: tables, numbers and documents on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shortrun.cache import Entry
from shortrun.cards import CARDS, Technique
from shortrun.errors import counted
from shortrun.text.visible import visible as visible  # for whoever shows documents
from shortrun.text.visible import visible_lines as visible_lines

if TYPE_CHECKING:  # these import torch
    from shortrun.runs.members import Member
    from shortrun.runs.result import Result
    from shortrun.train.plan import Plan
    from shortrun.view.evaluate import Report


def show_run(result: Result, as_json: bool) -> None:
    """The end of a run: its losses, five documents it writes, and where it lies."""
    if not is_first_process():
        return
    scores = result.as_dict()
    if as_json:
        print(json.dumps(scores))
        return
    from shortrun.runs.trained import load_trained

    rows = loss_rows(scores)
    if "floor" in scores:
        rows["floor of this corpus"] = f"{scores['floor']:.4f}; the loss is {scores['excess']:.4f} above it"
    if scores["tuning_loss"] is not None:
        rows["tuning loss"] = f"{scores['tuning_loss']:.4f}"
    rows["budget"] = (
        f"{counted(scores['steps'], 'step')}, {scores['epochs']:g} epochs, {scores['tokens']:,} tokens, {scores['flops']:.3g} FLOP, "
        f"{scores['seconds']:.0f} s, {scores['tokens_per_second'] or 0:,.0f} tokens/s"
    )
    show_pairs(
        "scores" if scores["complete"] else f"scores after {counted(scores['steps'], 'step')} (not finished)", rows
    )
    print("\nfive documents it writes:")
    for document in load_trained(Path(scores["run"])).sample(prefix="", count=5, temperature=1.0, seed=0):
        print(f"  {shortened(visible(document))}")
    print(f"\nrun folder: {scores['run']}")
    if not scores["complete"]:
        print(f"go on by: shortrun resume {scores['run']}")


def show_members(members: Sequence[Member]) -> None:
    """The runs that an ensemble was combined of."""
    table = Table(title="members, each by itself", title_justify="left", box=SIMPLE)
    for heading in ("run", "seed", "weight", "loss", "parameters", "epochs", "passes"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for each in members:
        numbers = (f"{each.parameters:,}", f"{each.epochs:g}", f"{each.passes:,}")
        table.add_row(
            escape(visible(each.run)), str(each.recipe.train.seed), f"{each.weight:.4f}", f"{each.loss:.4f}", *numbers
        )
    show(table)


def show_evaluation(report: Report, count: int) -> None:
    """Losses of each checkpoint, and `count` documents at either end."""
    result = report.as_dict(count)
    table = Table(
        title=escape(f"{report.run}: {counted(result['documents'], 'document')}"), title_justify="left", box=SIMPLE
    )
    for heading in ("step", "loss", "95 % interval", "official", "coverage", "bits/byte", "perplexity"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result["checkpoints"]:
        low, high = row["interval"]
        table.add_row(
            str(row["step"]),
            f"{row['loss']:.4f}",
            f"{low:.4f}-{high:.4f}",
            f"{row['official_loss']:.4f}" if row["coverage"] else "none",
            f"{row['coverage']:.1%}",
            f"{row['bits_per_byte']:.4f}",
            perplexity(row),
        )
    show(table)
    share = result["share_in_training"]
    print(
        "the training documents can't be read any more" if share is None else f"{share:.2%} of them were trained on too"
    )
    for kind in ("hardest", "easiest") if count else ():
        print(f"\n{kind} documents (nats per character):")
        for found in result[kind]:
            print(f"  {found['loss']:.3f}  {shortened(visible(found['document']))}")


def show_plan(recipe: str, plan: Plan) -> None:
    memory = {part: f"{size / 1e9:.2f} GB" for part, size in plan.memory_bytes.items()}
    where = f"each of {plan.gpus} GPUs" if plan.gpus else "the CPU"
    show_pairs(
        f"plan for {recipe} on {where}",
        {
            "parameters": f"{plan.parameters:,}",
            "documents": f"{plan.documents:,} to train on",
            "tokens, steps": f"about {plan.tokens:,} targets in {plan.steps:,} steps ({plan.tokens_from})",
            "memory": f"about {memory.pop('total')}: " + ", ".join(f"{part} {size}" for part, size in memory.items()),
            "arithmetic": f"{plan.flops:.3g} FLOP, {plan.passes_per_step:.3g} forward and backward passes a step",
            "weight decay": "learning rate × weight decay adds up to "
            + ", ".join(f"{total:.3g} on {group}" for group, total in plan.shrink.items()),
            "CPU": plan.cpu,
            "precision": plan.precision_from,
            "time": f"about {duration(plan.seconds)} at {plan.flops_per_second / 1e9:,.0f} GFLOP/s "
            f"({plan.flops_per_second_from})"
            + (f", {duration(plan.datastore_seconds)} of it for the datastore" if plan.datastore_seconds else ""),
        },
    )


def show_techniques(found: list[Technique]) -> None:
    """What has a card, then what is only a row."""
    cards = Table("technique", "switch", "cost", title=f"techniques with a card in {CARDS}", title_justify="left")
    rows = Table("technique", "switch", "what it does", "cost", title="the others", title_justify="left")
    for one in found:
        what = () if one.path else (escape(one.what),)
        (cards if one.path else rows).add_row(one.title, "\n".join(one.switches), *what, one.cost)
    show(cards)
    show(rows)


def show_data(manifest: dict[str, Any]) -> None:
    """Counts and fingerprints of the splits, duplicates, and what cleaning changed."""
    table = Table(title=f"{manifest['source']}, sha256 {manifest['sha256']}")
    for heading in ("split", "documents", "characters", "bytes", "repeated inside", "sha256"):
        table.add_column(heading, justify="right" if heading not in ("split", "sha256") else "left")
    for name, split in manifest["splits"].items():
        numbers = (split[key] for key in ("documents", "characters", "bytes", "duplicates_inside"))
        table.add_row(name, *(f"{number:,}" for number in numbers), split["sha256"][:12])
    show(table)
    for name, count in {**manifest["duplicates_across"], **manifest["cleaning"]}.items():
        print(f"{visible(name.replace('_', ' '))}: {count:,}")


def show_cache(root: Path, entries: Sequence[Entry]) -> None:
    print(f"{root}: {sum(entry.bytes for entry in entries) / 1e6:,.1f} MB")
    table = Table()
    for heading in ("kind", "what", "MB", "last used"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    for entry in entries:
        used = datetime.fromtimestamp(entry.last_used).astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(entry.kind, escape(entry.about), f"{entry.bytes / 1e6:,.1f}", used)
    show(table)


def show_pairs(title: str, rows: dict[str, str]) -> None:
    table = Table(title=escape(title), title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(escape(name), escape(value))
    show(table)


def show(table: Table) -> None:
    """Prints a table as wide as the terminal or as COLUMNS says, and wide enough for every column where there is neither."""
    Console(highlight=False, width=width_of_output()).print(harmless(table))


def width_of_output() -> int:
    """How many columns a table may have."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    return Console().width if sys.stdout.isatty() else 140


def harmless(table: Table) -> Table:
    """The table, in whose words nothing steers the terminal."""
    if isinstance(table.title, str):
        table.title = visible_lines(table.title)
    for column in table.columns:
        column._cells = [visible_lines(cell) if isinstance(cell, str) else cell for cell in column._cells]
        if isinstance(column.header, str):
            column.header = visible_lines(column.header)
    return table


def duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"


def loss_rows(scores: Mapping[str, Any], of_loss: str = "", of_perplexity: str = "") -> dict[str, str]:
    """The losses of scores.json, each on a line; what else is to be said of two of them stands behind."""
    return {
        "loss (nats per character)": f"{scores['loss']:.4f}{of_loss}",
        "official loss, coverage": f"{scores['official_loss']:.4f}, {scores['coverage']:.1%} of the targets scored"
        if scores["coverage"]
        else "none: the validation documents are shorter than one span",
        "bits per byte": f"{scores['bits_per_byte']:.4f}",
        "perplexity (per token)": perplexity(scores) + of_perplexity,
    }


def perplexity(scores: Mapping[str, Any]) -> str:
    return "too large" if scores["perplexity"] is None else f"{scores['perplexity']:.2f}"


MOST_LINES, MOST_CHARACTERS = 200, 2_000
"""Of a message: a file of a stranger may be wrong in a million places, or hold one name of a million letters."""


def say(sentence: str) -> None:
    """Writes a message on standard error: what a file says in it can't steer the terminal, nor fill it."""
    print(message(sentence), file=sys.stderr)


def message(sentence: str) -> str:
    """A message as it is shown."""
    lines = visible_lines(sentence).split("\n")
    told = [shortened(line, MOST_CHARACTERS) for line in lines[:MOST_LINES]]
    return "\n".join([*told, f"... and {len(lines) - MOST_LINES:,} lines more"] if len(lines) > MOST_LINES else told)


def shortened(text: str, most: int = 200) -> str:
    """A long text's beginning."""
    return text[:most] + "…" * (len(text) > most)


def is_first_process() -> bool:
    """Whether this process, of those that torchrun may have started, is the one that speaks."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
