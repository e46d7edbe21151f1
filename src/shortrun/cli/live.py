"""A table on standard error that changes while work goes on, where that is a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from shortrun.cli.output import harmless, message


class LiveTable:
    """Use it as a context manager. Who inherits from it draws the table, and writes lines where there is no terminal."""

    def __init__(self, **options: Any) -> None:
        """options: those of rich's Live, which draws the table at once: whoever inherits comes here last."""
        self.console = Console(stderr=True, highlight=False)
        self._live = Live(console=self.console, get_renderable=lambda: harmless(self._table()), **options)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, sentence: str) -> None:
        """Writes a line of its own, above the table."""
        self.console.print(message(sentence), markup=False, soft_wrap=True)

    def _table(self) -> Table:
        raise NotImplementedError
