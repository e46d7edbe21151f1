"""A record: one document as it stands in an input, or the reason why it can't be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """A document as it was found. Its place is what a person looks it up by, such as "pages.jsonl, line 12"."""

    place: str
    content: str | bytes
    """Text; or of a page the bytes of its file, whose encoding the extraction finds out."""
    html: bool
    repaired: int = 0
    """Broken byte sequences that became U+FFFD."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A record, or the rest of a file, that can't be read."""

    place: str
    reason: str
    """A few words that many places may share."""
    detail: str
