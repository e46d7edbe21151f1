"""A report as a PDF: A4, figures as vectors, set by typst, which needs no LaTeX."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from shortrun.disk import write_atomically
from shortrun.errors import UserError
from shortrun.report.blocks import Block, Code, Figure, Items, Paragraph, Report, RunCard, Table
from shortrun.report.extra import needs
from shortrun.report.plain import shown
from shortrun.report.static import figure_svg

PREAMBLE = """
#set document(title: {title})
#set page(paper: "a4", margin: (x: 2cm, y: 2.2cm), numbering: "1 / 1")
#set text(font: ("Libertinus Serif", "DejaVu Sans"), size: 10pt, lang: "en")
#set par(justify: false, leading: 0.62em)
#set heading(numbering: none)
#show heading.where(level: 1): it => block(above: 1.6em, below: 0.8em, sticky: true, it)
#show raw: set text(font: "DejaVu Sans Mono", size: 7.5pt)
#show figure.where(kind: table): set block(breakable: true)
#show figure.where(kind: table): set align(left)
#set figure(gap: 0.8em, numbering: none)
#show figure.caption: set text(size: 8.5pt, fill: rgb("#5b6570"))
#show figure.caption: set align(left)
#set table(stroke: (x, y) => (bottom: 0.4pt + rgb("#d5dae0")), inset: (x: 4pt, y: 3pt))
"""
"""Fonts are those that typst brings along."""
PAGE_CM = (17, 19)
"""The width of a page's text, and the most that a figure may be high."""
SHORT_TABLE = 25
"""Rows up to which a table stands on one page."""
LONG_CODE = 40
"""Lines from which code stands in two columns."""
TABLE_POINTS = ((75, 9), (95, 8), (115, 7), (140, 6), (10_000, 5.5))
"""The size of a table's text, by how many letters its widest row has."""


def write_pdf(report: Report, path: Path) -> None:
    """Writes the PDF, whole or not at all."""
    typst = needs("typst")
    drawn = drawings(report)
    sources = {"main": document(report, drawn).encode()}
    sources |= {f"{name}.svg": svg.encode() for name, svg in drawn.items()}
    try:
        content = typst.compile(sources)
    except RuntimeError as error:
        raise UserError(f"typst can't set {path}: {error}") from None
    write_atomically(path, content)


def drawings(report: Report) -> dict[str, str]:
    """Every figure as SVG, by its name."""
    return {figure.name: figure_svg(figure) for figure in report.figures}


def document(report: Report, drawn: Mapping[str, str]) -> str:
    """The report in typst's language, with figures of these drawings. A table of contents appears where there are more than 6 pages."""
    lines = [
        PREAMBLE.replace("{title}", _text(report.title)),
        f"#text(size: 18pt, weight: 700, {_text(report.title)})",
        f"#par({_text(report.summary)})",
        f'#text(fill: rgb("#5b6570"), {_text(report.date)})',
        "#context if counter(page).final().first() > 6 [#outline(title: none)]",
    ]
    for section in report.sections:
        lines.append(f"#heading(level: 1, {_text(section.title)})")
        for block in section.blocks:
            lines += _block(block, drawn)
    return "\n\n".join(lines) + "\n"


def _block(block: Block, drawn: Mapping[str, str]) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield f"#par({_text(block.text)})"
    elif isinstance(block, Items):
        for head, text in block.items:
            told = f"{_strong(head)} + {_text(': ' + text)}" if text else _strong(head)
            yield f"#list.item({{ {told} }})"
    elif isinstance(block, Code):
        code = f"raw(block: true, {_text(block.text)})"
        yield f"#columns(2, {code})" if block.text.count("\n") > LONG_CODE else f"#{code}"
    elif isinstance(block, Table):
        yield _table(block)
    elif isinstance(block, RunCard):
        yield f"#heading(level: 2, outlined: false, {_text(block.name)})"
        facts = ", ".join(f'text(fill: rgb("#5b6570"), {_text(name)}), {_text(fact)}' for name, fact in block.facts)
        yield f"#grid(columns: (auto, 1fr), column-gutter: 8pt, row-gutter: 4pt, {facts})"
        yield f"#raw(block: true, {_text(block.command)})"
    else:
        yield from _figure(block, drawn[block.name])


def _table(table: Table) -> str:
    rows = [table.headings, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.headings))]
    size = next(points for letters, points in TABLE_POINTS if sum(min(width, 40) for width in widths) <= letters)
    columns = ", ".join("1fr" if width > 24 else "auto" for width in widths)
    align = ", ".join("right" if right else "left" for right in table.right)
    header = ", ".join(_strong(heading) for heading in table.headings)
    cells = ", ".join(_text(cell) for row in table.rows for cell in row)
    drawn = f"table(columns: ({columns},), align: ({align},), table.header({header}), {cells})"
    caption = f", caption: figure.caption(position: top, {_text(table.caption)})" if table.caption else ""
    whole = "show figure: set block(breakable: false)\n " if len(table.rows) <= SHORT_TABLE else ""
    return f"#{{ set text(size: {size}pt)\n {whole}figure(kind: table, align(left, {drawn}){caption}) }}"


def _figure(figure: Figure, svg: str) -> Iterator[str]:
    told = _text(figure.caption)
    if figure.command:
        told += f" + linebreak() + raw({_text(figure.command)})"
    yield f"#figure(image({_text(figure.name + '.svg')}, {_size(svg)}), caption: {{ {told} }})"


def _size(svg: str) -> str:
    """As wide as the page, and no higher than what leaves room for a heading and a caption."""
    root = svg[svg.index("<svg") :].partition(">")[0]
    width, height = (float(re.search(rf'\b{side}="([\d.]+)', root)[1]) for side in ("width", "height"))  # type: ignore[index]
    return "width: 100%" if height / width * PAGE_CM[0] <= PAGE_CM[1] else f"height: {PAGE_CM[1]}cm"


def _strong(text: str) -> str:
    return f"strong({_text(text)})"


def _text(text: str) -> str:
    """A string of typst, in which nothing is markup. Its escapes are JSON's, but for those of characters beyond ASCII."""
    return json.dumps(shown(text), ensure_ascii=False)
