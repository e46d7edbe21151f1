"""Documents: texts in order, in Arrow's memory or in a memory-mapped file, never as a list of Python strings."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

AT_ONCE, BYTES_AT_ONCE = 65_536, 2**24
"""Documents that are Python strings at any one time: so many, or fewer that have as many bytes together."""


class Documents(Sequence[str]):
    """Texts in order; a slice of them is a view, unless it has a step.

    A row without a text (None) exists only before cleaning.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> Documents:
        """Takes texts in, a few at a time. A lone surrogate, which is no text, stays one until cleaning has counted it."""
        texts, chunks = iter(texts), []
        while piece := list(itertools.islice(texts, AT_ONCE)):
            encoded = [None if text is None else text.encode("utf-8", "surrogatepass") for text in piece]
            chunks.append(pa.array(encoded, pa.large_binary()))
        return cls(pa.chunked_array(chunks, pa.large_binary()))

    @classmethod
    def open(cls, path: Path) -> Documents:
        """Reads what `save` wrote, without loading it: the file is mapped into memory."""
        with pa.memory_map(str(path)) as source:
            return cls(pa.ipc.open_file(source).read_all().column(0))

    def save(self, path: Path) -> None:
        """Writes them as an Arrow file of one column, "document"."""
        table = pa.table({"document": self.column})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Documents: ...
    def __getitem__(self, index: int | slice) -> str | Documents:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return Documents(self.column.take(pa.array(np.arange(start, stop, step))))
            return Documents(self.column.slice(start, max(stop - start, 0)))
        return str(self.column[index].as_py().decode())

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces():
            yield from piece

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Documents):
            return bool(self.column.equals(other.column))
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def pieces(self, size: int = AT_ONCE) -> Iterator[list[str]]:
        """The texts in order, as lists of at most `size`, and of about BYTES_AT_ONCE bytes at most unless it is one text."""
        for start in range(0, len(self), size):
            some = self.column.slice(start, size)
            part_D = np.cumsum(pc.binary_length(some).to_numpy()) // BYTES_AT_ONCE
            cuts = [0, *(np.flatnonzero(np.diff(part_D)) + 1).tolist(), len(some)]
            for begin, stop in itertools.pairwise(cuts):
                yield [text.decode() for text in some.slice(begin, stop - begin).to_pylist()]

    def rows(self, order: NDArray[np.int64] | None = None) -> Iterator[str | None]:
        """Rows before cleaning, in `order` (as they are, where it is None)."""
        for start in range(0, len(self), AT_ONCE):
            if order is None:
                piece = self.column.slice(start, AT_ONCE)
            else:
                piece = self.column.take(pa.array(order[start : start + AT_ONCE]))
            for text in piece.to_pylist():
                yield None if text is None else text.decode("utf-8", "surrogatepass")

    def joined(self, other: Documents) -> Documents:
        """These, and behind them the others."""
        return Documents(pa.chunked_array([*self.column.chunks, *other.column.chunks], self.column.type))

    def lengths_D(self) -> NDArray[np.int64]:
        """Characters (Unicode code points) of each."""
        lengths: NDArray[np.int64] = pc.utf8_length(self.column.cast(pa.large_string())).to_numpy().astype(np.int64)
        return lengths

    def bytes(self) -> int:
        """UTF-8 bytes of all of them."""
        return int(pc.sum(pc.binary_length(self.column)).as_py() or 0)

    def hashes_D(self) -> NDArray[np.uint64]:
        """64 bits of each, by which equal ones are found: the texts themselves would take their size in memory."""
        made = np.empty(len(self), np.uint64)
        at = 0
        for start in range(0, len(self), AT_ONCE):
            for value in self.column.slice(start, AT_ONCE):
                made[at] = int.from_bytes(hashlib.blake2b(value.as_buffer(), digest_size=8).digest(), "little")
                at += 1
        return made

    def repeated(self) -> int:
        """How many of them stood before."""
        return len(self) - len(np.unique(self.hashes_D()))

    def also_in(self, others: Documents) -> int:
        """How many of them also stand in `others`."""
        return int(self.are_in(others).sum())

    def are_in(self, others: Documents) -> NDArray[np.bool_]:
        """For each of them, whether it also stands in `others`."""
        return np.isin(self.hashes_D(), others.hashes_D())
