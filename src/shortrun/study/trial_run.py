"""The run of one trial: found or begun, watched at the end of each epoch, and what it has cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna

from shortrun.errors import UserError
from shortrun.recipe import Recipe
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder, find_run, free_path
from shortrun.runs.log import being_trained
from shortrun.study import sweep_storage as storage
from shortrun.study.jobs import Job
from shortrun.study.sweep_file import Sweep
from shortrun.study.worker import Outcome, Progress, Worker
from shortrun.train.sizes import sized
from shortrun.train.step import passes_of

POLL = 0.2
"""Seconds between two looks at a run that another process trains."""


class TrialRun:
    """Raises UserError where the trial's recipe can't work."""

    def __init__(
        self, sweep: Sweep, trial: optuna.Trial, out: Path, threads: int, stopping: Callable[[], bool]
    ) -> None:
        self.trial, self._stopping = trial, stopping
        self.recipe, _ = sized(sweep.recipe(trial.params))
        if self.recipe.train.threads is None:
            self.recipe = self.recipe.changed("train", threads=threads)
        self.at = Progress(0, 0)
        self.pruned = False
        self.scores: dict[str, Any] | None = None
        self._reported: set[int] = set()
        found = find_run(out, Job(self.recipe, out).fingerprint())
        self.path = found.path if found else free_path(out / sweep.name / f"trial-{trial.number:04d}")
        trial.set_user_attr(storage.RUN, str(self.path))
        if found:
            self._take_up(found)

    def do(self, worker: Worker, on_progress: Callable[[], None]) -> Outcome:
        """Trains what is left, and stops when Optuna says so."""

        def watch(progress: Progress) -> None:
            self.at = progress
            if progress.evaluated and progress.tuning_loss is not None:
                self._report(progress.step, progress.total_steps, progress.tuning_loss)
                if self._is_hopeless():
                    worker.stop()
            on_progress()

        if self.scores or self._is_hopeless() or self._stopping():
            return Outcome(self.scores, stopped=not self.scores)
        try:
            outcome = worker.do(Job(self.recipe, self.path), watch)
            if outcome.died and not self._stopping():  # once more, from its last checkpoint
                outcome = worker.do(Job(self.recipe, self.path), watch)
        except BaseException:
            worker.close()  # it would go on with this trial otherwise
            raise
        self.scores = outcome.scores
        self.pruned = self.pruned and not outcome.scores  # it was through before it heard of it
        return outcome

    def count_costs(self) -> None:
        """Writes down what the run has cost, over all sittings."""
        seconds, steps = 0.0, self.at.step
        if self.scores:
            seconds, steps = self.scores["seconds"], self.scores["steps"]
        elif self.path.exists() and (checkpoint := newest_checkpoint(RunFolder(self.path))[0]):
            seconds, steps = checkpoint.progress.seconds, max(steps, checkpoint.progress.step)
        self.trial.set_user_attr(storage.SECONDS, seconds)
        # a run of which no step is known to the trial ends where it stands, for all that is known
        self.trial.set_user_attr(storage.PASSES, passes_of(self.recipe, steps, max(steps, self.at.total_steps)))

    def _take_up(self, found: RunFolder) -> None:
        """Goes on with a run: waits until nobody else trains it, and reports the epochs that it has behind it."""
        while being_trained(found) and not self._stopping():
            time.sleep(POLL)
        before = found.recipe()
        # its threads too, which its bits depend on; only its data may have moved
        moved = before.changed("data", path=self.recipe.data.path)
        self.recipe = moved.changed("tokenizer", path=self.recipe.tokenizer.path)
        with suppress(OSError, UserError):  # a process that was killed may have left no log yet, or half a line
            for event in found.metrics():
                if event["event"] == "validation_step" and event.get("tuning_loss") is not None:
                    self._report(event["step"], event["max_steps"], event["tuning_loss"])
                    self.at = Progress(event["step"], event["max_steps"], tuning_loss=event["tuning_loss"])
        self.scores = found.finished_scores()

    def _report(self, step: int, total_steps: int, loss: float) -> None:
        """Tells Optuna the tuning loss at the end of an epoch."""
        epoch = epoch_ended(step, total_steps, self.recipe)
        if epoch and epoch not in self._reported:
            self.trial.report(loss, epoch)
            self._reported.add(epoch)

    def _is_hopeless(self) -> bool:
        """Asks Optuna, unless the run is through anyway."""
        if not self.pruned and self._reported and self.at.step < self.at.total_steps:
            self.pruned = self.trial.should_prune()
        return self.pruned


def epoch_ended(step: int, total_steps: int, recipe: Recipe) -> int | None:
    """The epoch whose end an evaluation after `step` stands for; None for those in between and for that after step 1."""
    passed = step * recipe.train.epochs / total_steps
    epoch = round(passed)
    return epoch if epoch and abs(passed - epoch) * recipe.train.evals_per_epoch < 0.5 else None
