"""What a person sees while a run trains: a progress bar on a terminal, one plain line per N steps elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from shortrun.cli.output import message
from shortrun.train.events import Begun, Evaluated, Event, Note, StepTaken


class Display:
    """Shows the events of a run on standard error; use it as a context manager."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._total, self._log_every = 0, 1
        self._task: TaskID | None = None
        self._validation = "-"
        self._waiting: list[str] = []
        self._saying = False
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

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Note():
                self.say(event.text)
            case Begun():
                self._total, self._log_every = event.total_steps, event.log_every
                self._progress.start()
                self._task = self._progress.add_task(
                    "", total=event.total_steps, completed=event.step, loss="-", validation="-", speed="-"
                )
            case StepTaken():
                self._step(event)
            case Evaluated():
                self._validation = f"{event.validation.loss.loss:.4f}"

    def say(self, sentence: str) -> None:
        """Writes a line of its own, above the bar.

        A signal's handler may call it while another line is being written. Its line comes after that one, because the
        console would write the one in its buffer twice.
        """
        self._waiting.append(sentence)
        if self._saying:
            return
        self._saying = True
        try:
            while self._waiting:
                self.console.print(message(self._waiting.pop(0)), markup=False, soft_wrap=True)
        finally:
            self._saying = False

    def _step(self, at: StepTaken) -> None:
        speed = f"{at.tokens_per_second:,.0f}"
        if self._task is not None:
            self._progress.update(
                self._task, completed=at.step, loss=f"{at.loss:.4f}", validation=self._validation, speed=speed
            )
        if not self.console.is_terminal and (at.step % self._log_every == 0 or at.step in (1, self._total)):
            self.say(
                f"step {at.step}/{self._total}  loss {at.loss:.4f}  validation {self._validation}  {speed} tokens/s  "
                f"{_clock(at.seconds_left)} left"
            )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
