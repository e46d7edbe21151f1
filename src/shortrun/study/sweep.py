"""Running a sweep: workers that ask for values, train them as ordinary runs, and tell how low the tuning loss got.

A worker is a thread of Optuna's `optimize` with a worker process of its own. Each trial is a run folder, found by its
fingerprint, so that a trial that was interrupted, or one that somebody has trained before, is gone on with.
"""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from shortrun.errors import ShortrunError, counted
from shortrun.study import sweep_storage as storage
from shortrun.study.jobs import Job
from shortrun.study.run import cores
from shortrun.study.sampler import SeededByTrial, pruner_of, unseen
from shortrun.study.sweep_events import OnTrial, Standing, State, TrialEvent
from shortrun.study.sweep_file import Sweep
from shortrun.study.trial_run import TrialRun
from shortrun.study.worker import Worker
from shortrun.train.fit import never
from shortrun.train.loop import Stop, Stopped

POLL = 0.5
"""Seconds between two looks at what other processes do."""
FAILURES = 5
"""Trials that may fail in a row before the sweep ends, because the next one would fail too."""


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    workers: int = 1,
    url: str | None = None,
    on_trial: OnTrial = lambda _event, _standing: None,
    stop: Stop = never,
) -> None:
    """Trains until `n_trials` trials are finished, over all processes that share the storage.

    on_trial: called by one thread at a time. Raises Stopped when `stop` asked for it and every running trial has been saved
    and put back in line; ShortrunError when trial after trial fails.
    """
    fingerprint = Job(sweep.base, out).fingerprint()  # what is wrong with the data shows here
    (out / sweep.name).mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=sweep.name,
        storage=storage.open_storage(url or storage.storage_url(out, sweep.name)),
        sampler=SeededByTrial(sweep.file.sampler, sweep.file.seed),
        pruner=pruner_of(sweep.file),
        direction="minimize",
        load_if_exists=True,
    )
    storage.same_sweep(study, {**sweep.described(), "base": fingerprint})
    left = sweep.file.n_trials - storage.finished(study.get_trials(deepcopy=False))
    if left > 0:
        _Sitting(sweep, study, out, min(workers, left), max(cores() // workers, 1), on_trial).run(stop)


class SetAside(Exception):
    """A trial is not to be counted: its place is taken, its values are those of another, or it was interrupted."""


class Failed(Exception):
    """A trial has failed for a reason that would come again."""


class _Sitting:
    """One process' part of a sweep, from its beginning until all trials are finished or somebody stops it."""

    def __init__(
        self, sweep: Sweep, study: optuna.Study, out: Path, workers: int, threads: int, on_trial: OnTrial
    ) -> None:
        self.sweep, self.study, self.out, self.threads = sweep, study, out, threads
        self.workers = [Worker(threads) for _ in range(workers)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self.workers:
            self._idle.put(worker)
        self._on_trial = on_trial
        self._telling, self._drawing = threading.Lock(), threading.Lock()
        self._stopping, self._over = False, threading.Event()
        self._error: BaseException | None = None
        self._failures = self._ended = 0
        self._last: Standing | None = None
        self._began = time.monotonic()

    def run(self, stop: Stop) -> None:
        """Waits on the main thread, which signals reach, while others work."""
        threading.Thread(target=self._optimize).start()
        number = 0
        try:
            while not self._over.wait(0.2):
                number = number or stop()
                self._stopping = self._stopping or bool(number)
                if self._stopping:
                    for worker in self.workers:
                        worker.stop()
        except KeyboardInterrupt:
            self._stopping = True
            for worker in self.workers:
                worker.kill()
            self._over.wait()  # an event, because Python 3.11 takes a thread for ended when its join is interrupted
            raise
        finally:
            for worker in self.workers:
                worker.close()
        if isinstance(self._error, StorageInternalError):
            raise storage.closed(self._error) from self._error
        if self._error:
            raise self._error
        if number:
            standing = self._standing()
            raise Stopped(
                number,
                f"Stopped with {standing.finished} of {counted(standing.n_trials, 'trial')} finished and the others saved; "
                "the same command goes on with them",
            )

    def _optimize(self) -> None:
        try:
            while True:
                try:
                    return self.study.optimize(
                        self._trial, n_jobs=len(self.workers), catch=(SetAside, Failed), callbacks=[self._after]
                    )
                except ValueError as error:
                    # another process took a trial of this one for dead, because the machine slept; it is in line again
                    if "Cannot tell a" not in str(error):
                        raise
        except BaseException as error:
            self._error = self._error or error
        finally:
            self._over.set()

    def _trial(self, trial: optuna.Trial) -> float:
        """Optuna's objective: one trial, to its tuning loss."""
        try:
            trial.set_user_attr(storage.BEGUN, trial.number)
            self._wait_for_turn(trial)
            self._draw(trial)
            worker = self._idle.get()
            try:
                return self._train(trial, worker)
            finally:
                self._idle.put(worker)
        except (SetAside, Failed, optuna.TrialPruned, UpdateFinishedTrialError):
            raise
        except BaseException as error:
            self._error = self._error or error
            self._stopping = True  # so that the other workers end too
            raise

    def _wait_for_turn(self, trial: optuna.Trial) -> None:
        while True:
            trials = self.study.get_trials(deepcopy=False)
            if self._stopping:
                raise self._put_back(trial, "interrupted")
            if storage.turn(trials, trials[trial.number], self.sweep.file.n_trials):
                return
            if storage.finished(trials) >= self.sweep.file.n_trials:
                raise self._set_aside(trial, "enough trials were finished")
            if any(other.state == TrialState.WAITING for other in trials):
                raise self._put_back(trial, "another one was in line")
            optuna.storages.fail_stale_trials(self.study)
            storage.put_back_lost(self.study, 2 * storage.STALE * storage.heartbeat())
            time.sleep(POLL)

    def _draw(self, trial: optuna.Trial) -> None:
        """Draws the trial's values; sets it aside, with another one in line, where a trial has them already."""
        with self._drawing:
            self.sweep.assign(lambda field: field.suggest(trial))
            trials = self.study.get_trials(deepcopy=False)
            frozen = trials[trial.number]
            twin = storage.twin(trials, frozen)
            if twin is None:
                return
            values = unseen(self.sweep, self.study, frozen)
            if values is None:
                finished = counted(storage.finished(trials), "trial")
                self._error = ShortrunError(f"[search] has no other combinations than those of the {finished} finished")
            else:
                self.study.enqueue_trial(values)
            raise self._set_aside(trial, f"trial {twin} has the same values")

    def _train(self, trial: optuna.Trial, worker: Worker) -> float:
        try:
            run = TrialRun(self.sweep, trial, self.out, self.threads, lambda: self._stopping)
        except ShortrunError as error:
            raise self._fail(trial, str(error)) from error
        self._tell(_running(trial, run))
        outcome = run.do(worker, lambda: self._tell(_running(trial, run, changed=False)))
        run.count_costs()
        if outcome.scores:
            loss: float = outcome.scores["tuning_loss"]
            return loss
        if run.pruned:
            raise optuna.TrialPruned
        if outcome.stopped or self._stopping:
            raise self._put_back(trial, "interrupted")
        raise self._fail(trial, outcome.reason)

    def _after(self, _: optuna.Study, trial: FrozenTrial) -> None:
        """Tells how a trial has ended, and ends the sweep when it was the last."""
        aside, reason = trial.user_attrs.get(storage.SET_ASIDE), trial.user_attrs.get(storage.REASON, "")
        if aside is None:
            self._ended += 1
            self._failures = self._failures + 1 if trial.state == TrialState.FAIL else 0
            if self._failures == FAILURES:
                self._error = ShortrunError(f"The last {FAILURES} trials failed, the last one because: {reason}")
        if aside in (None, "interrupted") and trial.params:
            state: State = "INTERRUPTED" if aside else trial.state.name  # type: ignore[assignment]
            self._tell(TrialEvent(trial.number, state, trial.params, trial.value, reason=reason))
        done = storage.finished(self.study.get_trials(deepcopy=False)) >= self.sweep.file.n_trials
        if done or self._stopping or self._error:
            self.study.stop()

    def _put_back(self, trial: optuna.Trial, why: str) -> SetAside:
        """Sets a try aside, and another one of the same trial in line, unless it has no values yet that could be lost."""
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        if frozen.params or frozen.system_attrs:
            storage.retry(self.study, frozen)
        return self._set_aside(trial, why)

    def _set_aside(self, trial: optuna.Trial, why: str) -> SetAside:
        trial.set_user_attr(storage.SET_ASIDE, why)
        return SetAside(why)

    def _fail(self, trial: optuna.Trial, reason: str) -> Failed:
        trial.set_user_attr(storage.REASON, reason)
        return Failed(reason)

    def _tell(self, event: TrialEvent) -> None:
        with self._telling:
            if event.changed or self._last is None:
                self._last = self._standing()
            self._on_trial(event, self._last)

    def _standing(self) -> Standing:
        n_trials = self.sweep.file.n_trials
        finished = min(storage.finished(self.study.get_trials(deepcopy=False)), n_trials)
        pace = (time.monotonic() - self._began) / self._ended if self._ended else None
        return Standing(finished, n_trials, None if pace is None else pace * (n_trials - finished))


def _running(trial: optuna.Trial, run: TrialRun, *, changed: bool = True) -> TrialEvent:
    at = run.at
    return TrialEvent(trial.number, "RUNNING", trial.params, at.tuning_loss, at.step, at.total_steps, changed=changed)
