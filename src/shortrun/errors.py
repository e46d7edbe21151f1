"""The two ways a run can go wrong that are not bugs, each with a sentence and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ShortrunError(Exception):
    """Something foreseeable stopped the work; the message is written for the person at the keyboard."""

    exit_code = 1
    shared = False
    """Whether every one of several processes meets it."""
    process: int | None = None
    """Which of several processes it happened in, if only one of them may know."""


class UserError(ShortrunError):
    """What was asked for can't be done: a bad file, a typo, a recipe that can't work. Exit code 2."""

    exit_code = 2


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A clause naming the valid choice nearest to `name`, or all of them when none is near."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"choose from {', '.join(choices)}" if choices else "there are none to choose from"
