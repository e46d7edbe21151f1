"""What `fit` tells while it works: one object an event, for whoever shows or records it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shortrun.runs.folder import RunFolder
from shortrun.runs.result import Result
from shortrun.score.evaluate import Evaluation


@dataclass(frozen=True)
class Note:
    """A sentence that a person should read."""

    text: str
    warning: bool = False
    """Whether it says that something makes the run worth less than it looks."""


@dataclass(frozen=True)
class Begun:
    """Everything is built; the next step is `step + 1`."""

    step: int
    total_steps: int
    log_every: int
    folder: RunFolder
    """Holds the recipe, the manifest, and the log of all steps so far."""


@dataclass(frozen=True)
class StepTaken:
    """The weights have moved."""

    step: int
    loss: float
    """Mean cross-entropy of the batch, nats per token, before the step."""
    lr: float
    grad_norm: float
    tokens: int
    """Targets trained on so far."""
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Evaluated:
    """The validation documents have been scored."""

    step: int
    validation: Evaluation
    tuning: Evaluation | None
    sample: Callable[[int], list[str]]
    """Writes so many documents with the weights as they are, and changes nothing about the run. Each ends after 64 tokens
    at the latest. It may be called while the event is told, and not later."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class Ended:
    """The last step that was asked for has been taken, and the scores are written."""

    result: Result


Event = Note | Begun | StepTaken | Evaluated | Saved | Ended
OnEvent = Callable[[Event], None]


def ignore(_: Event) -> None:
    """The listener that does nothing."""
