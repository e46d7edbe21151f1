"""The training loop: from a recipe to a finished run folder, or on from a run's last checkpoint.

Where a run is stopped (an interrupt, a kill, --max-steps) never shows in its weights or metrics: each step is a function
of the weights before it, the recipe and its own number.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from shortrun.errors import ShortrunError, UserError
from shortrun.optim.schedules import decay_rate, rate
from shortrun.recipe import Recipe
from shortrun.train.assembly import Assembly, assemble
from shortrun.train.checkpoints import Checkpoint, Progress, best_selection_loss, newest_checkpoint, save_checkpoint
from shortrun.train.display import Display
from shortrun.train.folder import RunFolder, require_free, write_json
from shortrun.train.metrics import MetricsLog, NoLog, log_beginning
from shortrun.train.parallel import joined, lost_another, without_another
from shortrun.train.state import read_state, write_state
from shortrun.train.summary import Evaluation, summarise


class Interrupted(ShortrunError):
    """The run was asked to stop and has saved a checkpoint; exit code 128 + signal, as shells count."""

    shared = True

    def __init__(self, number: int, where: str) -> None:
        super().__init__(where)
        self.exit_code = 128 + number


class Diverged(ShortrunError):
    """The loss or the gradient is no longer a number."""

    shared = True


def train(recipe: Recipe, path: Path, max_steps: int | None = None) -> dict[str, Any]:
    """Trains a recipe into a new run folder; returns what scores.json then holds.

    `max_steps` stops after that many steps of the same run (the learning rate is not squeezed in); it can be resumed.
    """
    recipe = recipe.located()
    with joined(recipe.train.device) as processes:
        path = processes.firsts(path)
        if not processes.first:
            return _Loop(assemble(recipe, processes), RunFolder(path), NoLog()).run(max_steps)
        with _new_folder(path):
            parts = assemble(recipe, processes)
        folder = RunFolder.create(path, recipe, parts.tokenizer, parts.manifest)
        with closing(MetricsLog(folder)) as log:
            return _Loop(parts, folder, log).run(max_steps)


@contextmanager
def _new_folder(path: Path) -> Iterator[None]:
    """An empty folder at `path`, which goes again if what is done meanwhile fails."""
    require_free(path)
    was_there = path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The run folder {path} can't be made: {error.strerror}") from None
    try:
        yield
    except BaseException:
        if not was_there:
            path.rmdir()
        raise


def resume(path: Path, max_steps: int | None = None) -> dict[str, Any]:
    """Goes on with a run from its newest whole checkpoint, to the same end bit for bit; returns scores.json.

    Raises UserError, with the differences, when recipe, data or tokenizer are no longer those the run began with.
    """
    folder = RunFolder.open(path)
    recipe = folder.recipe()
    folder.checkpoints.mkdir(exist_ok=True)
    machine = folder.manifest()["machine"]
    with (
        joined(recipe.train.device) as processes,
        # before the checkpoint is chosen: who holds the log is the only one to make others
        closing(MetricsLog(folder) if processes.first else NoLog()) as log,
    ):
        checkpoint, notes = newest_checkpoint(folder)
        if checkpoint is None and notes:
            raise UserError("\n".join([*notes, "No whole checkpoint is left to resume from; train the recipe anew."]))
        processes.require_same("newest checkpoint", checkpoint.path.name if checkpoint else "none")
        as_many = machine.get("processes", 1) == processes.size
        parts = assemble(recipe, processes, folder.tokenizer(), threads=machine["threads"] if as_many else None)
        folder.require_same_data(parts.manifest["data"])
        notes.append(f"Resuming from {checkpoint.path}" if checkpoint else "No checkpoint yet: starting from step 0")
        if not as_many:
            notes.append(
                f"{processes.size} processes go on with what {machine.get('processes', 1)} began: the same batches, but "
                "dropout falls elsewhere"
            )
        for part, now in parts.manifest["machine"].items():
            if part not in ("platform", "processes", "device_reason") and machine.get(part, now) != now:
                notes.append(f"{part} was {machine[part]} and is {now}: the end may differ in its last bits")
        return _Loop(parts, folder, log, checkpoint, notes).run(max_steps)


class _Loop:
    """One sitting of a run."""

    def __init__(
        self,
        parts: Assembly,
        folder: RunFolder,
        log: MetricsLog,
        checkpoint: Checkpoint | None = None,
        notes: list[str] | None = None,
    ) -> None:
        self.parts, self.folder, self.log = parts, folder, log
        self.notes = [*(notes or []), *parts.notes]
        self.at = Progress(step=0, tokens=0, seconds=0.0, step_seconds=0.0, metrics_bytes=0, selection_loss=None)
        self.titles_seen = np.zeros(parts.train_titles, dtype=np.int64)
        if checkpoint:
            self.at = checkpoint.progress
            self.titles_seen = read_state(parts, checkpoint)
        batches, settings = parts.batches, parts.recipe.train
        self.eval_interval = max(batches.steps_per_epoch // settings.evals_per_epoch, 1)
        self.processes = parts.processes
        self.log.go_on(self.at.metrics_bytes)
        self.display = Display(batches.total_steps, self.at.step, settings.log_every, quiet=not self.processes.first)
        self.best = best_selection_loss(folder)
        self.eval_seconds = 0.0
        self.signal: int | None = None

    def run(self, max_steps: int | None) -> dict[str, Any]:
        """Takes the steps that are left (up to max_steps in all), scores, and writes scores.json."""
        last = min(self.parts.batches.total_steps, max_steps or self.parts.batches.total_steps)
        try:
            with self.display, self._catching_signals():
                self._greet()
                evaluation = self._take_steps(last) or self._score()
            self._assert_every_title_was_seen()
            scores = summarise(self.parts, self.folder, self.at, evaluation)
            if self.processes.first:
                write_json(self.folder.scores_file, scores)
        except torch.OutOfMemoryError as error:
            raise ShortrunError(
                f"{self.parts.device} has too little memory for this step ({str(error).splitlines()[0]}); a "
                f"train.memory_limit takes batches in parts. {_last_good(self.folder)}"
            ) from error
        except RuntimeError as error:
            if self.processes.size == 1 or not lost_another(error):
                raise
            raise ShortrunError(
                f"{without_another(error)}. {_last_good(self.folder)}; `shortrun resume {self.folder.path}` goes on from "
                "there, with any number of processes"
            ) from error
        except OSError as error:
            raise ShortrunError(
                f"The run folder could not be written ({error}). {_last_good(self.folder)}; with room made, "
                f"`shortrun resume {self.folder.path}` goes on from there"
            ) from error
        return scores

    def _take_steps(self, last: int) -> Evaluation | None:
        """Trains to step `last`; returns the losses there if they were due, and None if they are still to be computed."""
        total = self.parts.batches.total_steps
        began = time.perf_counter() - self.at.seconds
        if self.at.step == 0:
            log_beginning(self.log, self.parts, self.folder)
        evaluation = None
        while self.at.step < last:
            self._step(began)
            step = self.at.step
            due = step == 1 or step % self.eval_interval == 0 or step == total
            evaluation = self._evaluate(began) if due else None
            stopping = self.processes.any(self.signal or 0)
            if self._checkpoint_is_due(step, evaluation) or step == last or stopping:
                self._save(began)
            if stopping and step < last:
                raise Interrupted(
                    stopping,
                    f"Stopped at step {step} of {total} with a checkpoint; go on by `shortrun resume {self.folder.path}`",
                )
        return evaluation

    def _greet(self) -> None:
        parts = self.parts
        machine = parts.manifest["machine"]
        splits = parts.manifest["data"]["splits"]
        self.display.say(
            f"{splits['train']['titles']:,} titles to train on, {splits['validation']['titles']:,} to validate; "
            f"{parts.model.count_parameters():,} parameters; {parts.batches.total_steps:,} steps of "
            f"{parts.recipe.batches.batch_size} x {parts.recipe.batches.block_size} tokens\n"
            f"On {machine['device']}, because {machine['device_reason']}; {machine['threads']} threads; run folder "
            f"{self.folder.path}"
        )
        for note in self.notes:
            self.display.say(note)

    def _step(self, began: float) -> None:
        parts, step = self.parts, self.at.step + 1
        start = time.perf_counter()
        batch = parts.batches.at(step)
        recipe = parts.recipe
        share = rate(step, parts.batches.total_steps, recipe.schedule, recipe.optim.lr)
        lr = share * recipe.optim.lr
        decay = decay_rate(step, parts.batches.total_steps, recipe.schedule)
        result = parts.step(batch, share, (recipe.train.seed, step), decay)
        now = time.perf_counter()
        if not result.finite:
            raise Diverged(
                f"The run diverged at step {step}: loss {result.loss}, gradient norm {result.grad_norm}, learning rate "
                f"{lr:g}. {_last_good(self.folder)}. A lower optim.lr or optim.grad_clip usually helps."
            )
        if parts.average is not None:
            parts.average.update_parameters(parts.model)
        np.add.at(self.titles_seen, batch.titles_ended, 1)
        self.at = replace(
            self.at,
            step=step,
            tokens=self.at.tokens + batch.targets,
            seconds=now - began,
            step_seconds=self.at.step_seconds + now - start,
            selection_loss=None,
        )
        self.log.event(
            "training_step",
            step=step,
            max_steps=parts.batches.total_steps,
            loss=result.loss,
            elapsed_time=self.at.seconds,
            lr=lr,
            grad_norm=result.grad_norm,
            tokens=self.at.tokens,
        )
        self.display.step(step, result.loss, self.at.tokens / self.at.step_seconds, self._seconds_left())

    def _seconds_left(self) -> float:
        """Time to the end of the run: the steps at their mean pace, the evaluations as long as the last one took."""
        steps = self.parts.batches.total_steps - self.at.step
        return steps * self.at.step_seconds / self.at.step + steps // self.eval_interval * self.eval_seconds

    def _evaluate(self, began: float) -> Evaluation:
        """Scores the weights as they are and logs it as Mainrun's validation_step, whose `loss` is the official one."""
        start = time.perf_counter()
        evaluation = self._score()
        now = time.perf_counter()
        self.eval_seconds = now - start
        self.at = replace(self.at, seconds=now - began, selection_loss=evaluation.selection_loss)
        self.log.event(
            "validation_step",
            step=self.at.step,
            max_steps=self.parts.batches.total_steps,
            loss=evaluation.official.loss,
            elapsed_time=self.at.seconds,
            official_loss=evaluation.official.loss,
            coverage=evaluation.official.coverage,
            title_loss=evaluation.titles.loss,
            bits_per_byte=evaluation.titles.bits_per_byte,
            perplexity=evaluation.titles.perplexity,
            tuning_loss=evaluation.tuning.loss if evaluation.tuning else None,
        )
        return evaluation

    def _score(self) -> Evaluation:
        parts = self.parts
        block, rows = parts.recipe.batches.block_size, parts.recipe.batches.batch_size
        share, model = self.processes.share(), parts.scored
        titles = parts.validation.loss(model, share=share)
        self.display.validation(titles.loss)
        evaluation = Evaluation(
            titles=titles,
            official=parts.validation.official_loss(model, block_size=block, batch_size=rows, share=share),
            tuning=parts.tuning.loss(model, share=share) if parts.tuning else None,
        )
        tuning = evaluation.tuning.nats if evaluation.tuning else 0.0
        if not math.isfinite(evaluation.titles.nats + evaluation.official.nats + tuning):
            raise Diverged(
                f"After step {self.at.step} the model's loss is no longer a number. {_last_good(self.folder)}. "
                "A lower optim.lr or optim.grad_clip usually helps."
            )
        return evaluation

    def _checkpoint_is_due(self, step: int, evaluation: Evaluation | None) -> bool:
        every = self.parts.recipe.train.checkpoint_every
        # "or equal": a resumed run reaches the best of a damaged checkpoint again, and must save it again
        best_so_far = evaluation is not None and evaluation.selection_loss <= self.best
        return best_so_far or (step % every == 0 if every else evaluation is not None)

    def _save(self, began: float) -> None:
        self.at = replace(self.at, seconds=time.perf_counter() - began, metrics_bytes=self.log.sync())
        if self.at.selection_loss is not None:
            self.best = min(self.best, self.at.selection_loss)
        save_checkpoint(
            self.folder, self.at, lambda path: write_state(self.parts, self.titles_seen, path), self.processes
        )

    def _assert_every_title_was_seen(self) -> None:
        """At the end of shuffled training every title has been a target exactly `epochs` times; anything else is a bug."""
        if self.at.step == self.parts.batches.total_steps and self.parts.batches.every_title_equally:
            epochs = self.parts.recipe.train.epochs
            wrong = int((self.titles_seen != epochs).sum())
            if wrong:
                raise AssertionError(f"{wrong} training titles were not seen exactly {epochs} times")

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """Lets Ctrl-C and SIGTERM finish the step and save; a second one stops at once."""

        def remember(number: int, _: FrameType | None) -> None:
            self.signal = number
            self.display.say("Finishing the step and saving; once more to stop at once without saving.")
            for each, handler in before.items():
                signal.signal(each, handler)

        before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, remember)
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def _last_good(folder: RunFolder) -> str:
    """A clause that names the checkpoint to go back to."""
    checkpoint, _ = newest_checkpoint(folder)
    return f"The last good checkpoint is {checkpoint.path}" if checkpoint else "No checkpoint had been made yet"
