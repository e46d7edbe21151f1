"""What a person sees while a study runs: one live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.markup import escape
from rich.table import Table

from shortrun.cli.live import LiveTable
from shortrun.cli.output import duration
from shortrun.errors import counted
from shortrun.study.ledger import Entry, Ledger
from shortrun.study.run import Change
from shortrun.study.worker import Outcome, Progress

EVERY = 30.0
"""Seconds between two plain lines about one run."""


class StudyDisplay(LiveTable):
    """Shows how a study gets on, on standard error; use it as a context manager, and give it each change."""

    def __init__(self, ledger: Ledger, workers: int) -> None:
        self.changes = [row.change for row in ledger.study.rows]
        to_do = ledger.to_do()
        self.total = len({entry.fingerprint for entry in ledger.entries})
        self.done = self.total - len(to_do)
        self.workers = min(workers, max(len(to_do), 1))
        self.best = min(
            ((entry.scores["tuning_loss"], self._name(entry)) for entry in ledger.entries if entry.scores), default=None
        )
        self.failed = 0
        self.running: dict[str, tuple[Entry, Progress]] = {}
        self._took: list[float] = []
        self._since: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._warnings: set[str] = set()
        super().__init__(refresh_per_second=2, transient=True)

    def __call__(self, entry: Entry, what: Change) -> None:
        key = entry.fingerprint
        match what:
            case None:
                self._since[key] = time.monotonic()
                self.running[key] = entry, Progress(0, 0)
                self.say(f"{self._name(entry)}: begun, {entry.job.path}")
            case str():
                self.say(f"{self._name(entry)}: {what}")
            case Progress():
                self.running[key] = entry, what
                if what.warning and what.warning not in self._warnings:
                    self._warnings.add(what.warning)
                    self.say(f"{self._name(entry)}: {what.warning}")
                now = time.monotonic()
                if not self.console.is_terminal and what.step and now - self._said.get(key, 0) > EVERY:
                    self._said[key] = now
                    left = "" if what.seconds_left is None else f", {duration(what.seconds_left)} left"
                    self.say(f"{self._name(entry)}: step {what.step}/{what.total_steps}{left}; {self._state()}")
            case Outcome():
                self.running.pop(key, None)
                self._ended(entry, what)

    def _ended(self, entry: Entry, outcome: Outcome) -> None:
        if outcome.scores is None:
            self.failed += not outcome.stopped
            self.say(f"{self._name(entry)}: {outcome.reason}")
            return
        self.done += 1
        self._took.append(time.monotonic() - self._since[entry.fingerprint])
        loss = outcome.scores["tuning_loss"]
        if self.best is None or loss < self.best[0]:
            self.best = loss, self._name(entry)
        self.say(f"{self._name(entry)}: tuning loss {loss:.4f}; {self._state()}")

    def _state(self) -> str:
        told = f"{self.done} of {counted(self.total, 'run')} done"
        if self.failed:
            told += f", {self.failed} failed"
        left = self.seconds_left()
        return told + (f", about {duration(left)} left" if left is not None else "")

    def seconds_left(self) -> float | None:
        """From the mean time of the runs so far; None before the first has ended."""
        if not self._took:
            return None
        waiting = self.total - self.done - self.failed - len(self.running)
        mean = sum(self._took) / len(self._took)
        now = time.monotonic()
        begun = sum(max(mean - (now - self._since[key]), 0) for key in self.running)
        return (waiting * mean + begun) / self.workers

    def _name(self, entry: Entry) -> str:
        return f"{self.changes[entry.row]}, seed {entry.seed}"

    def _table(self) -> Table:
        best = f"; best so far {self.best[0]:.4f}, {self.best[1]}" if self.best else ""
        table = Table(title=escape(self._state() + best), title_justify="left")
        for heading in ("running", "step", "tuning", "left"):
            table.add_column(heading)
        for entry, at in self.running.values():
            table.add_row(
                escape(self._name(entry)),
                f"{at.step:,} / {at.total_steps:,}" if at.total_steps else "preparing",
                "-" if at.tuning_loss is None else f"{at.tuning_loss:.4f}",
                "-" if at.seconds_left is None else duration(at.seconds_left),
            )
        waiting = self.total - self.done - self.failed - len(self.running)
        table.caption = f"{counted(waiting, 'run')} waiting"
        return table
