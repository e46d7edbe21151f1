"""Gopher's limits on repetition inside a document (Rae et al. 2021, arXiv 2112.11446, table A1).

Characters of words are counted without the spaces between them, as in the published re-implementations, and runs of repeated
words that overlap count once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from shortrun.pipeline import corpus_file
from shortrun.pipeline.steps import Rejected
from shortrun.pipeline.text import Text


class Repetition:
    """Repeated lines, paragraphs and runs of words."""

    name = "repetition"
    about = "Gopher's limits on repetition (arXiv 2112.11446, table A1)"

    def __init__(self, limits: corpus_file.Repetition) -> None:
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
        words = text.words
        for length, limit in enumerate(limits.top, 2):
            if (share := _top(words, length) / size) > limit:
                return Rejected(f"one run of {length} words", f"{share:.0%} of the characters")
        if not limits.repeated or not _may_repeat(words, 5):
            return text
        for length, limit in enumerate(limits.repeated, 5):
            repeated = _repeated(words, length)
            if repeated / size > limit:
                return Rejected(f"repeated runs of {length} words", f"{repeated / size:.0%} of the characters")
            if not repeated:  # no longer run is repeated either
                break
        return text


def _top(words: Sequence[str], length: int) -> int:
    """Characters in all places of the most frequent run of `length` words; 0 where none stands twice."""
    counts = Counter(zip(*(words[start:] for start in range(length)), strict=False))
    if not counts:
        return 0
    most = max(counts.values())
    if most == 1:
        return 0
    return most * max(sum(map(len, run)) for run, count in counts.items() if count == most)


def _may_repeat(words: Sequence[str], length: int) -> bool:
    """Whether any run of `length` words stands twice."""
    runs = list(zip(*(words[start:] for start in range(length)), strict=False))
    return len(set(runs)) < len(runs)


def _repeated(words: Sequence[str], length: int) -> int:
    """Characters in runs of `length` words that stood before; a run begins behind the end of the last one."""
    seen: set[tuple[str, ...]] = set()
    characters = at = 0
    while at + length <= len(words):
        run = tuple(words[at : at + length])
        if run in seen:
            characters += sum(map(len, run))
            at += length
        else:
            seen.add(run)
            at += 1
    return characters
