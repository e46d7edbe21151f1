"""Doing the runs that a study lacks, some at a time, each in a worker process."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence

from shortrun.study.jobs import Job
from shortrun.study.ledger import Entry
from shortrun.study.worker import Outcome, Progress, Worker
from shortrun.train.fit import never
from shortrun.train.loop import Stop

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
    """One for each core."""
    return cores()


class Crew:
    """Worker processes that share the cores, and the threads that give them jobs."""

    def __init__(self, workers: int) -> None:
        self.threads = max(cores() // workers, 1)
        self.workers = [Worker(self.threads) for _ in range(workers)]
        self._stopping = threading.Event()
        self._telling = threading.Lock()

    def do(self, entries: Sequence[Entry], on_change: OnChange, stop: Stop = never) -> None:
        """Does all runs; how each ends is told. Once `stop` asks for it, each saves, and those not yet begun are left out."""
        waiting: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        for entry in entries:
            waiting.put(entry)
        giving = [threading.Thread(target=self._give, args=(worker, waiting, on_change)) for worker in self.workers]
        try:
            for thread in giving:
                thread.start()
            for thread in giving:
                while thread.is_alive():
                    thread.join(0.2)  # in short turns, because a signal's handler only runs between them
                    if stop() and not self._stopping.is_set():
                        self._stop()
        finally:
            self._stop()
            for thread in giving:
                thread.join()
            for worker in self.workers:
                worker.close()

    def _stop(self) -> None:
        self._stopping.set()
        for worker in self.workers:
            worker.stop()

    def _give(self, worker: Worker, waiting: queue.SimpleQueue[Entry], on_change: OnChange) -> None:
        while not self._stopping.is_set():
            try:
                entry = waiting.get_nowait()
            except queue.Empty:
                return
            self._tell(on_change, entry, None)
            self._tell(on_change, entry, self._try(worker, entry, on_change))

    def _try(self, worker: Worker, entry: Entry, on_change: OnChange) -> Outcome:
        train = entry.job.recipe.train.model_copy(update={"threads": self.threads})
        job = Job(entry.job.recipe.model_copy(update={"train": train}), entry.job.path)

        def tell(progress: Progress) -> None:
            self._tell(on_change, entry, progress)
            if self._stopping.is_set():
                worker.stop()  # once more, because the first may have come before the job

        for left in reversed(range(TRIES)):
            outcome = worker.do(job, tell)
            if outcome.died and left and not self._stopping.is_set():
                self._tell(on_change, entry, f"{outcome.reason}; it is begun once more")
                continue
            return outcome
        raise AssertionError("the last try returns")

    def _tell(self, on_change: OnChange, entry: Entry, what: Change) -> None:
        with self._telling:
            on_change(entry, what)
