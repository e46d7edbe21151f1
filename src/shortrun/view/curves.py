"""A run's curves as data, from its metrics.jsonl: what training did at each step, and every evaluation.

A run may be unfinished, and its last line half written. What can't be read is left out and said.

Shapes: N training steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortrun.errors import UserError, reason_of
from shortrun.runs.events import numbered_lines
from shortrun.runs.folder import RunFolder

MOST_POINTS = 2_000
"""Points of a training curve that a chart gets: more than a screen has columns."""
ALL_POINTS = 6_000
"""Points that all of a chart's curves get together, half a megabyte in a page; 30 runs have 200 each, about one for a pixel."""
WINDOW = 0.01
"""Share of a run's steps, to either side, over which its training loss is averaged for a chart."""
MOST_NAMED = 10
"""Lines that can't be read and are named one by one."""
MEASURED = ("elapsed_time", "loss", "lr", "grad_norm")
"""What is read of a training step besides its number and its tokens."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of the validation documents. None stands for what the log does not say."""

    step: int
    epoch: float | None
    """Epochs taken until then; the last step ends the last one."""
    tokens: int | None
    """Targets trained on until then."""
    seconds: float
    loss: float
    """Nats per character, the project's own (`document_loss` in the log)."""
    official_loss: float
    coverage: float
    perplexity: float | None
    """Per token; None too where it is too large for a number."""
    tuning_loss: float | None


@dataclass(frozen=True)
class Curves:
    """All that a run's log says over its steps."""

    run: Path
    epochs: int | None
    """Of the whole run; None where the log does not say."""
    max_steps: int | None
    """Of the whole run; None before its first step."""
    steps_N: NDArray[np.int64]
    tokens_N: NDArray[np.int64]
    seconds_N: NDArray[np.float64]
    """Time spent over all sittings, with evaluations and checkpoints."""
    loss_N: NDArray[np.float64]
    """Training loss of the step's batch, nats per token."""
    lr_N: NDArray[np.float64]
    grad_norm_N: NDArray[np.float64]
    """Before clipping."""
    evaluations: tuple[Evaluated, ...]
    notes: tuple[str, ...]

    @property
    def last(self) -> Evaluated | None:
        return self.evaluations[-1] if self.evaluations else None

    def on(self, split: str) -> Curves:
        """The same, its evaluations those of `split`: of "tuning" with the loss alone, and without those that have none."""
        if split == "validation":
            return self
        found = (
            replace(at, loss=at.tuning_loss, coverage=0.0, perplexity=None)
            for at in self.evaluations
            if at.tuning_loss is not None
        )
        return replace(self, evaluations=tuple(found))


def read_curves(run: Path) -> Curves:
    """The curves of a run, finished or not; without a single event they are empty.

    Raises UserError where `run` is no run folder, or where an event lacks what it should say
    or says something else than a number.
    """
    folder = RunFolder.open(run)
    damaged: list[int] = []
    training, evaluations = [], []
    epochs: int | None = None
    max_steps: int | None = None
    tokens = 0
    for number, event in _events(folder.metrics_file, damaged):
        try:
            match event.get("event"):
                case "dataset_info":
                    epochs = _count(event, "epochs")
                case "training_step":
                    tokens, max_steps = _count(event, "tokens"), _count(event, "max_steps")
                    training.append((_count(event, "step"), tokens, *(_number(event, key) for key in MEASURED)))
                case "validation_step":
                    evaluations.append(_evaluated(event, epochs, tokens))
                    if "max_steps" in event:  # an ensemble of finished runs has no training steps
                        max_steps = _count(event, "max_steps")
        except (KeyError, ValueError) as error:
            what = f"the event lacks what it should say: {error}" if isinstance(error, KeyError) else error
            raise UserError(f"{folder.metrics_file}, line {number}: {what}") from None
    columns = [np.array(column) for column in zip(*training, strict=True)] or [np.zeros(0)] * (2 + len(MEASURED))
    steps_N, tokens_N, seconds_N, loss_N, lr_N, grad_norm_N = columns
    notes = []
    if damaged:
        numbers = ", ".join(f"line {number}" for number in damaged[:MOST_NAMED])
        numbers += f" and {len(damaged) - MOST_NAMED:,} more" if len(damaged) > MOST_NAMED else ""
        notes.append(f"{folder.metrics_file}: left out, because no event can be read in it: {numbers}")
    if not folder.metrics_file.exists():
        notes.append(f"{folder.metrics_file} is missing, so nothing is known of the run's steps")
    return Curves(
        run=run,
        epochs=epochs,
        max_steps=max_steps,
        steps_N=steps_N.astype(np.int64),
        tokens_N=tokens_N.astype(np.int64),
        seconds_N=seconds_N.astype(np.float64),
        loss_N=loss_N.astype(np.float64),
        lr_N=lr_N.astype(np.float64),
        grad_norm_N=grad_norm_N.astype(np.float64),
        evaluations=tuple(evaluations),
        notes=tuple(notes),
    )


def smoothed(values_N: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Each value's mean with its neighbours, `window` steps to either side; fewer at the ends, as many on both sides."""
    N = len(values_N)
    sums = np.concatenate([[0.0], np.cumsum(values_N)])
    at_N = np.arange(N)
    reach_N = np.minimum(window, np.minimum(at_N, N - 1 - at_N))
    means_N: NDArray[np.float64] = (sums[at_N + reach_N + 1] - sums[at_N - reach_N]) / (2 * reach_N + 1)
    return means_N


def thinned(count: int, most: int = MOST_POINTS) -> NDArray[np.int64]:
    """The positions of at most `most` of `count` points, evenly spread, the first and the last among them."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def _events(path: Path, damaged: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each readable event with the number of its line; the numbers of the others go into `damaged`."""
    try:
        for number, line in numbered_lines(path):
            try:
                event = json.loads(line, parse_constant=_finite, parse_float=_finite)
            except (ValueError, RecursionError):
                event = None
            if isinstance(event, dict):
                yield number, event
            else:
                damaged.append(number)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path} can't be read: {reason_of(error)}") from None


def _finite(word: str) -> float:
    """A number of JSON, which has no NaN and no infinity; raises ValueError for what a float can't hold."""
    if not math.isfinite(value := float(word)):
        raise ValueError(f"{word} is no number")
    return value


def _number(event: dict[str, Any], key: str) -> float:
    """A number of an event; raises KeyError where it is not there, and ValueError, with a sentence, where it is none."""
    value = event[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise ValueError(f"{key} is {json.dumps(value)[:40]}, and a number was expected")
    return value


def _count(event: dict[str, Any], key: str) -> int:
    """A number that counts something; raises as `_number` does."""
    value = event[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{key} is {json.dumps(value)[:40]}, and a whole number was expected")
    return value


def _evaluated(event: dict[str, Any], epochs: int | None, tokens: int) -> Evaluated:
    step, max_steps = _count(event, "step"), _count(event, "max_steps")
    return Evaluated(
        step=step,
        epoch=step / max_steps * epochs if epochs and max_steps else None,
        tokens=tokens or None,
        seconds=_number(event, "elapsed_time"),
        loss=_number(event, "document_loss"),
        official_loss=_number(event, "official_loss"),
        coverage=_number(event, "coverage"),
        perplexity=None if event.get("perplexity") is None else _number(event, "perplexity"),
        tuning_loss=None if event["tuning_loss"] is None else _number(event, "tuning_loss"),
    )
