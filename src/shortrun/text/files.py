"""Reading a column of text from a file: .parquet, .csv, .tsv, .jsonl, .txt, each also .gz.

A file that can't be what its name says is refused with a sentence. Broken UTF-8 in text files becomes U+FFFD and is
counted: a few bad bytes should not cost a corpus, and nothing is lost silently. A small file that unfolds into a huge one is
refused while it does, because its memory has to be bounded by its size.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import hashlib
import io
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shortrun.errors import UserError, did_you_mean, first_line
from shortrun.limits import shortened
from shortrun.text.documents import Documents

BINARY_SHARE = 0.1
"""A text file in whose first 64 KiB more than this share of bytes can't be text is taken for binary."""


UNFOLDED, TIMES = 2**26, 50
"""A file may unfold into 64 MiB, or into so many times its own size. Text shrinks to a third or a tenth when it is compressed."""
ROWS_AT_ONCE = 16
"""Of a Parquet file, which may hold one long text once and name it in every row; more at once are no faster."""
SHOWN = 100
"""Characters of a value that a sentence shows."""


def most_unfolded(stored: int) -> int:
    """The bytes that a file of so many may unfold into."""
    return max(UNFOLDED, TIMES * stored)


def read_column(path: Path, column: str, counts: Counter[str]) -> tuple[Documents, str]:
    """Every row of the column, in order, and the file's sha256. `counts` gains the number of broken UTF-8 sequences."""
    read = _reader(path)
    require_file(path)
    stored = path.read_bytes()
    content = _unzipped(path, stored) if path.suffix.lower() == ".gz" else stored
    if not content.removeprefix(codecs.BOM_UTF8).strip():
        raise UserError(f"{path} is empty")
    return Documents.of(read(path, content, column, counts)), hashlib.sha256(stored).hexdigest()


def require_file(path: Path) -> None:
    """Raises UserError unless `path` is a file of a kind that can be read; looks at its name and existence only."""
    if path.is_dir():
        raise UserError(
            f'{path} is a folder; data.path takes files, or with data.source = "corpus" a folder that `shortrun data prepare` made'
        )
    _reader(path)
    if not path.is_file():
        if not path.parent.is_dir():
            raise UserError(f"There is no file {path}; there is no folder {path.parent}")
        near = difflib.get_close_matches(path.name, sorted(entry.name for entry in path.parent.iterdir()), n=1)
        raise UserError(f"There is no file {path}" + (f"; in {path.parent}, did you mean '{near[0]}'?" if near else ""))


def _reader(path: Path) -> Callable[[Path, bytes, str, Counter[str]], Iterator[str | None]]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes or [""])[-1]
    if kind not in READERS:
        raise UserError(
            f"{path}: files of this kind can't be read; {did_you_mean(kind, READERS)} (each may also end in .gz)"
        )
    return READERS[kind]


def _unzipped(path: Path, stored: bytes) -> bytes:
    most = most_unfolded(len(stored))
    try:
        with gzip.open(io.BytesIO(stored)) as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}") from None
    if len(content) > most:
        raise _too_large(path, len(stored))
    return content


def _too_large(path: Path, stored: int) -> UserError:
    return UserError(
        f"{path} has {stored:,} bytes and unfolds into more than {most_unfolded(stored):,}, as no text does: it is refused "
        "because that may have no end"
    )


def _text(path: Path, content: bytes, counts: Counter[str]) -> str:
    """The file as text, without a byte order mark."""
    head = content[:65536]
    unlikely = head.count(0) + head.decode("utf-8", errors="replace").count("\ufffd")
    if unlikely > BINARY_SHARE * len(head):
        raise UserError(f"{path} looks like a binary file, not like UTF-8 text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        already = content.count("\ufffd".encode())
        text = content.decode("utf-8-sig", errors="replace")
        counts["invalid_utf8"] += text.count("\ufffd") - already
        return text


def _txt(path: Path, content: bytes, _: str, counts: Counter[str]) -> Iterator[str | None]:
    text, start = _text(path, content, counts), 0
    for end in re.finditer("\r\n|\n|\r", text):
        yield text[start : end.start()]
        start = end.end()
    if start < len(text):
        yield text[start:]


def _csv(path: Path, content: bytes, column: str, counts: Counter[str], delimiter: str = ",") -> Iterator[str | None]:
    csv.field_size_limit(sys.maxsize)  # the default of 128 KiB would refuse a very long document
    text = _text(path, content, counts)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(rows)
        if column not in header and column in next(csv.reader([text.partition("\n")[0]], delimiter=";"), []):
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=";", strict=True)
            header = next(rows)
        index = _index(path, column, header)
        for row in rows:
            if not row:  # an empty line
                counts["blank"] += 1
            elif len(row) != len(header):
                raise UserError(f"{path}, line {rows.line_num}: {len(row)} fields where the header has {len(header)}")
            else:
                yield row[index]
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}") from None


def _tsv(path: Path, content: bytes, column: str, counts: Counter[str]) -> Iterator[str | None]:
    return _csv(path, content, column, counts, delimiter="\t")


def _jsonl(path: Path, content: bytes, column: str, counts: Counter[str]) -> Iterator[str | None]:
    # not a StringIO's lines: those end at a lone carriage return too
    lines = re.finditer("[^\n]*(?:\n|$)", _text(path, content, counts))
    for number, line in enumerate((found[0] for found in lines), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # the latter from brackets nested without end
            raise UserError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f'{path}, line {number}: expected an object such as {{"{column}": "..."}}')
        if column not in row:
            _index(path, column, list(row), f", line {number}")
        yield _string(row[column], f"{path}, line {number}", column)


def _parquet(path: Path, content: bytes, column: str, _: Counter[str]) -> Iterator[str | None]:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = file.schema_arrow.names
        _index(path, column, names)
        if names.count(column) > 1:
            raise UserError(f"{path}: there are {names.count(column)} columns named '{column}' (data.column)")
        kind = file.schema_arrow.field(column).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise UserError(f"{path}: column '{column}' holds {kind}, not text")
        most, unfolded = most_unfolded(len(content)), file.metadata.num_rows
        if unfolded > most:  # a row takes a byte at least
            raise _too_large(path, len(content))
        for batch in file.iter_batches(columns=[column], batch_size=ROWS_AT_ONCE):
            for text in batch.column(0).to_pylist():
                unfolded += len(text or "")
                if unfolded > most:
                    raise _too_large(path, len(content))
                yield text
    except (pa.ArrowException, OSError, MemoryError, OverflowError) as error:
        raise UserError(f"{path} is not a whole Parquet file: {first_line(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: column '{column}' holds broken UTF-8: {error}") from None


def _index(path: Path, column: str, names: list[str], where: str = "") -> int:
    if column not in names:
        raise UserError(f"{path}{where}: there is no column '{column}' (data.column); {did_you_mean(column, names)}")
    return names.index(column)


def _string(value: Any, where: str, column: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: '{column}' holds {shortened(value, SHOWN)}, not text")
    return value


READERS: dict[str, Callable[[Path, bytes, str, Counter[str]], Iterator[str | None]]] = {
    ".txt": _txt,
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
