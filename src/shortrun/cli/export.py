"""`shortrun export` and `shortrun verify`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import tyro
from rich.markup import escape
from rich.table import Table

from shortrun.cli.options import Export, Verify
from shortrun.cli.output import say, shortened, show, visible
from shortrun.errors import ShortrunError

if TYPE_CHECKING:
    from shortrun.export.verify import Verification


def export_command(argv: list[str]) -> None:
    options = tyro.cli(Export, prog="shortrun export", args=argv)
    from shortrun.export.write import export

    made = export(options.run, options.out, options.format, options.data.path)
    for note in made.notes:
        say(note)
    if options.json:
        print(json.dumps(made.as_dict()))
        return
    facts = made.manifest["model"]
    _show(made.verification, f"{options.out}: {facts['name']}, {facts['parameters']:,} parameters")
    print(f"how to load it: {options.out / 'README.md'}")


def verify_command(argv: list[str]) -> None:
    options = tyro.cli(Verify, prog="shortrun verify", args=argv)
    from shortrun.export.verify import verify

    found = verify(options.export, options.run, options.data.path)
    if options.json:
        print(json.dumps(found.as_dict()))
    else:
        _show(found, str(options.export))
    for note in found.notes:
        say(note)
    if found.failed:
        told = "; ".join(f"{check.name} {visible(check.found)}" for check in found.failed)
        raise ShortrunError(f"{options.export} does not give what the trained model gave: {told}")


def _show(found: Verification, title: str) -> None:
    table = Table("what", "", "found", title=escape(title), title_justify="left")
    for check in found.checks:
        table.add_row(check.name, "ok" if check.passed else "differs", escape(shortened(visible(check.found))))
    show(table)
