"""Which runs a study needs, and which of them there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from shortrun.disk import read_json, write_json
from shortrun.errors import UserError
from shortrun.runs.folder import free_path, runs_by_fingerprint
from shortrun.study.jobs import Job
from shortrun.study.study_file import Study
from shortrun.study.worker import Outcome

State = Literal["done", "begun", "missing"]


@dataclass(frozen=True)
class Entry:
    """One run of a study."""

    row: int
    """Its place in the study's rows."""
    seed: int
    fingerprint: str
    job: Job
    """Its recipe, and the folder that it has or will have."""
    state: State
    scores: dict[str, Any] | None
    """What scores.json holds, once it is done."""
    failure: str | None
    """Why the last try ended, where it failed."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps others from running the same study meanwhile; raises UserError where one does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise UserError(f"Another `shortrun study run` is at work in {folder}") from None
    with lock:
        yield


class Ledger:
    """All runs of a study, found under a root by their fingerprints, so that studies share them.

    Reads the folders when it is made. Two rows that are the same run share it.
    """

    def __init__(self, study: Study, root: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.study = study
        self.folder = root / study.name
        self._failures_file = self.folder / "failures.json"
        self._failures = read_json(self._failures_file) if self._failures_file.exists() else {}
        there = runs_by_fingerprint(root) if root.is_dir() else {}
        taken: dict[str, Path] = {}
        self.entries: list[Entry] = []
        for number, row in enumerate(study.rows):
            say(f"preparing {row.change}")
            prepared = None
            for seed, recipe in row.recipes.items():
                wanted = Job(recipe, self.folder / f"{_slug(number, row.change)}-{seed}")
                prepared = prepared or wanted.prepared()
                fingerprint = wanted.fingerprint(prepared)
                found = there.get(fingerprint)
                path = found.path if found else taken.setdefault(fingerprint, free_path(wanted.path))
                scores = found.finished_scores() if found else None
                self.entries.append(
                    Entry(
                        row=number,
                        seed=seed,
                        fingerprint=fingerprint,
                        job=Job(recipe, path),
                        state="done" if scores else "begun" if found else "missing",
                        scores=scores,
                        failure=None if scores else self._failures.get(fingerprint),
                    )
                )

    def of_row(self, number: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.row == number]

    def done(self, number: int) -> list[Entry]:
        """The runs of a row that are done."""
        return [entry for entry in self.of_row(number) if entry.state == "done"]

    def to_do(self) -> list[Entry]:
        """One entry for each run that is not done, all rows with the first seed first, so that a table soon has all rows."""
        left = {entry.fingerprint: entry for entry in reversed(self.entries) if entry.state != "done"}
        order = list(dict.fromkeys([*self.study.seeds, *(entry.seed for entry in self.entries)]))
        return sorted(left.values(), key=lambda entry: (order.index(entry.seed), entry.row))

    def ended(self, entry: Entry, outcome: Outcome) -> None:
        """Remembers at once why a run failed, or that it no longer does."""
        before = dict(self._failures)
        self._failures.pop(entry.fingerprint, None)
        if outcome.scores is None and not outcome.stopped:
            self._failures[entry.fingerprint] = outcome.reason
        if self._failures != before:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self._failures_file, self._failures)


def _slug(number: int, change: str) -> str:
    """A change as the name of a folder."""
    words = re.findall(r"[a-z0-9.]+", change.lower())
    return f"{number:02}-{'-'.join(words)[:60].strip('-.')}"


def outcomes(ledger: Ledger) -> Iterator[tuple[State, int]]:
    """How many different runs are in each state."""
    states = {entry.fingerprint: entry.state for entry in ledger.entries}
    for state in ("done", "begun", "missing"):
        yield state, sum(each == state for each in states.values())
