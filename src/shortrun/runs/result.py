"""The end of a run in one object: its losses and what they cost. scores.json and nats.npz are made of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shortrun.score.evaluate import Evaluation


@dataclass(frozen=True)
class Budget:
    """What a run has cost so far, in every unit."""

    parameters: int
    steps: int
    epochs: float
    tokens: int
    """Targets trained on."""
    passes: int
    """Forward-backward passes over a batch."""
    flops: float
    seconds: float
    """Time spent, over all sittings, with evaluations and checkpoints."""
    step_seconds: float
    """The part of it spent in training steps."""

    @property
    def tokens_per_second(self) -> float | None:
        """Of training steps alone; None before the first."""
        return self.tokens / self.step_seconds if self.step_seconds else None


@dataclass(frozen=True)
class Result:
    """What `fit` returns."""

    run: Path
    fingerprint: str
    complete: bool
    """Whether the run has taken all its steps."""
    seed: int
    budget: Budget
    evaluation: Evaluation
    """On the validation documents, after the last step."""
    tuning: Evaluation | None
    """On the tuning documents, where the recipe has any."""
    floor_nats: float | None
    """The lowest expected nats of the validation documents, where the corpus knows them."""
    data: dict[str, Any]
    """The source and the fingerprints of its splits, as in the manifest."""

    @property
    def floor(self) -> float | None:
        """The lowest expected `loss`, nats per character."""
        return None if self.floor_nats is None else self.floor_nats / self.evaluation.loss.characters

    def as_dict(self) -> dict[str, Any]:
        """What scores.json holds."""
        floor = self.floor
        return {
            "run": str(self.run),
            "fingerprint": self.fingerprint,
            "complete": self.complete,
            **asdict(self.budget),
            "tokens_per_second": self.budget.tokens_per_second,
            "seed": self.seed,
            **self.evaluation.as_dict(),
            "tuning_loss": self.tuning.loss.loss if self.tuning else None,
            "data": self.data,
            **({} if floor is None else {"floor": floor, "excess": self.evaluation.loss.loss - floor}),
        }
