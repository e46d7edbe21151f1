"""A corpus that is being prepared, and one that is: progress on standard error, tables on standard output."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from shortrun.cli.output import duration, message, shortened, show, visible
from shortrun.errors import counted
from shortrun.pipeline import runner

EVERY = 10.0
"""Seconds between two lines where there is no terminal."""
MOST_BINS = 64
"""Documents of 2^64 characters there are none."""
BAR = 40
"""Characters of the longest bar of a histogram."""


class Preparing:
    """Shows how far the stages are; use it as a context manager."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._task: TaskID | None = None
        self._stage, self._begun, self._first, self._said = "", 0.0, 0, 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Preparing:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, sentence: str) -> None:
        self.console.print(message(sentence), markup=False, soft_wrap=True)

    def __call__(self, at: runner.Progress) -> None:
        now = time.monotonic()
        if at.stage != self._stage:
            self._stage, self._begun, self._first, self._said = at.stage, now, at.done, now - EVERY
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(at.stage, total=at.total, completed=at.done)
        if self._task is not None:
            self._bar.update(self._task, completed=at.done, total=at.total)
        if not self.console.is_terminal and now - self._said >= EVERY:
            self._said = now
            done = at.done - self._first
            left = f", {duration((now - self._begun) * (at.total - at.done) / done)} left" if done else ""
            self.say(f"{at.stage}: {at.done / 1e6:,.1f} of {at.total / 1e6:,.1f} MB{left}")


def show_corpus(folder: Path, manifest: dict[str, Any], examples: int) -> None:
    """What a corpus is: its steps, its splits, how long its documents are, and examples of what was rejected."""
    show(_steps(folder, manifest))
    show(_splits(manifest))
    show(_lengths(manifest))
    for name, number in manifest["not_read"].items():
        print(f"not read: {counted(number, 'file')} of the kind {visible(name)}")
    for step in manifest["steps"] if examples else ():
        for reason, found in step["reasons"].items():
            print(f"\n{visible(step['name'])}, {visible(reason)}: {counted(found['documents'], 'document')}, such as")
            for example in found["examples"][:examples]:
                detail = f" ({visible(example['detail'])})" if example["detail"] else ""
                print(f"  {visible(example['place'])}{detail}")
                if example["text"]:
                    print(f"    {shortened(visible(' '.join(example['text'].split())))}")
    if not examples:
        print(f"what was rejected: shortrun data show {folder}")


def _steps(folder: Path, manifest: dict[str, Any]) -> Table:
    table = Table(title=escape(f"{folder}: {manifest['about'] or manifest['name']}"), title_justify="left")
    for heading in ("step", "documents in", "out", "characters in", "out", "changed", "rejected, and why"):
        table.add_column(heading, justify="left" if heading in ("step", "rejected, and why") else "right")
    for step in manifest["steps"]:
        reasons = sorted(step["reasons"].items(), key=lambda each: -each[1]["documents"])
        table.add_row(
            escape(step["name"]),
            *(
                f"{step[key]:,}"
                for key in ("documents_in", "documents_out", "characters_in", "characters_out", "changed")
            ),
            "\n".join(f"{found['documents']:,} {escape(visible(reason))}" for reason, found in reasons),
        )
    return table


def _splits(manifest: dict[str, Any]) -> Table:
    table = Table(title=f"sha256 {manifest['sha256'][:12]}", title_justify="left")
    for heading in ("split", "documents", "groups", "characters", "bytes", "shards"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for name, split in manifest["splits"].items():
        shards = sum(shard["split"] == name for shard in manifest["shards"])
        numbers = (*(split[key] for key in ("documents", "groups", "characters", "bytes")), shards)
        table.add_row(name, *(f"{number:,}" for number in numbers))
    return table


def _lengths(manifest: dict[str, Any]) -> Table:
    """Documents by their length, each line twice as long as the one before."""
    table = Table("characters", "documents", "", title="length of the documents", title_justify="left", box=None)
    table.columns[1].justify = "right"
    columns = list(manifest["lengths"].values())
    longest = min(max(map(len, columns), default=0), MOST_BINS)
    bins = [sum(bins[at] for bins in columns if at < len(bins)) for at in range(longest)]
    begin = next((at for at, number in enumerate(bins) if number), 0)
    for at, number in list(enumerate(bins))[begin:]:
        bar = "█" * round(BAR * number / max(bins))
        table.add_row(f"{2**at:,} to {2 ** (at + 1) - 1:,}", f"{number:,}", bar or "▏" * bool(number))
    return table
