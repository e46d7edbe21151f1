"""What an experiment tracker must be able to do, and what it is told of a run."""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple, Protocol

from shortrun.disk import json_sha256
from shortrun.recipe import Recipe
from shortrun.runs.folder import RunFolder
from shortrun.runs.result import Result
from shortrun.score.losses import perplexity
from shortrun.train.events import Begun, Evaluated, StepTaken

Scalars = dict[str, float]
"""Numbers by their names, which `docs/tracking.md` lists."""


class Reached(NamedTuple):
    """How much of a run a tracker already has."""

    step: int = 0
    """The last training step."""
    evaluation: int = 0
    """The step of the last evaluation."""


class Tracker(Protocol):
    """Where a run's numbers go besides its folder.

    It is told each step once and in order, whatever happened to the run before: `Tracking` sees to that. What a method
    raises ends the tracking, and never the training.
    """

    def begin(self, run: Begun) -> Reached:
        """Gets ready for the steps after `run.step`, which may be a run's first. Returns what it has of the run.

        It may have more than `run.step`: a run that was killed goes on from a checkpoint and takes its last steps again,
        with the same results.
        """

    def scalars(self, step: int, values: Scalars) -> None:
        """Notes the numbers of a training step or of an evaluation."""

    def documents(self, step: int, documents: list[str]) -> None:
        """Notes documents that the model wrote at an evaluation."""

    def end(self, result: Result | None) -> None:
        """Lets go of everything. There is no result where the run was stopped or failed."""


def of_step(loss: float, lr: float, grad_norm: float, tokens_per_second: float | None = None) -> Scalars:
    """The numbers of a training step."""
    return _numbers(
        {
            "Train/Loss": loss,
            "Train/LearningRate": lr,
            "Train/Perplexity": perplexity(loss),
            "Train/GradientNorm": grad_norm,
            "Train/TokensPerSecond": tokens_per_second,
        }
    )


def of_evaluation(
    loss: float,
    official: float,
    coverage: float,
    bits_per_byte: float,
    perplexity: float | None,
    tuning: float | None,
) -> Scalars:
    """The numbers of an evaluation. Where the official loss covers no target it is 0 and says nothing, so it is left out."""
    return _numbers(
        {
            "Val/Loss": loss,
            "Val/OfficialLoss": official if coverage else None,
            "Val/BitsPerByte": bits_per_byte,
            "Val/Perplexity": perplexity,
            "Val/TuningLoss": tuning,
        }
    )


def of_event(event: StepTaken | Evaluated) -> Scalars:
    """The numbers of an event."""
    if isinstance(event, StepTaken):
        return of_step(event.loss, event.lr, event.grad_norm, event.tokens_per_second)
    loss, official, tuning = event.validation.loss, event.validation.official, event.tuning
    return of_evaluation(
        loss.loss,
        official.loss,
        official.coverage,
        loss.bits_per_byte,
        loss.perplexity,
        tuning.loss.loss if tuning else None,
    )


def of_record(record: dict[str, Any]) -> Scalars:
    """The numbers of a line of metrics.jsonl, of a `training_step` or a `validation_step`; its speed is not written there."""
    if record["event"] == "training_step":
        return of_step(record["loss"], record["lr"], record["grad_norm"])
    names = ("document_loss", "official_loss", "coverage", "bits_per_byte", "perplexity", "tuning_loss")
    return of_evaluation(*(record[name] for name in names))


def _numbers(values: dict[str, float | None]) -> Scalars:
    return {name: value for name, value in values.items() if value is not None}


def hyperparameters(recipe: Recipe) -> dict[str, str | int | float | bool]:
    """Every field of a recipe that something reads, as "section.name"."""
    unread = dict(recipe.unread())
    values = {
        f"{section}.{name}": value
        for section, fields in recipe.model_dump(mode="json").items()
        for name, value in fields.items()
    }
    return {
        name: value if isinstance(value, str | int | float) else ", ".join(map(str, value))
        for name, value in values.items()
        if value is not None and name not in unread
    }


def listed(documents: list[str]) -> str:
    """Documents as Markdown: a block of code, because titles are full of what Markdown would take for its own."""
    return "\n".join("    " + document.replace("\n", "\n    ") for document in documents)


def identity(folder: RunFolder) -> str:
    """A name that no other run has, and that a run keeps when its folder is moved.

    It follows from the first line of the log, which says the recipe and the moment of the beginning.
    """
    return json_sha256(list(islice(folder.metrics(), 1)))[:16]
