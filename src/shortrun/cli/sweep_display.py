"""What a person sees of a sweep: a live table on a terminal or a line for each trial elsewhere, and a table at the end."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from shortrun.cli.live import LiveTable
from shortrun.cli.output import duration, message, show, visible_lines
from shortrun.study.sweep_events import Standing, TrialEvent
from shortrun.view.sweep import SweepReport, number, shown, summary

LAST = 12
"""Trials in the live table."""


class SweepDisplay(LiveTable):
    """Shows a sweep's trials on standard error while it runs; use it as a context manager."""

    def __init__(self) -> None:
        self._trials: dict[int, TrialEvent] = {}
        self._standing: Standing | None = None
        super().__init__()

    def __call__(self, event: TrialEvent, standing: Standing) -> None:
        before = self._trials.get(event.number)
        self._trials[event.number] = event
        self._standing = standing
        if not self.console.is_terminal and event.changed and event != before:
            self.say(_line(event, standing))

    def _table(self) -> Table:
        title = _left(self._standing) if self._standing else "preparing"
        table = Table(title=title, title_justify="left", box=SIMPLE)
        for heading in ("trial", "state", "step", "tuning loss", "values"):
            table.add_column(heading, justify="right" if heading in ("trial", "step", "tuning loss") else "left")
        for event in sorted(self._trials.values(), key=lambda event: event.number)[-LAST:]:
            step = f"{event.step}/{event.total_steps}" if event.total_steps else ""
            loss = "" if event.loss is None else f"{event.loss:.4f}"
            table.add_row(str(event.number), event.state, step, loss, escape(shown(event.params)))
        return table


def show_report(report: SweepReport) -> None:
    """All trials on standard output, best first, and what finding the best has cost."""
    names = list(dict.fromkeys(name for trial in report.trials for name in trial.params))
    table = Table(title=escape(report.sweep), title_justify="left", box=SIMPLE)
    for heading in ("trial", "state", "tuning loss", *names, "run"):
        table.add_column(escape(heading), justify="left" if heading in ("state", "run") else "right")
    for trial in report.trials:
        loss = "" if trial.loss is None else f"{trial.loss:.4f}"
        values = [number(trial.params[name]) if name in trial.params else "" for name in names]
        table.add_row(str(trial.number), trial.state, loss, *map(escape, values), escape(trial.run or ""))
    show(table)
    for trial in report.trials:
        if trial.reason:
            print(message(f"trial {trial.number} failed: {trial.reason}"))
    print(visible_lines("\n".join(summary(report))))


def _line(event: TrialEvent, standing: Standing) -> str:
    loss = "" if event.loss is None else f"  tuning loss {event.loss:.4f}"
    reason = f"  {event.reason}" if event.reason else ""
    return f"trial {event.number}  {event.state}{loss}  {shown(event.params)}{reason}  ({_left(standing)})"


def _left(standing: Standing) -> str:
    left = standing.n_trials - standing.finished
    seconds = standing.seconds_left
    return f"{left} of {standing.n_trials} trials left" + (f", {duration(seconds)} left" if seconds is not None else "")
