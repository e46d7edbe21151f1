"""Who draws the values of a sweep's trials: Optuna's samplers, with a seed for each trial.

Optuna seeds a sampler once, and anew at random in every thread. Here what trial k gets follows from the sweep's seed, k, and the
trials that are finished by then: neither an interruption nor the number of workers changes how it is drawn, and two
processes that begin together don't draw the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from shortrun.study.search_space import Searched
from shortrun.study.sweep_file import Sweep, SweepFile

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}
UNSEEN = 1000
"""Draws after which a search space counts as exhausted."""


class SeededByTrial(BaseSampler):
    """Asks a sampler of its own for each trial and each question about it."""

    def __init__(self, name: str, seed: int) -> None:
        self._make, self._seed = SAMPLERS[name], seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler(trial, "space").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler(trial, "together").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Does nothing, because threads may share it."""

    def _sampler(self, trial: FrozenTrial, question: str) -> BaseSampler:
        return self._make(seed_of(self._seed, trial.number, question))


def seed_of(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def pruner_of(file: SweepFile) -> BasePruner:
    """Of the epochs' ends that a trial has reached, the pruner compares the best with the others' median at the same epoch."""
    return NopPruner() if file.pruner == "none" else MedianPruner(n_startup_trials=file.prune_after)


def unseen(sweep: Sweep, study: Study, trial: FrozenTrial) -> dict[str, Any] | None:
    """Values at random that no trial has; None where there seem to be no others left."""
    seen = [other.system_attrs.get("fixed_params", other.params) for other in study.get_trials(deepcopy=False)]
    sampler = RandomSampler(seed=seed_of(sweep.file.seed, trial.number, "unseen"))

    def draw(field: Searched) -> Any:
        return sampler.sample_independent(study, trial, field.name, field.distribution)

    for _ in range(UNSEEN):
        drawn = sweep.assign(draw)
        if drawn not in seen:
            return drawn
    return None
