"""Two runs' losses, paired document by document: their difference, its noise, and the documents that make it.

The noise is that of the documents alone: how far the difference could be off because these were scored and not others. Two
seeds of one recipe differ as well, which two runs can't show.

Shapes: D documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shortrun.runs.folder import Nats
from shortrun.score.intervals import bootstrap_interval, sign_flip_p


@dataclass(frozen=True)
class DocumentDifference:
    """A validation document that a run and the first one see differently."""

    run: str
    """The name of the run that is compared with the first."""
    index: int
    """Its place among the validation documents."""
    document: str | None
    """None where the documents can't be read any more."""
    nats: tuple[float, float]
    """-log p under the first run and under this one."""
    difference: float
    """Second minus first: negative where this run is better."""


@dataclass(frozen=True)
class RunDifference:
    """How a run's loss differs from that of the first, over the same documents."""

    name: str
    run: Path
    difference: float
    """Loss minus that of the first run, nats per character."""
    interval: tuple[float, float]
    """95 %, the paired bootstrap over documents."""
    p: float
    """Of the sign-flip test over documents, two-sided."""
    better: int
    """Documents that this run gives a higher probability."""
    worse: int
    extremes: tuple[list[DocumentDifference], list[DocumentDifference]]
    """The documents that have become better and worse, those with the largest difference first."""

    @property
    def tie(self) -> bool:
        """0 lies inside the interval."""
        return self.interval[0] <= 0 <= self.interval[1]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the documents."""
        return {
            "run": str(self.run),
            "name": self.name,
            "difference": self.difference,
            "interval": self.interval,
            "p": self.p,
            "tie": self.tie,
            "better": self.better,
            "worse": self.worse,
        }


def paired_difference(name: str, run: Path, mine: Nats, first: Nats, show: int) -> RunDifference:
    """The difference of two runs that have scored the same documents, with `show` of these at either end, without texts."""
    nats_D, characters_D = mine.nats_D - first.nats_D, mine.characters_D
    order_D = np.argsort(nats_D, kind="stable")
    better, worse = int((nats_D < 0).sum()), int((nats_D > 0).sum())

    def told(chosen: np.ndarray[Any, np.dtype[np.int64]]) -> list[DocumentDifference]:
        return [
            DocumentDifference(name, at, None, (float(first.nats_D[at]), float(mine.nats_D[at])), float(nats_D[at]))
            for at in chosen.tolist()
        ]

    return RunDifference(
        name=name,
        run=run,
        difference=float(nats_D.sum() / characters_D.sum()),
        interval=bootstrap_interval(nats_D, characters_D),
        p=sign_flip_p(nats_D),
        better=better,
        worse=worse,
        extremes=(told(order_D[: min(show, better)]), told(order_D[::-1][: min(show, worse)])),
    )
