"""metrics.jsonl: what happens in a run, one event a line, under Mainrun's event names."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from typing import Any, BinaryIO

from shortrun.errors import UserError
from shortrun.train.assembly import Assembly
from shortrun.train.folder import RunFolder


class MetricsLog:
    """Appends events to metrics.jsonl under Mainrun's event names."""

    def __init__(self, folder: RunFolder) -> None:
        """Makes this the only process that trains the run, until `close`."""
        folder.metrics_file.touch()
        self._path = folder.metrics_file
        self._file = folder.metrics_file.open("r+b")
        _lock(self._file, folder)

    def go_on(self, keep_bytes: int) -> None:
        """Drops what stands beyond `keep_bytes`: lines of steps after the checkpoint, which will be taken again."""
        there = self._path.stat().st_size
        if there < keep_bytes:
            raise UserError(
                f"{self._path} has lost lines: it held {keep_bytes:,} bytes at the checkpoint and holds {there:,} "
                "now; bring it back to resume"
            )
        self._file.truncate(keep_bytes)
        self._file.seek(keep_bytes)

    def event(self, name: str, **fields: Any) -> None:
        record = {"event": name, "timestamp": time.time(), **fields}
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def sync(self) -> int:
        """Puts all events on disk; returns the file's size in bytes, which a checkpoint remembers."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Lets go of the file, and with it of the run."""
        with suppress(
            OSError
        ):  # on a full disk the last lines are lost here too; the checkpoint knows how many it needs
            self._file.close()


class NoLog(MetricsLog):
    """What the processes besides the first write: nothing."""

    def __init__(self) -> None:
        pass

    def go_on(self, keep_bytes: int) -> None:
        pass

    def event(self, name: str, **fields: Any) -> None:
        pass

    def sync(self) -> int:
        return 0

    def close(self) -> None:
        pass


def _lock(file: BinaryIO, folder: RunFolder) -> None:
    """Makes this the only process that trains the run, until the file is closed; Windows has no such lock."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder.path} is being trained by another process") from None


def log_beginning(log: MetricsLog, parts: Assembly, folder: RunFolder) -> None:
    """The events with which Mainrun's log begins, with its fields and more."""
    recipe = parts.recipe
    log.event(
        "hyperparameters_configured",
        block_size=recipe.batches.block_size,
        batch_size=recipe.batches.batch_size,
        vocab_size=recipe.tokenizer.vocab_size,
        n_layer=recipe.model.n_layer,
        n_head=recipe.model.n_head,
        d_model=recipe.model.d_model,
        dropout=recipe.model.dropout,
        lr=recipe.optim.lr,
        weight_decay=recipe.optim.weight_decay,
        evals_per_epoch=recipe.train.evals_per_epoch,
        epochs=recipe.train.epochs,
        seed=recipe.train.seed,
        num_titles=recipe.data.num_titles,
        val_frac=recipe.data.val_frac,
        log_file=str(folder.metrics_file),
        recipe=recipe.model_dump(mode="json"),
    )
    log.event("device_info", device=str(parts.device), reason=parts.manifest["machine"]["device_reason"])
    log.event(
        "dataset_info",
        titles_count=parts.train_titles,
        epochs=recipe.train.epochs,
        batches_per_epoch=parts.batches.steps_per_epoch,
        tokens_per_epoch=parts.batches.tokens_per_epoch,
        vocab_size=parts.tokenizer.vocab_size,
        validation_titles=len(parts.validation.encoded),
        validation_characters=parts.validation.characters,
        data_sha256=parts.manifest["data"]["sha256"],
        tokenizer_sha256=parts.tokenizer.sha256,
    )
    log.event("model_info", parameters_count=parts.model.count_parameters())
