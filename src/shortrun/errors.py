"""The two ways a run can go wrong that are not bugs, each with a sentence and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice


class ShortrunError(Exception):
    """Something foreseeable stopped the work; the message is written for the person at the keyboard."""

    exit_code = 1
    shared = False
    """True where all of several processes raise it; the first one then speaks for them."""
    process: int | None = None
    """The process that raised it, where it is one of several and the others may not know."""


class LostProcess(ShortrunError):
    """Another process of the same run has ended or can't be reached."""


class UserError(ShortrunError):
    """What was asked for can't be done: a bad file, a typo, a recipe that can't work. Exit code 2."""

    exit_code = 2


def missing_extra(what: str, extra: str, instead: str = "") -> UserError:
    """The error for something ("a chart") that needs an extra which is not installed; `instead` says what to do otherwise."""
    return UserError(f"{what} needs the extra `{extra}`: pip install 'shortrun[{extra}]'{instead}")


def reason_of(error: Exception) -> str:
    """What an error says, without the number and the path that Python adds to those of files."""
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


MOST_COMPARED, LONGEST_NAME, MOST_NAMED = 1_000, 200, 100
"""Choices that a name is compared with, how long they may be, and how many of them a sentence lists."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A clause naming the valid choice nearest to `name`, or all of them when none is near.

    A table of a stranger may have a million columns, so only the first ones are looked at.
    """
    choices = sorted(choice for choice in islice(choices, MOST_COMPARED) if len(choice) <= LONGEST_NAME)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6) if len(name) <= LONGEST_NAME else []
    if near:
        return f"did you mean '{near[0]}'?"
    more = f" and {len(choices) - MOST_NAMED:,} more" if len(choices) > MOST_NAMED else ""
    return f"choose from {', '.join(choices[:MOST_NAMED])}{more}" if choices else "there are none to choose from"


def first_line(error: BaseException) -> str:
    """What a library says of an error, in one line; its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 step", "2,400 steps"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def positive(number: int | None, name: str) -> int | None:
    """The number, which may be left out; raises UserError unless it is at least 1."""
    if number is not None and number < 1:
        raise UserError(f"{name} {number} must be at least 1")
    return number
