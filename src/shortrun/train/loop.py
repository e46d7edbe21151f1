"""The training loop: steps, evaluations and checkpoints, from wherever a run stands to its end.

Where a run is stopped (an interrupt, a kill, --max-steps) never shows in its weights or metrics: each step is a function
of the weights before it, the recipe and its own number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from shortrun.errors import ShortrunError, first_line
from shortrun.optim.schedules import decay_scale, lr_scale
from shortrun.runs.checkpoints import Checkpoint, Progress, best_selection_loss, newest_checkpoint, save_checkpoint
from shortrun.runs.folder import RunFolder
from shortrun.runs.log import MetricsLog, log_evaluation
from shortrun.runs.result import Budget, Result
from shortrun.runs.trained import Trained
from shortrun.score.evaluate import Evaluation
from shortrun.train.assembly import Assembly
from shortrun.train.events import Begun, Ended, Evaluated, Note, OnEvent, Saved, StepTaken
from shortrun.train.memory import out_of_memory
from shortrun.train.objective import steps_before_rdrop
from shortrun.train.remember import remember
from shortrun.train.state import read_state, write_state
from shortrun.train.step import StepResult, passes_of

SAMPLED_TOKENS = 64
"""How long documents get that are sampled while training: an untrained model would go on for two blocks."""
Stop = Callable[[], int]
"""Asked after each step: 0 to go on, or the number of the signal that asks to save and stop."""


class Stopped(ShortrunError):
    """The run was asked to stop and has saved a checkpoint; exit code 128 + signal, as shells count."""

    shared = True

    def __init__(self, number: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + number


class Diverged(ShortrunError):
    """The loss or the gradient is no longer a number."""

    shared = True


class Loop:
    """One sitting of a run."""

    def __init__(
        self, parts: Assembly, folder: RunFolder, log: MetricsLog, checkpoint: Checkpoint | None, on_event: OnEvent
    ) -> None:
        self.parts, self.folder, self.log, self.on_event = parts, folder, log, on_event
        self.recipe, self.processes, self.total_steps = parts.recipe, parts.processes, parts.batches.total_steps
        self.progress = checkpoint.progress if checkpoint else Progress()
        self.seen_D = (
            read_state(parts, checkpoint) if checkpoint else np.zeros(len(parts.prepared.train), dtype=np.int64)
        )
        self.eval_interval = max(parts.batches.steps_per_epoch // self.recipe.train.evals_per_epoch, 1)
        self.eval_seconds = 0.0
        self.best = self.processes.firsts(best_selection_loss(folder))
        self.began = time.perf_counter() - self.progress.seconds

    def run(self, last: int, stop: Stop) -> Result:
        """Takes the steps that are left up to `last`, scores, and writes the result into the run folder."""
        self.on_event(Begun(self.progress.step, self.total_steps, self.recipe.train.log_every, self.folder))
        if self.progress.step < last and self.processes.first:
            self.folder.remove_result()
        evaluations = None
        while self.progress.step < last:
            self._step()
            step = self.progress.step
            due = step == 1 or step % self.eval_interval == 0 or step == self.total_steps
            if self._must_remember():
                self._save()  # what comes next takes minutes and memory
            evaluations = self._evaluate() if due else None
            stopping = self.processes.any(stop())
            if self._checkpoint_is_due(evaluated=due) or step == last or stopping:
                self._save()
            if stopping and step < last:
                raise Stopped(
                    stopping,
                    f"Stopped at step {step} of {self.total_steps} with a checkpoint; go on by "
                    f"`shortrun resume {self.folder.path}`",
                )
        self._assert_every_document_was_seen()
        if self._must_remember():  # the run was stopped before it had
            evaluations = self._evaluate()
            self._save()
        result = self._result(*(evaluations or self._score()))
        if self.processes.first:
            self.folder.write_result(result)
        self.on_event(Ended(result))
        return result

    def _step(self) -> None:
        step, config = self.progress.step + 1, self.recipe.optim
        start = time.perf_counter()
        batch = self.parts.batches.at(step)
        scale = lr_scale(step, self.total_steps, self.recipe.schedule, config.lr)
        positions = self.parts.step.positions
        result = self.parts.step(
            batch,
            scale,
            (self.recipe.train.seed, step),
            decay_scale(step, self.total_steps, self.recipe.schedule),
            rdrop=step > steps_before_rdrop(self.total_steps, self.recipe.train),
        )
        now = time.perf_counter()
        if self.parts.step.positions < positions:
            self.on_event(Note(f"Memory ran out at step {step}. {self._smaller()}", warning=True))
        self._require_finite(result, step, scale * config.lr)
        if self.parts.average is not None:
            self.parts.average.update_parameters(self.parts.model)
        np.add.at(self.seen_D, batch.documents_ended, 1)
        self.progress = replace(
            self.progress,
            step=step,
            tokens=self.progress.tokens + batch.targets,
            seconds=now - self.began,
            step_seconds=self.progress.step_seconds + now - start,
            selection_loss=None,
        )
        self._tell(result, scale * config.lr)

    def _smaller(self) -> str:
        """What a person should know about micro-batches that have become smaller."""
        dropout = "; dropout falls elsewhere than in a run that had enough" if self.recipe.model.dropout else ""
        return (
            f"It is taken again, and from here on batches are taken in micro-batches of at most "
            f"{self.parts.step.positions:,} tokens, whose gradients add up to the same{dropout}"
        )

    def _require_finite(self, result: StepResult, step: int, lr: float) -> None:
        if not result.finite:
            raise Diverged(
                f"The run diverged at step {step}: loss {result.loss}, gradient norm {result.grad_norm}, learning rate "
                f"{lr:g}. {last_good(self.folder)}. A lower optim.lr or optim.grad_clip usually helps."
            )

    def _tell(self, result: StepResult, lr: float) -> None:
        """Writes the step to the log, and tells of it."""
        at = self.progress
        self.log.event(
            "training_step",
            step=at.step,
            max_steps=self.total_steps,
            loss=result.loss,
            elapsed_time=at.seconds,
            lr=lr,
            grad_norm=result.grad_norm,
            tokens=at.tokens,
        )
        left = self.total_steps - at.step
        self.on_event(
            StepTaken(
                step=at.step,
                loss=result.loss,
                lr=lr,
                grad_norm=result.grad_norm,
                tokens=at.tokens,
                tokens_per_second=at.tokens / at.step_seconds,
                # the steps at their mean pace, the evaluations as long as the last one took
                seconds_left=left * at.step_seconds / at.step + left // self.eval_interval * self.eval_seconds,
            )
        )

    def _evaluate(self) -> tuple[Evaluation, Evaluation | None]:
        """Scores the weights as they are and logs it."""
        start = time.perf_counter()
        validation, tuning = self._score()
        now = time.perf_counter()
        self.eval_seconds = now - start
        # what choices may look at: the tuning documents' loss where there are any
        self.progress = replace(
            self.progress, seconds=now - self.began, selection_loss=(tuning or validation).loss.loss
        )
        log_evaluation(self.log, self.progress.step, self.total_steps, self.progress.seconds, validation, tuning)
        self.on_event(Evaluated(self.progress.step, validation, tuning, self._sample))
        return validation, tuning

    def _sample(self, count: int) -> list[str]:
        """Documents of the scored weights. Their random numbers are their own, so that no later step changes by it."""
        trained = Trained(self.recipe, self.parts.prepared.tokenizer, self.parts.scored, self.progress.step)
        seed = self.recipe.train.seed
        return trained.sample(prefix="", count=count, temperature=1.0, seed=seed, max_tokens=SAMPLED_TOKENS)

    def _score(self) -> tuple[Evaluation, Evaluation | None]:
        """The losses on the validation documents, and on the tuning documents where there are any."""
        if self._must_remember():
            self._remember()
        prepared, share = self.parts.prepared, self.processes.share()
        evaluations = [
            scoring.evaluate(self.parts.scored, self.recipe.batches, share=share)
            for scoring in (prepared.validation, prepared.tuning)
            if scoring
        ]
        if not all(evaluation.finite for evaluation in evaluations):
            raise Diverged(
                f"After step {self.progress.step} the model's loss is no longer a number. {last_good(self.folder)}. "
                "A lower optim.lr or optim.grad_clip usually helps."
            )
        return evaluations[0], evaluations[1] if prepared.tuning else None

    def _must_remember(self) -> bool:
        """Whether a datastore is due: the recipe has one, and no more step will move the weights that make it."""
        empty = self.parts.scored.learners()[0].datastore is None
        return bool(self.recipe.datastore.weight) and self.progress.step == self.total_steps and empty

    def _remember(self) -> None:
        config, scored = self.recipe.datastore, self.parts.scored
        dtype = getattr(torch, self.parts.manifest["machine"]["precision"])
        try:
            entries, size = remember(scored, self.parts.prepared.train, config, dtype)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise ShortrunError(
                f"The datastore does not fit into memory ({first_line(error)}). {last_good(self.folder)}, with all steps; "
                f"`shortrun resume {self.folder.path}` fills it where there is more. A smaller datastore.width takes less, and "
                "datastore.weight = 0 nothing, in a run of its own"
            ) from error
        self.on_event(
            Note(f"The datastore holds {entries:,} contexts of the training documents in {size / 1e6:,.0f} MB")
        )

    def _checkpoint_is_due(self, *, evaluated: bool) -> bool:
        every, loss = self.recipe.train.checkpoint_every, self.progress.selection_loss
        # "or equal": a resumed run reaches the best of a damaged checkpoint again, and must save it again
        best_so_far = loss is not None and loss <= self.best
        return best_so_far or (self.progress.step % every == 0 if every else evaluated)

    def _save(self) -> None:
        self.progress = replace(self.progress, seconds=time.perf_counter() - self.began, metrics_bytes=self.log.sync())
        if self.progress.selection_loss is not None:
            self.best = min(self.best, self.progress.selection_loss)
        if self.processes.first:
            path = save_checkpoint(
                self.folder, self.progress, lambda folder: write_state(self.parts, self.seen_D, folder)
            )
            self.on_event(Saved(self.progress.step, path))

    def _assert_every_document_was_seen(self) -> None:
        """Holds that after shuffled training every document has been a target exactly `epochs` times."""
        if self.progress.step == self.total_steps and self.parts.batches.every_document_equally:
            epochs = self.recipe.train.epochs
            wrong = int((self.seen_D != epochs).sum())
            if wrong:
                raise AssertionError(f"{wrong} training documents were not seen exactly {epochs} times")

    def _result(self, validation: Evaluation, tuning: Evaluation | None) -> Result:
        at, batches, manifest = self.progress, self.parts.batches, self.parts.manifest
        passes, data = passes_of(self.recipe, at.step, self.total_steps), manifest["data"]
        exactly = batches.every_document_equally
        epochs = at.tokens / batches.tokens_per_epoch if exactly else at.step / batches.steps_per_epoch
        return Result(
            run=self.folder.path,
            fingerprint=manifest["fingerprint"],
            complete=at.step == self.total_steps,
            seed=self.recipe.train.seed,
            budget=Budget(
                parameters=self.parts.model.count_parameters(),
                steps=at.step,
                epochs=int(epochs) if epochs.is_integer() else epochs,
                tokens=at.tokens,
                passes=passes,
                flops=at.tokens * passes / at.step * self.parts.model.flops_per_token(batches.row_length),
                seconds=at.seconds,
                step_seconds=at.step_seconds,
            ),
            evaluation=validation,
            tuning=tuning,
            floor_nats=data.get("floor_nats", {}).get("validation"),
            data={key: data[key] for key in ("source", "sha256", "splits")},
        )


def last_good(folder: RunFolder) -> str:
    """A clause that names the checkpoint to go back to."""
    checkpoint, _ = newest_checkpoint(folder)
    return f"The last good checkpoint is {checkpoint.path}" if checkpoint else "No checkpoint had been made yet"
