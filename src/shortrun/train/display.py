"""What a person sees while a run trains: a progress bar on a terminal, one plain line per N steps elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Display:
    """Shows progress on standard error; use it as a context manager."""

    def __init__(self, total_steps: int, first_step: int, log_every: int, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self._log_every = log_every
        self._total = total_steps
        self._validation = "-"
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}  validation {task.fields[validation]}  {task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._progress.add_task(
            "", total=total_steps, completed=first_step, loss="-", validation="-", speed="-"
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, sentence: str) -> None:
        """A line of its own, above the bar."""
        self.console.print(sentence, markup=False, soft_wrap=True)

    def step(self, step: int, loss: float, tokens_per_second: float, seconds_left: float) -> None:
        """A step was taken; `loss` in nats per token."""
        speed = f"{tokens_per_second:,.0f}"
        self._progress.update(self._task, completed=step, loss=f"{loss:.4f}", validation=self._validation, speed=speed)
        if not self.console.is_terminal and (step % self._log_every == 0 or step in (1, self._total)):
            self.say(
                f"step {step}/{self._total}  loss {loss:.4f}  validation {self._validation}  {speed} tokens/s  "
                f"{_minutes(seconds_left)} left"
            )

    def validation(self, loss: float) -> None:
        """The latest validation loss, nats per character."""
        self._validation = f"{loss:.4f}"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
