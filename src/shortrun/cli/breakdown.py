"""`shortrun breakdown`: where a run's loss lies."""

from __future__ import annotations

import json

import tyro
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from shortrun.cli.options import Breakdown
from shortrun.cli.output import say, shortened, show, visible
from shortrun.errors import counted, positive


def breakdown(argv: list[str]) -> None:
    options = tyro.cli(Breakdown, prog="shortrun breakdown", args=argv)
    hardest = positive(options.hardest, "--hardest") or 1
    from shortrun.view.breakdown import breakdown as divided

    found = divided(options.run, options.split, hardest)
    for note in found.notes:
        say(note)
    if options.json:
        print(json.dumps(found.as_dict()))
        return
    print(f"{found.run}, step {found.step:,}: {found.loss:.4f} nats per character", end=" ")
    print(f"on {counted(found.documents, f'{found.split} document')}")
    for name, parts in found.groups.items():
        table = Table(title=f"by {name}", title_justify="left", box=SIMPLE)
        for heading in ("", "tokens", "nats per token", "part of the loss", "share"):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for part in parts:
            table.add_row(
                part.name, f"{part.tokens:,}", f"{part.nats_per_token:.2f}", f"{part.loss:.4f}", f"{part.share:.1%}"
            )
        show(table)
    print(f"upper or lower case alone: {found.case_share:.1%} of the loss")
    table = Table(title="the hardest documents", title_justify="left", box=SIMPLE)
    table.add_column("loss", justify="right")
    table.add_column("document")
    for title in found.hardest:
        table.add_row(f"{title.loss:.2f}", escape(shortened(visible(title.text))))
    show(table)
