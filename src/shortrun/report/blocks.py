"""What a report is made of: sections of blocks, the same for every form that it is written in.

All text is plain: each writer escapes it for its own form, so that no document's text can be taken for markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from shortrun.errors import ShortrunError
from shortrun.report.names import anchor, apart
from shortrun.report.plain import plain


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


Block = Paragraph | Items | Table | Figure | Code | RunCard


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, title: str, blocks: Iterable[Block]) -> Section:
        """A section as far as it can be made: where a run can't be read, it ends with a sentence that says why."""
        made: list[Block] = []
        try:
            made.extend(blocks)
        except ShortrunError as error:
            made.append(Paragraph(f"The rest of this section is missing: {error}"))
        return cls(title, tuple(made))


RESERVED = ("index", "charts")
"""Names that a form has for itself: MyST's first page, and HTML's data."""


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
    command: str = ""
    """What makes it again."""

    @cached_property
    def section_names(self) -> tuple[str, ...]:
        """Of each section, for files and links."""
        return tuple(apart((anchor(section.title) for section in self.sections), RESERVED))

    @cached_property
    def run_names(self) -> dict[str, str]:
        """By the name of each run that has a card, what links to it go to."""
        runs = [block.name for section in self.sections for block in section.blocks if isinstance(block, RunCard)]
        names = apart((anchor("run", run) for run in runs), (*RESERVED, *self.section_names))
        return dict(zip(runs, names, strict=True))

    @property
    def figures(self) -> tuple[Figure, ...]:
        return tuple(block for section in self.sections for block in section.blocks if isinstance(block, Figure))

    def as_dict(self) -> dict[str, Any]:
        """What `shortrun report --json` writes: the text as it stands, and the numbers behind it."""
        kinds = {
            "title": self.title,
            "summary": self.summary,
            "date": self.date,
            "command": self.command,
            "sections": [
                {
                    "title": section.title,
                    "blocks": [{"kind": type(block).__name__.lower(), **asdict(block)} for block in section.blocks],
                }
                for section in self.sections
            ],
        }
        told: dict[str, Any] = plain({**kinds, "data": self.data})
        return told


def figures_apart(sections: Iterable[Section]) -> tuple[Section, ...]:
    """The same sections, in which no two figures have the same name."""
    sections = tuple(sections)
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    names = iter(apart(figure.name for figure in figures))
    return tuple(
        Section(
            section.title,
            tuple(replace(block, name=next(names)) if isinstance(block, Figure) else block for block in section.blocks),
        )
        for section in sections
    )


NUMBER = re.compile(r"[+\-−]?[\d.,]+(e[+-]?\d+)?( ?[%MkGs]| ± .*| to .*| \(.*\))?")


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, its unit and its spread with it; a dash stands for one that is not known."""
    return cell in ("", "-", "–") or NUMBER.fullmatch(cell) is not None
