"""A process that does one job after another, and the object that gives it jobs.

python -m shortrun.study.worker

Protocol, one JSON object a line. In: a job ({"recipe", "path"}), or {"stop": true}, which ends the job after the step it is
in, with a checkpoint; so does the end of the input, because whoever gave the job is gone. Out: what happens (`Progress`), and
then one of {"done": scores}, {"stopped": sentence}, {"failed": sentence}. A process of its own, because a job that runs out of
memory or crashes then takes nothing else with it, and because each has threads and an allocator to itself.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

from shortrun.errors import ShortrunError
from shortrun.model.threads import waiting
from shortrun.study.jobs import Job
from shortrun.train.events import Begun, Evaluated, Event, Note, StepTaken
from shortrun.train.loop import Stopped

EVERY = 0.5
"""Seconds between two lines about steps."""


@dataclass(frozen=True)
class Progress:
    """Where a job stands."""

    step: int
    total_steps: int
    seconds_left: float | None = None
    tuning_loss: float | None = None
    """Of the tuning documents at the last evaluation, nats per character."""
    evaluated: bool = False
    """Whether this was written because of an evaluation."""
    warning: str | None = None
    """What makes the run worth less than it looks."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: scores, or the reason why there are none."""

    scores: dict[str, Any] | None
    reason: str = ""
    stopped: bool = False
    """Whether somebody asked for it; the run can be gone on with."""
    died: bool = False
    """Whether its process ended without a word."""


OnProgress = Callable[[Progress], None]


class Worker:
    """A worker process, which is started with its first job. One thread may give it jobs; any may call `stop`."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def do(self, job: Job, on_progress: OnProgress = lambda _: None) -> Outcome:
        """Waits until a job has ended. A process that dies on the way is the job's failure."""
        process = self._started()
        assert process.stdout
        self._send(job.as_dict())
        for line in process.stdout:
            told = json.loads(line)
            if "done" in told:
                return Outcome(told["done"])
            if "stopped" in told or "failed" in told:
                return Outcome(None, told.get("stopped", told.get("failed")), stopped="stopped" in told)
            on_progress(Progress(**told))
        code, self._process = process.wait(), None
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Outcome(None, f"its process died ({how})", died=True)

    def stop(self) -> None:
        """Ends the job that it is doing after the step it is in."""
        self._send({"stop": True})

    def close(self) -> None:
        """Ends the process, which saves what it was doing."""
        process, self._process = self._process, None
        if process:
            assert process.stdin
            with suppress(OSError):  # it may have died with a line still on its way
                process.stdin.close()
            process.wait()

    def kill(self) -> None:
        """Ends the process at once; its run goes on from the last checkpoint."""
        if process := self._process:
            process.kill()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "shortrun.study.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env={**os.environ, **waiting(os.environ), "OMP_NUM_THREADS": str(self.threads)},
                start_new_session=True,  # so that a Ctrl-C of the terminal reaches only whoever gives the jobs
            )
        return self._process

    def _send(self, message: dict[str, Any]) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin
        with self._lock:
            try:
                process.stdin.write(json.dumps(message) + "\n")
                process.stdin.flush()
            except (OSError, ValueError):  # it is gone, which `do` finds out
                return


class _Stopping:
    """Reads the input on a thread of its own, and knows whether the job that is being done should end."""

    def __init__(self, lines: IO[str]) -> None:
        self.jobs: queue.Queue[Job | None] = queue.Queue()
        self._stop = threading.Event()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            message = json.loads(line)
            if "stop" in message:
                self._stop.set()
            else:
                self._stop.clear()
                self.jobs.put(Job.from_dict(message))
        self._stop.set()
        self.jobs.put(None)

    def __call__(self) -> int:
        return signal.SIGTERM if self._stop.is_set() else 0


class _Telling:
    """Writes what happens to a job as lines."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._progress = Progress(0, 0)
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        then = self._progress
        match event:
            case Begun():
                self._progress = Progress(event.step, event.total_steps)
                self._tell(self._progress)
            case StepTaken():
                self._progress = replace(then, step=event.step, seconds_left=event.seconds_left)
                if time.monotonic() - self._last > EVERY:
                    self._tell(self._progress)
            case Evaluated():
                tuning = event.tuning.loss.loss if event.tuning else None
                self._progress = replace(then, step=event.step, tuning_loss=tuning)
                self._tell(replace(self._progress, evaluated=True))
            case Note():
                if event.warning:
                    self.line(asdict(replace(then, warning=event.text)))

    def _tell(self, progress: Progress) -> None:
        self._last = time.monotonic()
        self.line(asdict(progress))

    def line(self, told: dict[str, Any]) -> None:
        with suppress(OSError):  # nobody reads any more, and the run is to be saved all the same
            print(json.dumps(told), file=self._out, flush=True)


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # so that whatever else prints, libraries and child processes too, is no line of the protocol
    stop = _Stopping(sys.stdin)
    while (job := stop.jobs.get()) is not None:
        tell = _Telling(out)
        try:
            tell.line({"done": job.do(tell, stop)})
        except Stopped as error:
            tell.line({"stopped": str(error)})
        except (ShortrunError, OSError, MemoryError) as error:
            tell.line({"failed": str(error) or type(error).__name__})


if __name__ == "__main__":
    main()
