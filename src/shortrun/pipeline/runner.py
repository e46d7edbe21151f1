"""Doing pieces of work in some processes; what is done stays done, whenever the work stops."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from shortrun.errors import ShortrunError

Job = TypeVar("Job")
Made = TypeVar("Made")
PAUSE = 0.05
"""Seconds between two looks at the processes."""
LIFE = 200
"""Pieces that a process does before another one takes its place: what libraries keep is freed so."""


class Stopped(ShortrunError):
    """The work was asked to stop and what was done is saved; exit code 128 + signal, as shells count."""

    def __init__(self, number: int) -> None:
        super().__init__("Stopped; the same command goes on from here")
        self.exit_code = 128 + number


@dataclass(frozen=True)
class Progress:
    """Where the work stands."""

    stage: str
    done: int
    total: int
    """Bytes."""


OnProgress = Callable[[Progress], None]
Stop = Callable[[], int]
"""The number of the signal that asks for the work to stop, 0 while none does."""


def ignore(_: Progress) -> None:
    """Nobody looks."""


def never() -> int:
    return 0


@dataclass
class Crew:
    """Some processes, and who is told of their work."""

    workers: int = 1
    on_progress: OnProgress = ignore
    stop: Stop = never

    def do(
        self, stage: str, work: Callable[[Job], Made], jobs: Sequence[Job], sizes: Sequence[int], before: int = 0
    ) -> list[Made]:
        """What `work` makes of each job, in order. sizes: bytes of each; before: bytes that were done earlier.

        Raises Stopped, after the jobs in hand are done, where `stop` asks for it; ShortrunError where a process dies.
        """
        total, done = before + sum(sizes), before
        self.on_progress(Progress(stage, done, total))
        made: dict[int, Made] = {}
        for number, result in self._results(work, jobs):
            made[number] = result
            done += sizes[number]
            self.on_progress(Progress(stage, done, total))
        if number := self.stop():
            raise Stopped(number)
        return [made[number] for number in range(len(jobs))]

    def _results(self, work: Callable[[Job], Made], jobs: Sequence[Job]) -> Iterator[tuple[int, Made]]:
        """Numbers of jobs and what was made of them, as they are done; fewer than all where `stop` asks for it."""
        if self.workers == 1 or len(jobs) < 2:
            for number, job in enumerate(jobs):
                if self.stop():
                    return
                yield number, work(job)
            return
        # not forked: Arrow has threads, which a fork would leave behind
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            min(self.workers, len(jobs)), mp_context=context, initializer=_begin, max_tasks_per_child=LIFE
        )
        waiting: dict[Future[Made], int] = {}
        rest = list(enumerate(jobs))[::-1]
        try:
            while rest or waiting:
                while rest and len(waiting) < 2 * self.workers and not self.stop():
                    number, job = rest.pop()
                    with _signals_held():
                        waiting[pool.submit(work, job)] = number
                if not waiting:
                    return
                for future in [each for each in waiting if each.done()]:
                    number = waiting.pop(future)
                    yield number, future.result()
                time.sleep(
                    PAUSE
                )  # not futures.wait: Ctrl-C inside it can leave a lock that the pool's thread waits for
                if self.stop():
                    for future in [each for each in waiting if each.cancel()]:
                        del waiting[future]
        except BrokenProcessPool:
            raise ShortrunError(
                "A worker process died, perhaps for want of memory; the same command goes on from what is done, "
                "with fewer --workers in less memory"
            ) from None
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Lets Ctrl-C wait while a process is started, which would die of it before it leaves signals to its parent.

    The process is born with signals held, and stays so.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """A worker leaves signals to its parent, and ends when that is gone."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
