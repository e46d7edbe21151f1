"""Which files the inputs of a corpus file mean, in a fixed order."""

from __future__ import annotations

import csv
import difflib
import glob
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shortrun.errors import UserError, counted, did_you_mean
from shortrun.pipeline.corpus_file import Input

TEXTS = (".txt", ".md")
PAGES = (".html", ".htm", ".xhtml")
TABLES = (".parquet", ".csv", ".tsv", ".jsonl")
KINDS = (*TEXTS, *PAGES, *TABLES)
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


@dataclass(frozen=True)
class FoundFile:
    """A file of an input."""

    input: int
    name: str
    """Below the root, with forward slashes; or absolute."""
    kind: str
    """Its ending, without that of a compressed file."""
    compressed: str | None
    is_document: bool
    """Whether it holds one document; otherwise it holds many."""


@dataclass
class FoundFiles:
    """All files of the inputs, and those that lie beside them and can't be read."""

    files: list[FoundFile] = field(default_factory=list)
    not_read: Counter[str] = field(default_factory=Counter)
    """How many of each other ending lay in the folders."""


def find_files(inputs: Sequence[Input], root: Path, leave_out: Path) -> FoundFiles:
    """The files of all inputs; those below `leave_out`, where the corpus goes, are none of them.

    Raises UserError with every path that is not there and every file that is no file of its kind at a first look.
    """
    found = FoundFiles()
    problems = [] if root.is_dir() else [f"root: there is no folder {root}"]
    seen: set[Path] = set()
    for number, about in enumerate(inputs):
        for name in about.path if not problems or root.is_dir() else ():
            try:
                paths, asked = _expanded(root, name)
            except UserError as error:
                problems.append(f"input {about.title}: {error}")
                continue
            for path in paths:
                whole = path.resolve()
                if whole.is_relative_to(leave_out.resolve()) or whole in seen:
                    continue
                if not _can_be_named(path):
                    found.not_read["name that is not UTF-8"] += 1
                elif kind := _kind(path):
                    seen.add(whole)
                    found.files.append(_file(number, about, root, path, *kind))
                elif asked:
                    near = did_you_mean(path.suffix, KINDS)
                    problems.append(f"input {about.title}: {path}: files of this kind can't be read; {near}")
                else:
                    found.not_read[path.suffix or path.name] += 1
        if about.path and not problems and not any(file.input == number for file in found.files):
            problems.append(f"input {about.title}: there is no file to read in {', '.join(about.path)}")
    problems += _looked_at(found.files, inputs, root)
    if problems:
        raise UserError("\n  ".join([f"{counted(len(problems), 'input')} can't be read:", *problems]))
    return found


def _expanded(root: Path, name: str) -> tuple[list[Path], bool]:
    """The files that a path, a folder or a glob means; and whether it named one file."""
    path = root / name
    if path.is_file():
        return [path], True
    if path.is_dir():
        found = (each for each in path.rglob("*") if each.is_file())
        hidden = (each for each in found if not any(part.startswith(".") for part in each.relative_to(path).parts))
        return sorted(hidden, key=lambda each: each.as_posix()), False
    if any(sign in name for sign in "*?["):
        matches = [Path(each) for each in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        files = sorted((each for each in matches if each.is_file()), key=lambda each: each.as_posix())
        if not files:
            raise UserError(f"no file matches {path}")
        return files, False
    if not path.parent.is_dir():
        raise UserError(f"there is no file {path}; there is no folder {path.parent}")
    near = difflib.get_close_matches(path.name, sorted(each.name for each in path.parent.iterdir()), n=1)
    raise UserError(f"there is no file {path}" + (f"; did you mean '{near[0]}'?" if near else ""))


def _can_be_named(path: Path) -> bool:
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(path: Path) -> tuple[str, str | None] | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = COMPRESSED.get(suffixes[-1]) if suffixes else None
    kind = (suffixes[-2] if len(suffixes) > 1 else "") if compressed else (suffixes or [""])[-1]
    return (kind, compressed) if kind in KINDS and not (compressed and kind == ".parquet") else None


def _file(number: int, about: Input, root: Path, path: Path, kind: str, compressed: str | None) -> FoundFile:
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    is_document = kind in PAGES or (kind in TEXTS and about.document == "file")
    return FoundFile(number, name, kind, compressed, is_document)


def _looked_at(files: Sequence[FoundFile], inputs: Sequence[Input], root: Path) -> Iterator[str]:
    """A sentence for each table whose first look shows no such column; a damaged one is left to the reader."""
    for file in files:
        about, path = inputs[file.input], root / file.name
        names = _columns(path, file, about)
        if names is not None and about.column not in names:
            yield f'input {about.title}: {path}: there is no column "{about.column}"; {did_you_mean(about.column, names)}'


def _columns(path: Path, file: FoundFile, about: Input) -> list[str] | None:
    """The columns of a table; None where the first look finds none."""
    if file.kind == ".parquet":
        try:
            return list(pq.read_schema(path).names)
        except (pa.ArrowException, OSError, MemoryError, OverflowError):
            return None
    if file.kind not in (".csv", ".tsv", ".jsonl"):
        return None
    try:
        with pa.input_stream(str(path), compression=file.compressed) as stream:
            head = stream.read(1 << 20).decode(about.encoding, errors="replace").removeprefix("\ufeff")
    except OSError:
        return None
    line = io.StringIO(head).readline()
    if file.kind == ".jsonl":
        row = _json(line)
        return list(row) if isinstance(row, dict) else None
    return header_of(line, about.column, file.kind)[0] if line.strip() else None


def header_of(line: str, column: str, kind: str) -> tuple[list[str], str]:
    """The columns that the first line of a .csv or .tsv file names, and what separates them: a semicolon, where that finds the column."""
    for separator in ("\t",) if kind == ".tsv" else (",", ";"):
        names = _fields(line, separator)
        if column in names:
            return names, separator
    separator = "\t" if kind == ".tsv" else ","
    return _fields(line, separator), separator


def _fields(line: str, separator: str) -> list[str]:
    """The fields of one line; none where they can't be told."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a field that is longer than the reader allows
        return []


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
