"""Gopher's limits on repetition inside a document (Rae et al. 2021, arXiv 2112.11446, table A1).

Characters of words are counted without the spaces between them, as in the published re-implementations, and runs of repeated
words that overlap count once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shortrun.pipeline import rules
from shortrun.pipeline.steps import Rejected
from shortrun.pipeline.text import Text

FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""An odd number with no pattern, by which the words of a run become one number."""


class Repetition:
    """Repeated lines, paragraphs and runs of words."""

    name = "repetition"
    about = "Gopher's limits on repetition (arXiv 2112.11446, table A1)"

    def __init__(self, limits: rules.Repetition) -> None:
        self._limits = limits

    def __call__(self, text: Text) -> Text | Rejected:
        limits, size = self._limits, max(len(text), 1)
        for what, parts, most, most_characters in (
            ("paragraphs", text.paragraphs, limits.paragraphs, limits.paragraph_characters),
            ("lines", text.lines, limits.lines, limits.line_characters),
        ):
            once = set(parts)
            if len(once) == len(parts):
                continue
            if (share := 1 - len(once) / len(parts)) > most:
                return Rejected(f"repeated {what}", f"{share:.0%}")
            if (share := (sum(map(len, parts)) - sum(map(len, once))) / size) > most_characters:
                return Rejected(f"characters in repeated {what}", f"{share:.0%}")
        runs = _Runs(text.words)
        for length, limit in enumerate(limits.top, 2):
            if (share := runs.most_frequent(length) / size) > limit:
                return Rejected(f"one run of {length} words", f"{share:.0%} of the characters")
        for length, limit in enumerate(limits.repeated, 5):
            found = runs.repeated(length, limit * size)
            if found is None:  # no longer run is repeated either
                break
            if (share := found / size) > limit:
                return Rejected(f"repeated runs of {length} words", f"{share:.0%} of the characters")
        return text


class _Runs:
    """Runs of words in a row, as numbers."""

    def __init__(self, words: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        self._words_W = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.uint64, len(words))
        self._ends_W = np.concatenate([[0], np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))])

    def _runs(self, length: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """A number for each run of that length, the same for the same words, and its characters."""
        count = max(0, len(self._words_W) - length + 1)
        keys = np.zeros(count, np.uint64)
        for at in range(length):
            keys = keys * FACTOR + self._words_W[at : at + count]
        return keys, self._ends_W[length : length + count] - self._ends_W[:count]

    def most_frequent(self, length: int) -> int:
        """Characters in all places of the most frequent run; 0 where none stands twice."""
        keys, characters = self._runs(length)
        if not len(keys):
            return 0
        _, first, counts = np.unique(keys, return_index=True, return_counts=True)
        most = int(counts.max())
        return most * int(characters[first[counts == most]].max()) if most > 1 else 0

    def repeated(self, length: int, limit: float) -> int | None:
        """Characters in runs that stood before; a run begins behind the end of the last one. None where no run stands twice.

        Where they can't be above the limit, what is returned is only a bound that is not above it either.
        """
        keys, characters = self._runs(length)
        first = np.unique(keys, return_index=True)[1]
        if len(first) == len(keys):
            return None
        again = int(characters.sum() - characters[first].sum())
        if again <= limit:  # with runs that overlap counted each
            return again
        seen: set[int] = set()
        found = at = 0
        of_each = characters.tolist()
        listed = keys.tolist()
        while at < len(listed):
            if listed[at] in seen:
                found += of_each[at]
                at += length
            else:
                seen.add(listed[at])
                at += 1
        return found
