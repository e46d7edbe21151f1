"""Verdicts: what is said of a rule, and on what evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Word = Literal["kept", "broken", "unknown"]


class Finding(NamedTuple):
    """What a check found."""

    verdict: Word
    evidence: str


@dataclass(frozen=True)
class Verdict:
    """What is said of one rule. `unknown` means that it can't be checked, and the evidence says why."""

    rule: str
    verdict: Word
    evidence: str


class Case:
    """Gathers what speaks against a rule and what can't be known, until `finding` weighs it."""

    def __init__(self) -> None:
        self.against: list[str] = []
        self.unsaid: list[str] = []

    def same(self, what: str, wanted: Any, found: Mapping[str, Any]) -> None:
        """Holds that each place says the wanted value; None stands for a place that does not say."""
        others: dict[str, list[str]] = {}
        for where, value in found.items():
            if value is None:
                self.unsaid.append(f"{where} does not say the {what}")
            elif value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
                others.setdefault(shown(value), []).append(where)
        for value, places in others.items():
            says = "says" if len(places) == 1 else "say"
            self.against.append(f"{', '.join(places)} {says} {what} {value}, not {shown(wanted)}")

    def holds(self, condition: bool, otherwise: str) -> None:
        """Takes a sentence as evidence against the rule unless the condition is true."""
        if not condition:
            self.against.append(otherwise)

    def finding(self, evidence: str) -> Finding:
        """Broken if anything speaks against it, unknown if something is unsaid, kept with this evidence otherwise."""
        if self.against:
            return Finding("broken", "; ".join(self.against))
        if self.unsaid:
            return Finding("unknown", "; ".join(self.unsaid))
        return Finding("kept", evidence)


def shown(value: Any) -> str:
    """A value in a sentence: large numbers with commas, long texts cut."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"
