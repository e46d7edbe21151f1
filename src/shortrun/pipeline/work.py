"""One unit of work: its records through all steps, into three files of the working folder.

The text lies in Parquet, the fingerprints in a NumPy array, the counts in JSON. The counts are written last, so that a
unit whose counts are there is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shortrun.disk import read_json, sync, write_json
from shortrun.pipeline.corpus_file import CorpusFile
from shortrun.pipeline.extraction import Extraction
from shortrun.pipeline.fingerprints import Fingerprints
from shortrun.pipeline.quality import quality_steps
from shortrun.pipeline.readers import read_unit
from shortrun.pipeline.records import Damage, Record
from shortrun.pipeline.repair import Language, Repair
from shortrun.pipeline.steps import Chain, Rejected, Step, Tally
from shortrun.pipeline.text import Text
from shortrun.pipeline.units import Unit

GROUP_BYTES = 4_000_000
"""Text in a row group, which is what is in memory at any one time."""
GROUP_ROWS = 500_000
"""Rows of it, which as Python objects take far more than their text where that is a letter."""
SCHEMA = pa.schema([("text", pa.string()), ("place", pa.string())])


@dataclass(frozen=True)
class Place:
    """Where the work of a corpus lies."""

    folder: Path
    root: Path

    def text(self, number: int) -> Path:
        return self.folder / f"unit-{number:06}.parquet"

    def fingerprints(self, number: int) -> Path:
        return self.folder / f"unit-{number:06}.npy"

    def counts(self, number: int) -> Path:
        return self.folder / f"unit-{number:06}.json"


@dataclass(frozen=True)
class UnitJob:
    """All that a worker needs to know of a unit."""

    number: int
    unit: Unit
    place: Place
    file: CorpusFile


@lru_cache(maxsize=1)
def text_steps(file: CorpusFile) -> tuple[Step, ...]:
    """What is done to text. A page of HTML goes through the extraction before."""
    steps: list[Step] = [Repair(file.repair)]
    if file.language.keep:
        steps.append(Language(file.language))
    return (*steps, *quality_steps(file.quality))


@lru_cache(maxsize=1)
def extraction(library: str) -> Extraction:
    return Extraction(library)


def do_unit(job: UnitJob) -> None:
    """Reads a unit, takes its records through the steps and writes what is left."""
    chain, read, extracted = Chain(text_steps(job.file)), Tally(), Tally()
    fingerprints = Fingerprints(job.file.duplicates)
    rows: list[NDArray[np.uint64]] = []
    target = job.place.text(job.number)
    with ShardWriter(target) as writer:
        records = read_unit(
            job.unit, job.file.input[job.unit.input], job.place.root, job.file.output.max_document_bytes
        )
        for record, text in _texts(records, job.file, read, extracted):
            if (made := chain(text, record.place)) is not None:
                rows.append(fingerprints(made))
                writer.add(made.text, record.place)
    np.save(job.place.fingerprints(job.number), np.array(rows, np.uint64).reshape(len(rows), fingerprints.columns))
    sync(job.place.fingerprints(job.number))
    tallies = {"reading": read, "extraction": extracted, **chain.tallies}
    steps = {name: asdict(tally) for name, tally in tallies.items()}
    write_json(job.place.counts(job.number), {"documents": len(rows), "steps": steps})


def _texts(
    records: Iterator[Record | Damage], file: CorpusFile, read: Tally, extracted: Tally
) -> Iterator[tuple[Record, Text]]:
    """Records as texts, those that were damaged or had no text counted."""
    for record in records:
        if isinstance(record, Damage):
            read.rejected(Rejected(record.reason, record.detail), record.place, "", 0)
            continue
        size = len(record.content)
        read.passed(size, size, bool(record.repaired))
        if not record.html:
            assert isinstance(record.content, str)
            yield record, Text(record.content)
            continue
        text = extraction(file.extraction.library)(record.content)
        if isinstance(text, Rejected):
            extracted.rejected(text, record.place, _shown(record.content), size)
        else:
            extracted.passed(size, len(text), True)
            yield record, text


def _shown(content: str | bytes) -> str:
    head = content[:2_000]
    return head.decode(errors="replace") if isinstance(head, bytes) else head


class ShardWriter:
    """Writes texts into a Parquet file in row groups of about `GROUP_BYTES`; the file appears when it is whole."""

    def __init__(self, path: Path, schema: pa.Schema = SCHEMA) -> None:
        self._path, self._schema = path, schema
        self._temporary = path.with_name(path.name + ".tmp")
        self._rows: list[tuple[Any, ...]] = []
        self._size = 0

    def __enter__(self) -> ShardWriter:
        self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd", write_statistics=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            sync(self._temporary)
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)

    def add(self, *values: Any) -> None:
        """Adds a row, the text first."""
        self._rows.append(values)
        self._size += len(values[0])
        if self._size >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
            ]
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows, self._size = [], 0


def is_done(place: Place, number: int) -> bool:
    return place.counts(number).is_file()


def counts_of(place: Place, number: int) -> tuple[int, dict[str, Tally]]:
    """How many documents a unit left, and what its steps did."""
    found = read_json(place.counts(number))
    return int(found["documents"]), {name: Tally.of(tally) for name, tally in found["steps"].items()}


def fingerprints_of(place: Place, number: int) -> NDArray[np.uint64]:
    """A row for each document of a unit, mapped into memory."""
    found: NDArray[np.uint64] = np.load(place.fingerprints(number), mmap_mode="r")
    return found


def rows_of(place: Place, number: int) -> Iterator[tuple[str, str]]:
    """Text and place of each document of a unit, in order."""
    with pq.ParquetFile(place.text(number)) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            yield from zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True)
