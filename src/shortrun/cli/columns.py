"""Tables that fit a terminal: headings in several lines, and the runs of a comparison in several tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from shortrun.cli.output import shortened, visible
from shortrun.view.compare_text import Section

LONGEST = 70
"""Letters of a document in a table."""
WORD = 24
"""A word of text may be broken when it is longer than that."""
BETWEEN = 3
"""Columns of the terminal between two of a table."""


def fits(section: Section, width: int) -> bool:
    """Whether a table of so many columns of the terminal can show each number in one line and break no word."""
    return sum(_narrowest(section)) + BETWEEN * len(section.headings) + 1 <= width


def cut(section: Section, width: int) -> Iterator[Section]:
    """The table, or several that fit, each with the first columns and as many of the groups as there is room for."""
    front = range(section.first)
    chosen, at = list(front), section.first
    for group in section.groups:
        more = range(at, at + group)
        if len(chosen) > len(front) and not fits(_of(section, [*chosen, *more]), width):
            yield _of(section, chosen)
            chosen = list(front)
        chosen += more
        at += group
    yield _of(section, chosen) if section.groups else section


def table_of(section: Section, width: int) -> Table:
    """The table, which breaks headings where the terminal has no room for them."""
    table = Table(title=escape(visible(section.title)), title_justify="left", box=SIMPLE)
    cells = [_lengths(section, at) for at in range(len(section.headings))]
    whole = [max(cell_len(heading), *lengths) for heading, lengths in zip(section.headings, cells, strict=True)]
    roomy = sum(whole) + BETWEEN * len(whole) + 1 <= width
    for at, (heading, least, most) in enumerate(zip(section.headings, _narrowest(section), whole, strict=True)):
        if at < section.text:
            table.add_column(escape(heading), min_width=least)
        else:
            table.add_column(escape(heading), justify="right", width=most if roomy else least)
    for row in section.rows:
        first = shortened(visible(row[0]), LONGEST) if section.documents else row[0]
        table.add_row(*map(escape, (first, *row[1:])))
    return table


def _of(section: Section, columns: list[int]) -> Section:
    """The same with some of its columns."""
    rows = [tuple(row[at] for at in columns) for row in section.rows]
    text = sum(at < section.text for at in columns)
    return replace(section, headings=tuple(section.headings[at] for at in columns), rows=rows, text=text)


def _narrowest(section: Section) -> list[int]:
    """How narrow each column can be: as its longest number, and as the longest word of its heading and of its texts."""
    found = []
    for at, heading in enumerate(section.headings):
        words = [cell_len(word) for word in heading.split()]
        if at < section.text:
            texts = _lengths(section, at) if section.documents and at == 0 else _words(section, at)
            found.append(max([min(word, WORD) for word in words + texts], default=0))
        else:
            found.append(max([*words, *_lengths(section, at)], default=0))
    return found


def _lengths(section: Section, at: int) -> list[int]:
    shown = (shortened(visible(row[at]), LONGEST) if section.documents and at == 0 else row[at] for row in section.rows)
    return [cell_len(cell) for cell in shown]


def _words(section: Section, at: int) -> list[int]:
    return [cell_len(word) for row in section.rows for word in row[at].split()]
