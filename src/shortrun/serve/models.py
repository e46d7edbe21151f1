"""The runs that are served: their newest models in memory, and a few of their other checkpoints.

All of it is used by one thread (`worker.py`), which is where the models are loaded too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shortrun.errors import UserError
from shortrun.runs.checkpoints import checkpoint_steps
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import Trained, load_step, load_trained
from shortrun.view.compare import run_names
from shortrun.view.curves import read_curves
from shortrun.view.reading import read

KEPT = 4
"""Models in memory besides the newest of each run: those of the checkpoints that were used last."""
MOST_RUNS = 2


@dataclass(frozen=True)
class ServedRun:
    """One of the runs."""

    name: str
    folder: RunFolder
    newest: Trained
    """As it was when the server began: a run may go on training."""
    steps: int | None
    """Of the whole run; None where its log does not say."""
    scores: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """What the page is told of it."""
        return {
            "name": self.name,
            "path": str(self.folder.path),
            "step": self.newest.step,
            "steps": sorted({*checkpoint_steps(self.folder), self.newest.step}),
            "of_steps": self.steps,
            "complete": bool(self.scores and self.scores.get("complete")),
            "loss": (self.scores or {}).get("loss"),
            "parameters": self.newest.model.count_parameters(),
            "vocab_size": self.newest.tokenizer.vocab_size,
            "block_size": self.newest.model.block_size,
            "notes": list(self.newest.notes),
        }


@dataclass
class Models:
    """All runs, and the checkpoints that were used last."""

    runs: Sequence[ServedRun]
    _others: OrderedDict[tuple[int, int], Trained] = field(default_factory=OrderedDict)

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Models:
        """Reads the newest whole checkpoint of each run, and tries it, so that the first visitor does not wait.

        Raises UserError for none, for more than two, and for one that is given twice, is no run or has no whole checkpoint.
        """
        if not 1 <= len(paths) <= MOST_RUNS:
            raise UserError(f"{len(paths)} runs are given; the playground shows one, or two side by side")
        if len({path.resolve() for path in paths}) < len(paths):
            raise UserError(f"{paths[0]} is given twice, and a run does not differ from itself: leave one of them out")
        runs = []
        for path, name in zip(paths, run_names(paths), strict=True):
            folder, trained = RunFolder.open(path), load_trained(path)
            with suppress(UserError):  # a tokenizer may not know these letters
                read(trained, "Show HN: a headline")
            runs.append(ServedRun(name, folder, trained, read_curves(path).max_steps, folder.scores()))
        return cls(tuple(runs))

    def trained(self, run: int, step: int | None = None) -> Trained:
        """The model of a run's checkpoint; raises UserError where it is gone."""
        served = self.runs[run]
        if step is None or step == served.newest.step:
            found = served.newest
        else:
            key = run, step
            found = self._others.pop(key) if key in self._others else load_step(served.folder.path, step)
            self._others[key] = found
            while len(self._others) > KEPT:
                self._others.popitem(last=False)
        return found
