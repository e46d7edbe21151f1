"""Reading a log of events, JSON lines under Mainrun's names, whoever wrote it: ours, Mainrun's, or a hostile one.

Nothing in such a file may stop the reader. A line that is no JSON object is counted and left out, a line of more than
1 MiB is not kept in memory, and a value of another type than expected is as good as absent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shortrun.errors import UserError
from shortrun.limits import regular_size

LONGEST_LINE = 2**20
LARGEST = 1e15
"""Numbers beyond this are none that a log of a run holds."""
BEGINNING = "hyperparameters_configured"


@dataclass(frozen=True)
class EventLog:
    """The events of the last run that a file holds."""

    events: tuple[dict[str, Any], ...]
    runs: int
    """How many runs begin in the file."""
    unreadable: int
    """Lines that are no JSON object with an event's name."""

    def first(self, name: str) -> Mapping[str, Any]:
        """The first event of that name; an empty one where there is none."""
        return next(self.all(name), {})

    def last(self, name: str) -> Mapping[str, Any]:
        """The last event of that name; an empty one where there is none."""
        return next((event for event in reversed(self.events) if event["event"] == name), {})

    def all(self, name: str) -> Iterator[Mapping[str, Any]]:
        return (event for event in self.events if event["event"] == name)


def numbered_events(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Each line that is not blank, by its number from 1, as the event that it holds; None where it holds none.

    Raises OSError.
    """
    return ((place, _event(line)) for place, line in numbered_lines(path))


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a log that are not blank, by their numbers from 1; of one that is too long, its beginning. Raises OSError."""
    regular_size(path)
    with path.open("rb") as file:
        yield from _lines(file)


def read_events(path: Path) -> EventLog:
    """Reads a log; raises UserError where the file can't be read or holds no event at all."""
    events: list[dict[str, Any]] = []
    runs = unreadable = 0
    try:
        for _, event in numbered_events(path):
            if event is None:
                unreadable += 1
                continue
            if event["event"] == BEGINNING:
                runs += 1
                events = []
            events.append(event)
    except OSError as error:
        raise UserError(f"The log {path} can't be read: {error.strerror or error}") from None
    if not events:
        lines = f": none of its {unreadable:,} lines is a JSON object with an event" if unreadable else ": it is empty"
        raise UserError(f"{path} is no log of events{lines}")
    return EventLog(tuple(events), max(runs, 1), unreadable)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers; of one that is too long, only its beginning, which is then no JSON."""
    place = 0
    while line := file.readline(LONGEST_LINE):
        place += 1
        rest = line
        while len(rest) == LONGEST_LINE and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_LINE)
        if line.strip():
            yield place, line


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, an integer of thousands of digits, nested without end
        return None
    if isinstance(event, dict) and isinstance(event.get("event"), str):
        return event
    return None


def number(event: Mapping[str, Any], name: str) -> float | None:
    """A field that is a finite number; None otherwise."""
    value = event.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST < value < LARGEST:
        return None
    return float(value) if math.isfinite(value) else None


def whole(event: Mapping[str, Any], name: str) -> int | None:
    """A field that is a whole number; None otherwise."""
    value = number(event, name)
    return int(value) if value is not None and value == int(value) else None
