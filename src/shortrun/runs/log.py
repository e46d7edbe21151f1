"""metrics.jsonl: what happens in a run, one event a line, under Mainrun's event names."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from typing import Any, BinaryIO

from shortrun.disk import sync
from shortrun.errors import UserError
from shortrun.runs.folder import RunFolder
from shortrun.score.evaluate import Evaluation


class RunInUse(UserError):
    """Another process trains the run."""


class MetricsLog:
    """Appends events to a run's metrics.jsonl, and keeps every other process from training the run meanwhile."""

    def __init__(self, folder: RunFolder) -> None:
        folder.require_own()
        if not folder.metrics_file.exists():
            folder.metrics_file.touch()
            sync(folder.path)
        self._path = folder.metrics_file
        self._file = folder.metrics_file.open("r+b")
        _lock(self._file, folder)

    def go_on(self, keep_bytes: int) -> list[str]:
        """Drops what stands beyond `keep_bytes`: lines of steps after the checkpoint, which will be taken again.

        Returns a sentence where the file has lost lines since the checkpoint; it then goes on after the last whole one.
        """
        with self._path.open("rb") as file:
            content = file.read(keep_bytes)
        kept = content.rfind(b"\n") + 1
        self._file.truncate(kept)
        self._file.seek(kept)
        if kept == keep_bytes:
            return []
        return [
            f"{self._path} has lost lines: it held {keep_bytes:,} bytes at the checkpoint and goes on after {kept:,}"
        ]

    def event(self, name: str, **fields: Any) -> None:
        """Writes an event, so that whoever follows the file sees it at once."""
        record = {"event": name, "timestamp": time.time(), **fields}
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Puts all events on disk; returns the file's size in bytes, which a checkpoint remembers."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Lets go of the file, and with it of the run."""
        # on a full disk the last lines are lost here too; the checkpoint knows how many it needs
        with suppress(OSError):
            self._file.close()


class NoLog(MetricsLog):
    """What the processes besides the first write: nothing."""

    def __init__(self) -> None:
        pass

    def go_on(self, keep_bytes: int) -> list[str]:  # noqa: ARG002
        return []

    def event(self, name: str, **fields: Any) -> None:
        pass

    def sync(self) -> int:
        return 0

    def close(self) -> None:
        pass


def _lock(file: BinaryIO, folder: RunFolder) -> None:
    """Makes this the only process that trains the run, until the file is closed. Windows has no such lock."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise RunInUse(f"{folder.path} is being trained by another process") from None


def being_trained(folder: RunFolder) -> bool:
    """Whether another process trains the run at this moment. Always False on Windows."""
    if sys.platform == "win32" or not folder.metrics_file.exists():
        return False
    with folder.metrics_file.open("r+b") as file:
        try:
            _lock(file, folder)
        except RunInUse:
            return True
    return False


def log_evaluation(
    log: MetricsLog, step: int, max_steps: int, seconds: float, validation: Evaluation, tuning: Evaluation | None
) -> None:
    """Writes an evaluation as Mainrun's validation_step, whose `loss` is the official one."""
    log.event(
        "validation_step",
        step=step,
        max_steps=max_steps,
        loss=validation.official.loss,
        elapsed_time=seconds,
        official_loss=validation.official.loss,
        coverage=validation.official.coverage,
        document_loss=validation.loss.loss,
        bits_per_byte=validation.loss.bits_per_byte,
        perplexity=validation.loss.perplexity,
        tuning_loss=tuning.loss.loss if tuning else None,
    )


def log_beginning(log: MetricsLog, manifest: dict[str, Any], counts: dict[str, Any], folder: RunFolder) -> None:
    """Writes the events with which Mainrun's log begins, with its fields and more.

    counts: device, batches_per_epoch, tokens_per_epoch and parameters_count.
    """
    recipe, data, tokenizer = manifest["recipe"], manifest["data"], manifest["tokenizer"]
    log.event(
        "hyperparameters_configured",
        block_size=recipe["batches"]["block_size"],
        batch_size=recipe["batches"]["batch_size"],
        vocab_size=recipe["tokenizer"]["vocab_size"],
        **{name: recipe["model"][name] for name in ("n_layer", "n_head", "d_model", "dropout")},
        **{name: recipe["optim"][name] for name in ("lr", "weight_decay")},
        **{name: recipe["train"][name] for name in ("evals_per_epoch", "epochs", "seed")},
        **{name: recipe["data"][name] for name in ("num_titles", "val_frac")},
        log_file=str(folder.metrics_file),
        recipe=recipe,
    )
    log.event("device_info", device=counts["device"], reason=manifest["machine"]["device_reason"])
    log.event(
        "dataset_info",
        titles_count=data["splits"]["train"]["documents"],
        epochs=recipe["train"]["epochs"],
        batches_per_epoch=counts["batches_per_epoch"],
        tokens_per_epoch=counts["tokens_per_epoch"],
        vocab_size=tokenizer["vocab_size"],
        validation_documents=data["splits"]["validation"]["documents"],
        validation_characters=manifest["denominators"]["characters"],
        data_sha256=data["sha256"],
        tokenizer_sha256=tokenizer["sha256"],
    )
    log.event("model_info", parameters_count=counts["parameters_count"])
