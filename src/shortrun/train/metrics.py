"""metrics.jsonl: what happens in a run, one event a line, under Mainrun's event names."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from shortrun.errors import UserError
from shortrun.train.assembly import Assembly
from shortrun.train.folder import RunFolder


class MetricsLog:
    """Appends events to metrics.jsonl under Mainrun's event names."""

    def __init__(self, folder: RunFolder, keep_bytes: int) -> None:
        """Drops what stands beyond `keep_bytes`: lines of steps after the checkpoint, which will be taken again."""
        there = folder.metrics_file.stat().st_size if folder.metrics_file.exists() else 0
        if there < keep_bytes:
            raise UserError(
                f"{folder.metrics_file} has lost lines: it held {keep_bytes:,} bytes at the checkpoint and holds {there:,} "
                "now; bring it back to resume"
            )
        folder.metrics_file.touch()
        self._file = folder.metrics_file.open("r+b")
        self._file.truncate(keep_bytes)
        self._file.seek(keep_bytes)

    def event(self, name: str, **fields: Any) -> None:
        record = {"event": name, "timestamp": time.time(), **fields}
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def sync(self) -> int:
        """Puts all events on disk; returns the file's size in bytes, which a checkpoint remembers."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


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
        titles_count=len(parts.corpus.train.titles),
        epochs=recipe.train.epochs,
        batches_per_epoch=parts.batches.steps_per_epoch,
        tokens_per_epoch=parts.batches.tokens_per_epoch,
        vocab_size=parts.tokenizer.vocab_size,
        validation_titles=len(parts.corpus.validation.titles),
        validation_characters=parts.validation.characters,
        data_sha256=parts.manifest["data"]["sha256"],
        tokenizer_sha256=parts.tokenizer.sha256,
    )
    log.event("model_info", parameters_count=parts.model.count_parameters())
