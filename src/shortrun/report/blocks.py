"""What a report is made of: sections of blocks, the same for every form that it is written in.

All text is plain: each writer escapes it for its own form, so that no document's text can be taken for markup.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from shortrun.report.names import anchor


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Items:
    """A list, each item with a head in bold."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    @property
    def right(self) -> tuple[bool, ...]:
        """For each column, whether its cells are numbers, which stand on the right."""
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.headings)
        return tuple(bool(column) and all(map(_is_number, column)) for column in columns)


@dataclass(frozen=True)
class Figure:
    """A chart as Vega-Lite's data, or a drawing as SVG."""

    name: str
    """Letters, digits and dashes; the name of its file."""
    caption: str
    chart: dict[str, Any] | None = None
    svg: str | None = None
    runs: tuple[str, ...] = ()
    """The names of the runs that it is drawn from."""
    command: str = ""
    """What draws it again."""


@dataclass(frozen=True)
class Code:
    """Commands, or lines that keep their spaces."""

    text: str


@dataclass(frozen=True)
class RunCard:
    """One of the report's runs; figures link to it."""

    name: str
    facts: tuple[tuple[str, str], ...]
    command: str
    """What repeats it."""

    @property
    def anchor(self) -> str:
        return anchor("run", self.name)


Block = Paragraph | Items | Table | Figure | Code | RunCard


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    summary: str
    """What a person takes away who reads no further."""
    date: str
    sections: tuple[Section, ...]
    data: dict[str, Any] = field(default_factory=dict)
    """The numbers behind it, by the runs' and studies' names."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        return tuple(block for section in self.sections for block in section.blocks if isinstance(block, Figure))

    def as_dict(self) -> dict[str, Any]:
        """What `shortrun report --json` writes: the text as it stands, and the numbers behind it."""
        kinds = {
            "title": self.title,
            "summary": self.summary,
            "date": self.date,
            "sections": [
                {
                    "title": section.title,
                    "blocks": [{"kind": type(block).__name__.lower(), **asdict(block)} for block in section.blocks],
                }
                for section in self.sections
            ],
        }
        return {**kinds, "data": self.data}


NUMBER = re.compile(r"[+\-−]?[\d.,]+(e[+-]?\d+)?( ?[%MkGs]| ± .*| to .*| \(.*\))?")


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, its unit and its spread with it; a dash stands for one that is not known."""
    return cell in ("", "-", "–") or NUMBER.fullmatch(cell) is not None
