"""`shortrun check`: which rules a run folder, or a Mainrun log, has kept."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shortrun.cli.options import Check
from shortrun.cli.output import show, visible
from shortrun.errors import ShortrunError, UserError, counted

if TYPE_CHECKING:  # it imports torch
    from shortrun.check.verdict import Verdict

STYLES = {"kept": "green", "broken": "bold red", "unknown": "yellow"}


class RulesBroken(ShortrunError):
    """At least one rule is broken, or with --strict can't be checked; exit code 1."""


def check(argv: list[str]) -> None:
    options = tyro.cli(Check, prog="shortrun check", args=argv)
    from shortrun.check.run import check_log, check_run

    subject = options.official_log or options.run
    if subject is None or (options.official_log and options.run):
        raise UserError("Give one thing to check: a run folder, or a Mainrun log by --official-log FILE")
    if options.official_log:
        if options.reported is not None and not math.isfinite(options.reported):
            raise UserError(f"--reported {options.reported} must be a number")
        if options.quick:
            raise UserError("--quick is about a run folder: a log is read in moments")
        verdicts = check_log(options.official_log, options.rules, reported=options.reported)
    else:
        if options.reported is not None:
            raise UserError("--reported is about a log: a run folder says itself what it reports")
        console = Console(stderr=True, highlight=False)
        with console.status("reading the folder") as status:  # says nothing where there is no terminal

            def on_rule(name: str, number: int, of: int) -> None:
                status.update(f"rule {number} of {of}: {escape(visible(name))}")

            verdicts = check_run(
                subject, options.rules, deep=not options.quick, data_path=options.data.path, on_rule=on_rule
            )
    if options.json:
        print(json.dumps([dataclasses.asdict(verdict) for verdict in verdicts]))
    else:
        _show(subject, verdicts)
    broken = [verdict.rule for verdict in verdicts if verdict.verdict == "broken"]
    unknown = [verdict.rule for verdict in verdicts if verdict.verdict == "unknown"] if options.strict else []
    told = [
        f"{counted(len(rules), 'rule')} {what}: {', '.join(rules)}"
        for rules, what in ((broken, "broken"), (unknown, "can't be checked"))
        if rules
    ]
    if told:
        raise RulesBroken("; ".join(told))


def _show(subject: Path, verdicts: list[Verdict]) -> None:
    table = Table("rule", "verdict", "evidence", title=escape(str(subject)), title_justify="left")
    for each in verdicts:
        style = STYLES[each.verdict]
        evidence = "\n".join(visible(line) for line in each.evidence.splitlines())
        table.add_row(escape(each.rule), f"[{style}]{each.verdict}[/]", escape(evidence))
    show(table)
    counts = Counter[str](each.verdict for each in verdicts)
    print(f"{counts['kept']} kept, {counts['broken']} broken, {counts['unknown']} can't be checked")
