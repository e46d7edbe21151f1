"""The techniques: a Markdown card in techniques/ for each that has evidence, a row of techniques/plain.toml for the rest.

`shortrun techniques` lists both. `python -m shortrun.cards docs/techniques.md` writes the rows into the documentation.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

CARDS = Path(__file__).parent / "techniques"
ROWS = CARDS / "plain.toml"
BEGIN, END = "<!-- rows: python -m shortrun.cards docs/techniques.md -->\n\n", "\n<!-- end of rows -->"


@dataclass(frozen=True)
class Technique:
    """What the top of a card says, or a row."""

    name: str
    title: str
    switches: tuple[str, ...]
    """Recipe fields, each alone ("model.dropout") or with the value that this is about ('model.norm = "rmsnorm"')."""
    what: str
    code: str
    """Where in the package the technique is."""
    cost: str
    path: str | None
    """The card; a row has none."""


def techniques() -> list[Technique]:
    """All cards by name, then all rows in the order of the recipe."""
    rows = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    return [
        *(_read_card(path) for path in sorted(CARDS.glob("*.md"))),
        *(Technique(name=name, path=None, **{**row, "switches": tuple(row["switches"])}) for name, row in rows.items()),
    ]


def sections(card: Path) -> dict[str, str]:
    """Heading and text of each part of a card: What, When, Evidence, and Measured here where there is a figure of ours."""
    found = re.findall(
        r"^\*\*([^*]+)\.\*\* (.*?)\s*(?=^\*\*|\Z)", card.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return {heading: " ".join(text.split()) for heading, text in found}


def write_rows(page: Path) -> None:
    """Puts the rows, as a Markdown table, between the markers of a page."""
    lines = ["| technique | switch | what it does | code | cost |", "|---|---|---|---|---|"]
    for row in techniques():
        if row.path is None:
            switches = ", ".join(f"`{switch}`" for switch in row.switches)
            lines.append(f"| {row.title} | {switches} | {row.what} | `{row.code}` | {row.cost} |")
    text = page.read_text(encoding="utf-8")
    begin = text.index(BEGIN) + len(BEGIN)
    page.write_text(text[:begin] + "\n".join(lines) + "\n" + text[text.index(END, begin) :], encoding="utf-8")


def _read_card(path: Path) -> Technique:
    text = path.read_text(encoding="utf-8")
    top = dict(re.findall(r"^- (Switch|Code|Cost): (.*)$", text, flags=re.MULTILINE))
    return Technique(
        name=path.stem,
        title=text.partition("\n")[0].removeprefix("# "),
        switches=tuple(re.findall(r"`([^`]+)`", top["Switch"])),
        what=sections(path)["What"],
        code=top["Code"].strip("`"),
        cost=top["Cost"],
        path=str(path),
    )


if __name__ == "__main__":
    write_rows(Path(sys.argv[1]))
