"""The end of a run in one object: its losses and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shortrun.score.losses import Loss, OfficialLoss
from shortrun.train.assembly import Assembly
from shortrun.train.checkpoints import Progress
from shortrun.train.folder import RunFolder
from shortrun.train.step import passes_per_step


@dataclass(frozen=True)
class Evaluation:
    """The losses at one step."""

    titles: Loss
    official: OfficialLoss
    tuning: Loss | None

    @property
    def selection_loss(self) -> float:
        """What choices may look at: the tuning titles' loss where there are any."""
        return (self.tuning or self.titles).loss


def summarise(parts: Assembly, folder: RunFolder, at: Progress, evaluation: Evaluation) -> dict[str, Any]:
    """What scores.json holds: the losses, and the budget they cost, in every unit."""
    data = parts.manifest["data"]
    floor = data.get("floor_nats", {}).get("validation")
    batches = parts.batches
    epochs = at.tokens / batches.tokens_per_epoch if batches.every_title_equally else at.step / batches.steps_per_epoch
    summary: dict[str, Any] = {
        "run": str(folder.path),
        "complete": at.step == parts.batches.total_steps,
        "parameters": parts.model.count_parameters(),
        "steps": at.step,
        "epochs": int(epochs) if epochs.is_integer() else epochs,
        "tokens": at.tokens,
        "passes": at.step * passes_per_step(parts.recipe),
        "flops": at.tokens * passes_per_step(parts.recipe) * parts.model.flops_per_token(),
        "seconds": at.seconds,
        "step_seconds": at.step_seconds,
        "tokens_per_second": at.tokens / at.step_seconds if at.step_seconds else None,
        "seed": parts.recipe.train.seed,
        **evaluation.titles.as_dict(),
        "official_loss": evaluation.official.loss,
        "coverage": evaluation.official.coverage,
        "tuning_loss": evaluation.tuning.loss if evaluation.tuning else None,
        "data": {"source": data["source"], "sha256": data["sha256"], "splits": data["splits"]},
    }
    if floor is not None:
        summary["floor"] = floor / evaluation.titles.characters
        summary["excess"] = (evaluation.titles.nats - floor) / evaluation.titles.characters
    return summary
