"""What a sweep tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["RUNNING", "COMPLETE", "PRUNED", "FAIL", "INTERRUPTED"]


@dataclass(frozen=True)
class Standing:
    """How far a sweep is, over all processes."""

    finished: int
    n_trials: int
    seconds_left: float | None
    """At the pace of this process; None before its first trial has ended."""


@dataclass(frozen=True)
class TrialEvent:
    """What is known of a trial at some moment."""

    number: int
    state: State
    params: dict[str, Any]
    loss: float | None = None
    """On the tuning documents."""
    step: int = 0
    total_steps: int = 0
    reason: str = ""
    """Why it failed."""
    changed: bool = True
    """Whether it has begun or ended, and not only gone on."""


OnTrial = Callable[[TrialEvent, Standing], None]
