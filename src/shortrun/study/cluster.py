"""Doing runs on several machines: each is a task of a Dask cluster (the extra `cluster`).

    dask scheduler                                     on one machine
    dask worker tcp://HOST:8786 --nthreads 1           on each, as often as it has room for runs
    shortrun study run STUDY --cluster tcp://HOST:8786 --out /shared/runs

The folder of the runs must be the same on all machines, such as on a network disk, and so must be the path of the data. Dask
gives the task of a machine that is gone to another one, which goes on from the run's last checkpoint.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from shortrun.errors import UserError, missing_extra
from shortrun.study.jobs import Job
from shortrun.study.ledger import Entry
from shortrun.study.run import OnChange, cores
from shortrun.study.worker import Outcome, Progress, Worker
from shortrun.train.fit import never
from shortrun.train.loop import Stop

EVERY = 0.5
"""Seconds between two looks at whether to stop."""
RETRIES = 3
"""How often Dask gives out a run again whose process died. How many machines may be lost under one run is Dask's own setting,
`distributed.scheduler.allowed-failures`."""
LOST = "the scheduler of the cluster is gone; the next `shortrun study run` goes on from the last checkpoint"
GONE = (CancelledError, OSError, RuntimeError)
"""What Dask raises where its scheduler does not answer any more."""


class ClusterCrew:
    """Does runs on a cluster; what `Crew` is on one machine."""

    def __init__(self, address: str) -> None:
        self._distributed = distributed = _distributed()
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # it logs tracebacks of what `LOST` says
        try:
            self.client = distributed.Client(address, timeout="10s")
        except (OSError, TimeoutError, ValueError) as error:
            raise UserError(f"No Dask scheduler answers at {address}: {error}") from None
        self.topic = f"shortrun-{uuid4().hex}"
        self._stop = distributed.Event(self.topic, client=self.client)

    def do(self, entries: Sequence[Entry], on_change: OnChange, stop: Stop = never) -> None:
        """Does all runs; how each ends is told. Once `stop` asks for it, each saves, and those that wait end at once."""
        here = {entry.fingerprint: entry for entry in entries}
        begun: set[str] = set()
        over: set[str] = set()
        telling = threading.Lock()

        def tell(entry: Entry, what: Progress | Outcome) -> None:
            """Says that a run has begun before anything else of it, and nothing after its end, because progress may come late."""
            key = entry.fingerprint
            with telling:
                if key in over:
                    return
                if key not in begun:
                    begun.add(key)
                    on_change(entry, None)
                if isinstance(what, Outcome):
                    over.add(key)
                on_change(entry, what)

        def heard(event: tuple[float, dict[str, Any]]) -> None:
            tell(here[event[1]["fingerprint"]], Progress(**event[1]["progress"]))

        self.client.subscribe_topic(self.topic, heard)
        known = self.client.scheduler_info(n_workers=-1)["workers"].values()
        sharing = Counter(each["host"] for each in known for _ in range(each["nthreads"]))
        try:
            tasks = {
                self.client.submit(
                    do_job, _everywhere(entry.job).as_dict(), entry.fingerprint, self.topic, sharing,
                    key=f"{self.topic}-{entry.fingerprint[:12]}", retries=RETRIES, pure=False,
                ): entry
                for entry in entries
            }  # fmt: skip
            waiting = set(tasks)
            while waiting:
                for task, outcome in self._ended(waiting, stop):
                    waiting.remove(task)
                    tell(tasks[task], outcome)
        finally:
            with suppress(*GONE):
                self._stop.set()
                self.client.unsubscribe_topic(self.topic)
            with suppress(*GONE):
                self.client.close()

    def _ended(self, waiting: set[Any], stop: Stop) -> Iterator[tuple[Any, Outcome]]:
        """The tasks that have ended, each with how; all of them where the scheduler is gone."""
        left = set(waiting)
        try:
            if stop():
                self._stop.set()
            try:
                ended, _ = self._distributed.wait(waiting, timeout=EVERY, return_when="FIRST_COMPLETED")
            except TimeoutError:
                return
            for task in ended:
                error = task.exception() if task.status == "error" else None
                outcome = Outcome(None, f"its machine failed: {error}") if error else Outcome(**task.result())
                left.remove(task)
                yield task, outcome
        except GONE:
            for task in left:
                yield task, Outcome(None, LOST)


def do_job(values: dict[str, Any], fingerprint: str, topic: str, sharing: dict[str, int]) -> dict[str, Any]:
    """What a machine of the cluster does: one job, in a process of its own with its share of the cores.

    sharing: how many jobs each machine may have at once, by its host.
    """
    distributed = _distributed()
    here, stop = distributed.get_worker(), distributed.Event(topic)
    if stop.is_set():
        return asdict(Outcome(None, "stopped before it began", stopped=True))
    threads = max(cores() // max(sharing.get(here.ip, 1), 1), 1)
    worker = Worker(threads)

    def tell(progress: Progress) -> None:
        here.log_event(topic, {"fingerprint": fingerprint, "progress": asdict(progress)})
        if stop.is_set():
            worker.stop()

    try:
        outcome = worker.do(Job.from_dict(values).with_threads(threads), tell)
    finally:
        worker.close()
    if outcome.died:
        raise RuntimeError(outcome.reason)  # so that Dask tries again
    return asdict(outcome)


def _everywhere(job: Job) -> Job:
    """The job with paths that mean the same in every process."""
    return Job(job.recipe.located(), Path(os.path.abspath(job.path)))  # noqa: PTH100


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise missing_extra("--cluster", "cluster") from None
    return distributed
