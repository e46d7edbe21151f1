"""The technique cards: one Markdown page per technique, in techniques/, read for `shortrun techniques`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CARDS = Path(__file__).parent / "techniques"


@dataclass(frozen=True)
class Card:
    """What a card says at its top."""

    name: str
    title: str
    switches: tuple[str, ...]
    """Recipe fields, each alone ("model.dropout") or with the value that the card is about ('model.norm = "rmsnorm"')."""
    code: str
    """Where in the package the technique is."""
    cost: str


def technique_cards() -> list[Card]:
    """All cards, by name."""
    return [_read(path) for path in sorted(CARDS.glob("*.md"))]


def _read(path: Path) -> Card:
    text = path.read_text(encoding="utf-8")
    top = dict(re.findall(r"^- (Switch|Code|Cost): (.*)$", text, flags=re.MULTILINE))
    return Card(
        name=path.stem,
        title=text.partition("\n")[0].removeprefix("# "),
        switches=tuple(re.findall(r"`([^`]+)`", top["Switch"])),
        code=top["Code"].strip("`"),
        cost=top["Cost"],
    )
