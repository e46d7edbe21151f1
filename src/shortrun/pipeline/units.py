"""Units: the pieces of work that inputs are cut into, the same whatever the number of workers.

A file of lines is cut at line breaks, a Parquet file or a hub data set at rows. Small files go together. A .csv, .tsv or
compressed file can't be entered in the middle, so that it is one unit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shortrun.disk import file_sha256
from shortrun.pipeline.corpus_file import Input
from shortrun.pipeline.files import FoundFile
from shortrun.text.files import most_unfolded

BLOCK = 1 << 20
MOST_FILES = 1_000
"""Files that are documents in one unit."""


@dataclass(frozen=True)
class Unit:
    """A piece of work: some files as a whole, or a range of one."""

    input: int
    """Which input of the corpus file."""
    kind: str
    """"files", "lines", "rows", "whole" or "hub"."""
    files: tuple[str, ...]
    """Names below the root; of a hub data set its name."""
    start: int = 0
    stop: int = 0
    """The range: bytes of lines, rows of tables."""
    first: int = 1
    """The number of the first line or row, counted from 1."""
    bytes: int = 0
    """About how much there is to read, to say how long it will take."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Planned:
    """One file: its fingerprint, and the units that it makes."""

    name: str
    bytes: int
    sha256: str
    units: tuple[Unit, ...]


def plan_file(root: Path, found: FoundFile, about: Input, unit_bytes: int) -> Planned:
    """Reads a file once: its sha256, and where it is cut."""
    path = root / found.name
    size = path.stat().st_size
    if found.is_document:
        return Planned(found.name, size, file_sha256(path), ())
    if found.kind == ".parquet":
        return Planned(found.name, size, file_sha256(path), tuple(_rows(path, found, about, unit_bytes)))
    if found.compressed or found.kind in (".csv", ".tsv"):
        whole = Unit(found.input, "whole", (found.name,), bytes=size)
        return Planned(found.name, size, file_sha256(path), (whole,))
    sha256, units = _lines(path, found, unit_bytes)
    return Planned(found.name, size, sha256, tuple(units))


def grouped(planned: list[Planned], input: int, unit_bytes: int) -> Iterator[Unit]:
    """Units of files that are documents each, some at a time."""
    names: list[str] = []
    size = 0
    for each in planned:
        if names and (size + each.bytes > unit_bytes or len(names) == MOST_FILES):
            yield Unit(input, "files", tuple(names), bytes=size)
            names, size = [], 0
        names.append(each.name)
        size += each.bytes
    if names:
        yield Unit(input, "files", tuple(names), bytes=size)


def _rows(path: Path, found: FoundFile, about: Input, unit_bytes: int) -> Iterator[Unit]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, MemoryError, OverflowError):  # the reader says so, and counts it
        yield Unit(found.input, "rows", (found.name,), 0, 1, bytes=path.stat().st_size)
        return
    rows, stored = file.metadata.num_rows, path.stat().st_size
    place = file.schema_arrow.names.index(about.column)
    size = sum(
        file.metadata.row_group(group).column(place).total_uncompressed_size
        for group in range(file.metadata.num_row_groups)
    )
    size = min(max(size, 0), most_unfolded(stored))  # beyond that the reader ends
    yield from ranges(found.input, "rows", found.name, max(rows, 0), size, unit_bytes)


def ranges(input: int, kind: str, name: str, rows: int, size: int, unit_bytes: int) -> Iterator[Unit]:
    """Units of about `unit_bytes` over the rows of a table."""
    pieces = max(1, -(-size // unit_bytes))
    cuts = [rows * piece // pieces for piece in range(pieces + 1)]
    for start, stop in pairwise(cuts):
        if start < stop or rows == 0:
            yield Unit(input, kind, (name,), start, stop, start + 1, size // pieces)


def _lines(path: Path, found: FoundFile, unit_bytes: int) -> tuple[str, list[Unit]]:
    """The file's sha256 and its units, which end at line breaks."""
    digest, units = hashlib.sha256(), []
    start = at = lines = 0
    first = 1
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if at + len(block) - start >= unit_bytes and (end := block.rfind(b"\n")) >= 0:
                stop = at + end + 1
                lines += block.count(b"\n", 0, end + 1)
                units.append(Unit(found.input, "lines", (found.name,), start, stop, first, stop - start))
                start, first = stop, 1 + lines
                lines += block.count(b"\n", end + 1)
            else:
                lines += block.count(b"\n")
            at += len(block)
    if at > start:
        units.append(Unit(found.input, "lines", (found.name,), start, at, first, at - start))
    return digest.hexdigest(), units
