"""Checking a run folder, or a Mainrun log, by rules: one verdict for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shortrun.check.log_facts import OfficialLog
from shortrun.check.members import finding_of
from shortrun.check.rules import Rule, load_rules
from shortrun.check.subject import Subject
from shortrun.check.verdict import Verdict
from shortrun.errors import ShortrunError, UserError
from shortrun.model.device import repeatable

OnRule = Callable[[str, int, int], None]
"""Told of each rule before it is checked: its name, its number, and how many there are."""


def ignore(name: str, number: int, of: int) -> None:
    """Listens to nothing."""


def check_run(
    path: Path,
    rules: str | Path = "mainrun",
    *,
    deep: bool = True,
    data_path: Sequence[str] = (),
    on_rule: OnRule = ignore,
) -> list[Verdict]:
    """What is said of each rule of a set, which is shipped or a TOML file, about a run folder.

    deep: whether to read the data again and load the model, too; otherwise only rules that the folder's own record answers
    are checked, in milliseconds. data_path: where the run's files lie now. Raises UserError where `path` is no run or the
    rules are wrong.
    """
    asked = load_rules(str(rules)).run
    if not asked:
        raise UserError(f"The rules '{rules}' have no [[rule]], so they say nothing about a run folder")
    subject = Subject(path, data_path)
    with repeatable(subject.threads):
        return _judged(subject, [rule for rule in asked if deep or not rule.check.deep], on_rule)


def check_log(path: Path, rules: str | Path = "mainrun", *, reported: float | None = None) -> list[Verdict]:
    """What is said of each rule about a Mainrun log. reported: the loss that somebody says it reached.

    Raises UserError where the file holds no event or the rules are wrong.
    """
    asked = load_rules(str(rules)).log
    if not asked:
        raise UserError(f"The rules '{rules}' have no [[log_rule]], so they say nothing about a log")
    return _judged(OfficialLog.read(path, reported), asked, ignore)


def _judged(subject: Any, rules: Sequence[Rule], on_rule: OnRule) -> list[Verdict]:
    verdicts = []
    for number, rule in enumerate(rules, 1):
        on_rule(rule.name, number, len(rules))
        try:
            verdict, evidence = (
                finding_of(subject, rule.check, rule.values)
                if isinstance(subject, Subject)
                else rule.check.judge(subject, **rule.values)
            )
        except ShortrunError as error:
            verdict, evidence = "unknown", str(error)
        except (
            Exception
        ) as error:  # a forged or damaged record may hold anything, and the other rules are still to be told
            verdict, evidence = "unknown", f"the record can't be read as it should be ({type(error).__name__}: {error})"
        verdicts.append(Verdict(rule.name, verdict, evidence))
    return verdicts
