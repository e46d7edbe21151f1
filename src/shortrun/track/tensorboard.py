"""TensorBoard's event files, in `tb/` of the run folder (the extra `tensorboard`)."""

from __future__ import annotations

import importlib
import re
import threading
import time
from pathlib import Path
from typing import Any

from shortrun.runs.result import Result
from shortrun.track.tracker import Reached, Scalars, hyperparameters, listed
from shortrun.train.events import Begun

METRICS = ("Val/Loss", "Val/OfficialLoss", "Val/BitsPerByte", "Val/Perplexity")
"""The scalars whose last values stand beside the hyperparameters."""


class TensorBoard:
    """Writes one more event file for each sitting of a run.

    The first record of each says from which step on earlier files no longer count (`purge_step`). All is on disk after each
    step, as metrics.jsonl is: nothing that was before a checkpoint can be lost by a kill.
    """

    def __init__(self) -> None:
        self._torch = importlib.import_module("torch.utils.tensorboard")
        self._summary = importlib.import_module("torch.utils.tensorboard.summary")
        self._reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
        self._hook = threading.excepthook

    def begin(self, run: Begun) -> Reached:
        folder = run.folder.path / "tb"
        reached = self._read(folder, run.step)
        _wait_for_a_later_name(folder)
        self._writer = self._torch.SummaryWriter(str(folder), purge_step=run.step + 1)
        threading.excepthook = self._without_its_writers
        parameters = hyperparameters(run.folder.recipe())
        experiment, start, self._success = self._summary.hparams(parameters, dict.fromkeys(METRICS, 0.0))
        self._writer.file_writer.add_summary(experiment)
        self._writer.file_writer.add_summary(start)
        self._writer.flush()
        return reached

    def scalars(self, step: int, values: Scalars) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # 0.1 ms for the five of a step

    def documents(self, step: int, documents: list[str]) -> None:
        self._writer.add_text("Samples", listed(documents), step)
        self._writer.flush()

    def end(self, result: Result | None) -> None:
        try:
            if result and result.complete:
                self._writer.file_writer.add_summary(self._success)
            self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _read(self, folder: Path, step: int) -> Reached:
        """What the files hold of the steps up to `step`, as TensorBoard itself reads them."""
        if not folder.exists():
            return Reached()
        found: Any = self._reader.EventAccumulator(str(folder)).Reload()
        last = {
            tag: max((min(point.step, step) for point in found.Scalars(tag)), default=0)
            for tag in ("Train/Loss", "Val/Loss")
            if tag in found.Tags()["scalars"]
        }
        return Reached(last.get("Train/Loss", 0), last.get("Val/Loss", 0))

    def _without_its_writers(self, failure: threading.ExceptHookArgs) -> None:
        """Keeps a traceback off the screen: what the thread that writes dies of, the next call raises again."""
        if not type(failure.thread).__module__.startswith("tensorboard."):
            self._hook(failure)


def _wait_for_a_later_name(folder: Path) -> None:
    """Waits until the second is over in which the newest event file was begun; moves files that are of the future.

    Names begin with the second, and files are read in the order of their names; two sittings can be closer than that.
    """
    files = folder.glob("events.out.tfevents.[0-9]*.*")
    begun = {path: int(second) for path in files if (second := path.name.split(".")[3]).isdecimal()}
    now, newest = int(time.time()), max(begun.values(), default=0)
    if now == newest:
        time.sleep(1 - time.time() % 1)
    elif now < newest:  # the clock was set back; their order stays
        for number, path in enumerate(sorted(begun)):
            earlier = min(begun[path], now - len(begun) + number)
            path.rename(folder / re.sub(r"\.\d+\.", f".{earlier:010}.", path.name, count=1))
