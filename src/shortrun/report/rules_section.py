"""Which of Mainrun's rules a run has kept, as far as its own record says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from shortrun.check.run import check_run
from shortrun.report.blocks import Block, Code, Paragraph, Section, Table
from shortrun.report.subjects import NamedRun

MARKS = {"kept": "✓ kept", "broken": "✗ broken", "unknown": "? not known"}


def rules_section(run: NamedRun) -> Section:
    """The rules that the folder's record answers; the others need the data and the model."""
    return Section.of("Mainrun's rules", _blocks(run))


def _blocks(run: NamedRun) -> Iterator[Block]:
    verdicts = check_run(run.folder.path, deep=False)
    yield Paragraph(
        f"What the record of {run.name} says of Mainrun's rules. A run of another task breaks those that it does not follow. The "
        "rest, which need the data and the model, are checked by the command below."
    )
    rows = tuple((each.rule, MARKS[each.verdict], each.evidence) for each in verdicts)
    yield Table(("rule", "verdict", "evidence"), rows)
    yield Code(shlex.join(["shortrun", "check", str(run.folder.path)]))
