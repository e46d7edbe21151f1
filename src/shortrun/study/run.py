"""Doing the runs that a study lacks, some at a time, each in a worker process."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from shortrun.study.ledger import Entry, Ledger
from shortrun.study.worker import Outcome, Progress, Worker
from shortrun.train.fit import never
from shortrun.train.loop import Stop, Stopped

TRIES = 2
"""A job whose process dies is begun once more, from its last checkpoint."""

Change = Progress | Outcome | str | None
"""What happens to a run: it begins (None), gets on, ends, or needs a sentence."""
OnChange = Callable[[Entry, Change], None]
"""Called from several threads, one call at a time."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """One for each core, because two runs of one thread do more than one of two (docs/log.md, L26); one on a GPU."""
    return 1 if torch.cuda.is_available() else cores()


class Does(Protocol):
    """Whatever does runs: worker processes here, or a cluster's."""

    def do(self, entries: Sequence[Entry], on_change: OnChange, stop: Stop = never) -> None:
        """Does all runs, and tells how each ends."""


def do_missing(ledger: Ledger, crew: Does, on_change: OnChange, stop: Stop = never) -> None:
    """Has a crew do the runs that a study lacks. Why a run failed is written down at once.

    Raises Stopped when `stop` asked for it and every run is saved.
    """

    def changed(entry: Entry, what: Change) -> None:
        if isinstance(what, Outcome):
            ledger.ended(entry, what)
        on_change(entry, what)

    crew.do(ledger.to_do(), changed, stop)
    if number := stop():
        raise Stopped(number, "Stopped, and every run is saved; the same command goes on with them")


class Crew:
    """Worker processes that share the cores, and the threads that give them jobs."""

    def __init__(self, workers: int) -> None:
        self.threads = max(cores() // workers, 1)
        self.workers = [Worker(self.threads) for _ in range(workers)]
        self._stopping = threading.Event()
        self._telling = threading.Lock()

    def do(self, entries: Sequence[Entry], on_change: OnChange, stop: Stop = never) -> None:
        """Does all runs; how each ends is told. Once `stop` asks for it, each saves, and those not yet begun are left out.

        Raises KeyboardInterrupt when one comes, after ending all workers at once, and whatever `on_change` raises.
        """
        waiting: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        for entry in entries:
            waiting.put(entry)
        # what each thread ends with; a queue, because Python 3.11 takes a thread for ended when its join is interrupted
        over: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        for worker in self.workers:
            threading.Thread(target=self._give, args=(worker, waiting, on_change, over), daemon=True).start()
        left, error = len(self.workers), None
        try:
            while left:
                try:
                    error = over.get(timeout=0.2) or error  # a signal's handler only runs between two of these
                    left -= 1
                except queue.Empty:
                    if stop() and not self._stopping.is_set():
                        self._stop()
        except KeyboardInterrupt:
            self._stopping.set()
            for worker in self.workers:
                worker.kill()
            for _ in range(left):
                over.get()
            raise
        finally:
            for worker in self.workers:
                worker.close()
        if error:
            raise error

    def _stop(self) -> None:
        self._stopping.set()
        for worker in self.workers:
            worker.stop()

    def _give(
        self,
        worker: Worker,
        waiting: queue.SimpleQueue[Entry],
        on_change: OnChange,
        over: queue.SimpleQueue[Exception | None],
    ) -> None:
        try:
            while not self._stopping.is_set():
                entry = waiting.get_nowait()
                self._tell(on_change, entry, None)
                self._tell(on_change, entry, self._try(worker, entry, on_change))
        except queue.Empty:
            pass
        except Exception as error:
            self._stop()
            over.put(error)
            return
        over.put(None)

    def _try(self, worker: Worker, entry: Entry, on_change: OnChange) -> Outcome:
        job = entry.job.with_threads(self.threads)

        def tell(progress: Progress) -> None:
            self._tell(on_change, entry, progress)
            if self._stopping.is_set():
                worker.stop()  # once more, because the first may have come before the job

        for left in reversed(range(TRIES)):
            outcome = worker.do(job, tell)
            if outcome.died and self._stopping.is_set():
                return Outcome(None, "stopped at once", stopped=True)
            if outcome.died and left:
                self._tell(on_change, entry, f"{outcome.reason}; it is begun once more")
                continue
            return outcome
        raise AssertionError("the last try returns")

    def _tell(self, on_change: OnChange, entry: Entry, what: Change) -> None:
        with self._telling:
            on_change(entry, what)
