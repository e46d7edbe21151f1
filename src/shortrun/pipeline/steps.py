"""Steps: each looks at one document and lets it pass, changes it or rejects it for a reason; all of it is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shortrun.pipeline.text import Text

MOST_EXAMPLES = 10
"""Examples that are kept of each reason."""
EXAMPLE_CHARACTERS = 400
MOST_REASONS = 200
"""A library's errors could give as many reasons as documents."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a document is left out."""

    reason: str
    """A few words that many documents share."""
    detail: str = ""
    """What was measured in this one."""


class Step(Protocol):
    """One thing that is done to each document."""

    name: str
    about: str
    """What it does, its library and the source of its numbers, for the manifest."""

    def __call__(self, text: Text) -> Text | Rejected: ...


@dataclass
class Reason:
    """How often a step rejected for one reason, and the first of these documents."""

    documents: int = 0
    characters: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, place: str, text: str, size: int, detail: str) -> None:
        self.documents += 1
        self.characters += size
        if len(self.examples) < MOST_EXAMPLES:
            example = {"place": place, "detail": detail, "text": text[:EXAMPLE_CHARACTERS]}
            # what was never repaired may hold lone surrogates, which no file can
            self.examples.append({name: value.encode(errors="replace").decode() for name, value in example.items()})

    def join(self, other: Reason) -> None:
        self.documents += other.documents
        self.characters += other.characters
        self.examples = (self.examples + other.examples)[:MOST_EXAMPLES]


@dataclass
class Tally:
    """What one step did: documents and characters in and out, how many it changed, and why it rejected others.

    Characters that went into the reading of files and out of pages are those of the files: bytes, where they were bytes.
    """

    documents_in: int = 0
    characters_in: int = 0
    documents_out: int = 0
    characters_out: int = 0
    changed: int = 0
    reasons: dict[str, Reason] = field(default_factory=dict)

    def passed(self, before: int, after: int, changed: bool) -> None:
        self.documents_in += 1
        self.characters_in += before
        self.documents_out += 1
        self.characters_out += after
        self.changed += changed

    def rejected(self, why: Rejected, place: str, text: str, size: int) -> None:
        self.documents_in += 1
        self.characters_in += size
        known = why.reason in self.reasons or len(self.reasons) < MOST_REASONS
        self.reasons.setdefault(why.reason if known else "other reasons", Reason()).add(place, text, size, why.detail)

    def join(self, other: Tally) -> None:
        """Adds what the same step did to later documents."""
        self.documents_in += other.documents_in
        self.characters_in += other.characters_in
        self.documents_out += other.documents_out
        self.characters_out += other.characters_out
        self.changed += other.changed
        for name, reason in other.reasons.items():
            self.reasons.setdefault(name, Reason()).join(reason)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Tally:
        """What `dataclasses.asdict` made of one."""
        reasons = {name: Reason(**reason) for name, reason in values["reasons"].items()}
        return cls(**{**values, "reasons": reasons})


class Chain:
    """Steps one after another, with a tally for each."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.tallies = {step.name: Tally() for step in steps}

    def __call__(self, text: Text, place: str) -> Text | None:
        """The document after all steps; None where one of them rejected it."""
        for step in self.steps:
            tally, before = self.tallies[step.name], len(text)
            made = step(text)
            if isinstance(made, Rejected):
                tally.rejected(made, place, text.text, before)
                return None
            tally.passed(before, len(made), made.text != text.text)
            text = made
        return text
