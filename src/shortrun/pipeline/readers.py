"""Reading a unit: its records one at a time, in bounded memory; damaged ones are named instead."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from shortrun.errors import first_line
from shortrun.pipeline.corpus_file import Input
from shortrun.pipeline.files import COMPRESSED, PAGES, header_of
from shortrun.pipeline.hub import hub_rows
from shortrun.pipeline.records import Damage, Record
from shortrun.pipeline.units import Unit
from shortrun.text.files import most_unfolded

BLOCK = 1 << 20
PACKED_BLOCK = 1 << 14
"""Of a compressed file less is read at once, because a damaged block is lost as a whole."""
AT_ONCE = 16
"""Rows of a table in memory at any one time: each may be as long as a document may be."""
Found = Iterator[Record | Damage]


def read_unit(unit: Unit, about: Input, root: Path, most_bytes: int) -> Found:
    """The records of a unit in order. A damaged file gives what can be read of it, then the damage."""
    match unit.kind:
        case "files":
            for name in unit.files:
                yield from _file(root / name, name, about, most_bytes)
        case "rows":
            yield from _guarded(unit.files[0], _rows(root / unit.files[0], unit, about, most_bytes))
        case "hub":
            rows = hub_rows(about, unit.start, unit.stop)
            for number, value in enumerate(rows, unit.first):
                yield _value(f"{unit.files[0]}, row {number}", value, about, most_bytes)
        case _:
            yield from _guarded(unit.files[0], _lines_of(root / unit.files[0], unit, about, most_bytes))


def _guarded(name: str, records: Found) -> Found:
    try:
        yield from records
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, MemoryError, OverflowError) as error:
        yield Damage(name, "damaged file", first_line(error))


def _file(path: Path, name: str, about: Input, most_bytes: int) -> Found:
    """A file that is a document."""
    compressed = COMPRESSED.get(path.suffix.lower())
    html = about.kind == "html" or any(suffix.lower() in PAGES for suffix in path.suffixes)
    try:
        with pa.input_stream(str(path), compression=compressed) as stream:
            content = stream.read(most_bytes + 1)
    except OSError as error:
        yield Damage(name, "damaged file", first_line(error))
        return
    if len(content) > most_bytes:
        yield Damage(name, "too long", f"more than {most_bytes:,} bytes")
    elif html:
        yield Record(name, content, True)
    elif _looks_binary(content[:65536]):
        yield Damage(name, "binary file", "it does not look like text")
    else:
        yield _text(name, content.replace(b"\r\n", b"\n"), about, False)


def _looks_binary(head: bytes) -> bool:
    return head.count(0) > 0.1 * len(head)


def _text(place: str, content: bytes, about: Input, html: bool) -> Record:
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return Record(place, content.decode(about.encoding), html)
    except UnicodeDecodeError:
        text = content.decode(about.encoding, errors="replace")
        return Record(place, text, html, text.count("\ufffd"))


def _value(place: str, value: Any, about: Input, most_bytes: int) -> Record | Damage:
    """The value of a column as a record."""
    html = about.kind == "html"
    if value is None:
        return Damage(place, "no text", "the value is missing")
    if isinstance(value, bytes):
        if len(value) > most_bytes:
            return Damage(place, "too long", f"more than {most_bytes:,} bytes")
        return Record(place, value, True) if html else _text(place, value, about, False)
    if not isinstance(value, str):
        return Damage(place, "not text", f"{about.column} holds {str(value)[:100]!r}")
    if len(value) > most_bytes:
        return Damage(place, "too long", f"more than {most_bytes:,} characters")
    return Record(place, value, html)


def _rows(path: Path, unit: Unit, about: Input, most_bytes: int) -> Found:
    """Rows of a Parquet file, some at a time; those before the range are read and thrown away."""
    # a stream of small reads: the file's pages as a whole would be in memory otherwise
    with pq.ParquetFile(path, buffer_size=BLOCK, pre_buffer=False) as file:
        row, groups = 0, []
        begin = None
        for group in range(file.metadata.num_row_groups):
            after = row + file.metadata.row_group(group).num_rows
            if row < unit.stop and after > unit.start:
                groups.append(group)
                begin = row if begin is None else begin
            row = after
        at, unfolded, most = begin or 0, 0, most_unfolded(path.stat().st_size)
        for batch in file.iter_batches(
            batch_size=AT_ONCE, row_groups=groups, columns=[about.column], use_threads=False
        ):
            skipped = max(0, unit.start - at)
            if skipped < len(batch):
                for number, value in enumerate(batch.column(0)[skipped:], at + skipped + 1):
                    if number > unit.stop:
                        return
                    found = _cell(f"{unit.files[0]}, row {number}", value, about, most_bytes)
                    unfolded += 1 + (len(found.content) if isinstance(found, Record) else 0)
                    if unfolded > most:
                        raise OSError(f"it unfolds into more than {most:,} bytes")
                    yield found
            at += len(batch)


def _cell(place: str, value: pa.Scalar, about: Input, most_bytes: int) -> Record | Damage:
    try:
        return _value(place, value.as_py(), about, most_bytes)
    except UnicodeDecodeError as error:
        return Damage(place, "broken UTF-8", str(error))


def _lines_of(path: Path, unit: Unit, about: Input, most_bytes: int) -> Found:
    """Records of a file of lines, of all of it or of a range."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = COMPRESSED.get(suffixes[-1])
    kind = suffixes[-2] if compressed else suffixes[-1]
    csv.field_size_limit(most_bytes)  # an open quotation mark would take in the rest of the file otherwise
    with pa.input_stream(str(path), compression=compressed) as stream:
        if unit.kind == "lines":
            stream.seek(unit.start)
        size = unit.stop - unit.start if unit.kind == "lines" else None
        lines = _lines(stream, size, unit, most_bytes, PACKED_BLOCK if compressed else BLOCK)
        yield from PARSERS[kind](lines, unit, about, kind)


Lines = Iterator[tuple[int, bytes | Damage]]


def _lines(stream: IO[bytes], size: int | None, unit: Unit, most_bytes: int, at_once: int) -> Lines:
    """Numbered lines with their ends; of one that is too long only its damage."""
    number, rest, too_long, unfolded = unit.first, b"", False, 0
    while block := stream.read(at_once if size is None else min(at_once, size)):
        size = None if size is None else size - len(block)
        unfolded += len(block)
        if unfolded > most_unfolded(unit.bytes):
            raise OSError(f"it unfolds into more than {most_unfolded(unit.bytes):,} bytes")
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if too_long or len(line) > most_bytes:
                yield number, _too_long(unit, number, most_bytes)
            else:
                yield number, line + b"\n"
            number, too_long = number + 1, False
        if too_long or len(rest) > most_bytes:
            rest, too_long = b"", True
    if too_long:
        yield number, _too_long(unit, number, most_bytes)
    elif rest:
        yield number, rest


def _too_long(unit: Unit, number: int, most_bytes: int) -> Damage:
    return Damage(f"{unit.files[0]}, line {number}", "too long", f"more than {most_bytes:,} bytes")


def _txt(lines: Lines, unit: Unit, about: Input, _: str) -> Found:
    for number, line in lines:
        if isinstance(line, Damage):
            yield line
        else:
            yield _text(f"{unit.files[0]}, line {number}", line.rstrip(b"\r\n"), about, about.kind == "html")


def _jsonl(lines: Lines, unit: Unit, about: Input, _: str) -> Found:
    for number, line in lines:
        place = f"{unit.files[0]}, line {number}"
        if isinstance(line, Damage):
            yield line
        elif line.strip():
            yield _json_row(place, _text(place, line, about, False), about)


def _json_row(place: str, line: Record, about: Input) -> Record | Damage:
    try:
        row = json.loads(line.content)
    except (ValueError, RecursionError) as error:
        return Damage(place, "not JSON", str(error))
    if not isinstance(row, dict) or about.column not in row:
        return Damage(place, "no such column", f"there is no {about.column} in it")
    value = row[about.column]
    if not isinstance(value, str):
        return Damage(place, "no text" if value is None else "not text", f"{about.column} holds {str(value)[:100]!r}")
    return Record(place, value, about.kind == "html", line.repaired)


def _csv(lines: Lines, unit: Unit, about: Input, kind: str) -> Found:
    """Rows of a .csv or .tsv file. After a damaged row, reading goes on with the line behind it."""
    damaged: list[Damage] = []
    at = unit.first

    def decoded() -> Iterator[str]:
        nonlocal at
        for number, line in lines:
            at = number
            if isinstance(line, Damage):
                damaged.append(line)
            else:
                yield line.decode(about.encoding, errors="replace").removeprefix("\ufeff" if number == 1 else "")

    texts = decoded()
    header, separator = header_of(next(texts, ""), about.column, kind)
    if about.column not in header:
        yield Damage(unit.files[0], "damaged file", f"there is no column {about.column}")
        return
    column = header.index(about.column)
    rows = csv.reader(texts, delimiter=separator, strict=True)
    while True:
        begun = at + 1
        place = f"{unit.files[0]}, line {begun}"
        try:
            row = next(rows)
        except StopIteration:
            yield from damaged
            return
        except csv.Error as error:
            yield Damage(place, "not CSV", str(error))
            continue
        yield from damaged
        damaged.clear()
        if len(row) != len(header):
            if row:
                yield Damage(place, "not CSV", f"{len(row)} fields where the header has {len(header)}")
            continue
        yield Record(place, row[column], about.kind == "html", row[column].count("\ufffd"))


PARSERS: dict[str, Callable[[Lines, Unit, Input, str], Found]] = {
    ".txt": _txt,
    ".md": _txt,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
}
