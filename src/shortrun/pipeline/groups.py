"""Duplicates over all units, in bounded memory: which documents are kept, and which belong together.

Fingerprints stay on disk. One column at a time is sorted, in as many parts as keep a part under `MOST_ROWS`; arrays with a
number for each document are files that are mapped into memory. Documents are numbered in the order of the units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shortrun.pipeline.fingerprints import BANDS, EXACT
from shortrun.pipeline.work import Place, fingerprints_of

MOST_ROWS = 1 << 22
"""Documents whose hashes are sorted at once: 16 bytes each, some three times over."""
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """All documents that the steps left, by number."""

    place: Place
    starts: tuple[int, ...]
    """The number of each unit's first document, and at the end how many there are."""
    inputs: tuple[int, ...]
    """Which input each unit is of."""

    @property
    def documents(self) -> int:
        return self.starts[-1]

    def unit_of(self, document: int) -> int:
        return int(np.searchsorted(self.starts, document, side="right")) - 1

    def column(self, unit: int, column: int) -> NDArray[np.uint64]:
        return np.ascontiguousarray(fingerprints_of(self.place, unit)[:, column])

    def ranges(self) -> Iterator[tuple[int, slice]]:
        """Each unit that has documents, and their numbers."""
        for unit, (start, stop) in enumerate(pairwise(self.starts)):
            if start < stop:
                yield unit, slice(start, stop)

    def array(self, name: str, kind: type[np.generic]) -> NDArray[np.generic]:
        """An array with a number for each document, all 0, in a file."""
        path: Path = self.place.folder / f"{name}.npy"
        if not self.documents:
            return np.zeros(0, kind)
        return np.lib.format.open_memmap(path, "w+", kind, (self.documents,))


def first_equal(corpus: Corpus, most_rows: int = MOST_ROWS) -> Numbers:
    """For each document the number of the first one that is equal to it: its own, where it is that one."""
    firsts = _own_numbers(corpus, "equal")
    for others, first in _equal(corpus, EXACT, None, most_rows):
        firsts[others] = first
    return firsts


def near_groups(corpus: Corpus, bands: int, firsts: Numbers, most_rows: int = MOST_ROWS) -> Numbers:
    """For each document the number of the first one of its group: those that share a band, and all these share one with.

    Documents that are equal to an earlier one count as that one.
    """
    groups = _own_numbers(corpus, "groups")
    for band in range(bands):
        for others, first in _equal(corpus, BANDS + band, firsts, most_rows):
            _join(groups, others, first)
    for _, numbers in corpus.ranges():
        groups[numbers] = groups[firsts[numbers]]
    return groups


def _own_numbers(corpus: Corpus, name: str) -> Numbers:
    made = corpus.array(name, np.int64)
    for _, numbers in corpus.ranges():
        made[numbers] = np.arange(numbers.start, numbers.stop)
    return made  # type: ignore[return-value]


def _equal(corpus: Corpus, column: int, firsts: Numbers | None, most_rows: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Documents with the same value in a column as an earlier one, and the first such one of each.

    firsts: where it is given, only documents that are their own first are looked at.
    """
    parts = max(1, -(-corpus.documents // most_rows))
    for part in range(parts):
        keys, numbers = _part(corpus, column, firsts, part, parts)
        order = np.argsort(keys, kind="stable")  # so that equal ones stay in order
        keys, numbers = keys[order], numbers[order]
        same = np.zeros(len(keys), bool)
        same[1:] = keys[1:] == keys[:-1]
        if same.any():
            begins = np.maximum.accumulate(np.where(same, 0, np.arange(len(keys))))
            yield numbers[same], numbers[begins[same]]


def _part(
    corpus: Corpus, column: int, firsts: Numbers | None, part: int, parts: int
) -> tuple[NDArray[np.uint64], Numbers]:
    keys: list[NDArray[np.uint64]] = []
    numbers: list[Numbers] = []
    for unit, inside in corpus.ranges():
        found = corpus.column(unit, column)
        own = np.arange(inside.start, inside.stop)
        wanted = found % np.uint64(parts) == part if parts > 1 else np.ones(len(found), bool)
        if firsts is not None:
            wanted &= firsts[inside] == own
        keys.append(found[wanted])
        numbers.append(own[wanted])
    return _joined(keys, np.uint64), _joined(numbers, np.int64)


def _joined(arrays: Sequence[NDArray[np.generic]], kind: type[np.generic]) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate(arrays) if arrays else np.zeros(0, kind)


def _join(groups: Numbers, others: Numbers, first: Numbers) -> None:
    """Joins the groups of pairs of documents: all of a group then point at its first document."""
    while True:
        one, other = groups[others], groups[first]
        apart = one != other
        if not apart.any():
            return
        one, other, others, first = one[apart], other[apart], others[apart], first[apart]
        np.minimum.at(groups, np.maximum(one, other), np.minimum(one, other))
        _shorten(groups)


def _shorten(groups: Numbers) -> None:
    """Lets every document point at the first one of its group, which points at itself."""
    changed = True
    while changed:
        changed = False
        for start in range(0, len(groups), MOST_ROWS):
            now = np.asarray(groups[start : start + MOST_ROWS])
            after = groups[now]
            if not np.array_equal(now, after):
                groups[start : start + MOST_ROWS] = after
                changed = True
