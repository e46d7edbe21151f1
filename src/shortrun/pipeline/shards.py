"""Shards: the corpus as Parquet files of about one size, each written by whichever worker comes to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shortrun.disk import file_sha256, write_json
from shortrun.pipeline.decisions import CODES, GROUPS, Shard
from shortrun.pipeline.work import Place, ShardWriter, rows_of

SCHEMA = pa.schema([("text", pa.string()), ("input", pa.string()), ("place", pa.string()), ("group", pa.int64())])
"""A document, which input it is from, where in it, and the number of its group of near-duplicates."""


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to know of a shard."""

    shard: Shard
    name: str
    place: Place
    starts: tuple[int, ...]
    """The number of each unit's first document."""
    inputs: tuple[str, ...]
    """The name of each unit's input."""

    @property
    def record(self) -> Path:
        """What says that the shard is written, and what it is."""
        return self.place.folder / f"{self.name}.json"

    @property
    def path(self) -> Path:
        """Where the shard lies until all of them are there."""
        return self.place.folder / self.name


def do_shard(job: ShardJob) -> None:
    """Writes a shard and what there is to say of it."""
    codes = np.load(job.place.folder / f"{CODES}.npy", mmap_mode="r")
    groups = np.load(job.place.folder / f"{GROUPS}.npy", mmap_mode="r")
    with ShardWriter(job.path, SCHEMA) as writer:
        for unit in range(job.shard.first_unit, job.shard.last_unit + 1):
            numbers = slice(job.starts[unit], job.starts[unit + 1])
            mine = np.asarray(codes[numbers]) == job.shard.code
            if mine.any():
                group = groups[numbers]
                for at, (text, place) in enumerate(rows_of(job.place, unit)):
                    if mine[at]:
                        writer.add(text, job.inputs[unit], place, int(group[at]))
    write_json(job.record, described(job))


def described(job: ShardJob) -> dict[str, Any]:
    return {
        "name": job.name,
        "split": job.shard.split,
        "documents": job.shard.documents,
        "text_bytes": job.shard.bytes,
        "bytes": job.path.stat().st_size,
        "sha256": file_sha256(job.path),
    }
