"""Boxes, lines and arrows of a figure, as SVG for light and dark pages, without fonts or scripts from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, MIDDLE, NOTES = 780, 300, 580
"""Of the figure; where the stream runs; where the notes beside it begin. In pixels, as all lengths here."""
PART = 330
"""How wide a part is."""
CHIP, GAP = 22, 5
"""How high a line of a part is, and what lies between two."""
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #1c2530; }
.title { font-size: 16px; font-weight: 600; } .name { font-weight: 600; } .quiet { fill: #5b6775; font-size: 12px; }
.times { font-size: 18px; font-weight: 600; } .paper { fill: #ffffff; } .block { fill: #f3f6f9; stroke: #b9c4d0; }
.part { fill: #ffffff; stroke: #6b7a8c; } .chip { fill: #e9eef4; } .on { fill: #ffe2bd; stroke: #b06a00; }
.line { fill: none; stroke: #3c4a5a; stroke-width: 1.5; } .tie { stroke-dasharray: 5 4; stroke: #6b7a8c; }
.head { fill: #3c4a5a; }
@media (prefers-color-scheme: dark) {
text { fill: #e6ebf1; } .quiet { fill: #9dabba; } .paper { fill: #12161b; } .block { fill: #1a2027; stroke: #3d4a58; }
.part { fill: #232b34; stroke: #8494a6; } .chip { fill: #303b47; } .on { fill: #5c3d0c; stroke: #e0a64a; }
.line { stroke: #b4c1cf; } .tie { stroke: #8494a6; } .head { fill: #b4c1cf; } }
"""


class Chip(NamedTuple):
    """A line of a part."""

    text: str
    on: bool = False
    """Whether the recipe has switched it on: the baseline has it not."""


class Drawing:
    """Shapes, drawn from the top; `y` is where the stream has come to."""

    def __init__(self) -> None:
        self.shapes: list[str] = []
        self.y = 0.0

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        self.shapes.append(f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, kind: str, round: float = 6) -> None:
        size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round:g}"'
        self.shapes.append(f'<rect {size} class="{kind}"/>')

    def path(self, d: str, kind: str = "line", arrow: bool = True) -> None:
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.shapes.append(f'<path d="{d}" class="{kind}"{end}/>')

    def down(self, length: float = 18, x: float = MIDDLE, arrow: bool = True) -> None:
        """The stream goes on downwards."""
        self.path(f"M {x:g} {self.y:g} v {length - arrow:g}", arrow=arrow)
        self.y += length

    def part(
        self, name: str, chips: Sequence[Chip] = (), *, x: float = MIDDLE, width: float = PART, on: bool = False
    ) -> float:
        """A box with its name and lines, its top middle at (x, y); returns where it ends."""
        height = 30 + len(chips) * (CHIP + GAP) + (3 if chips else 0)
        self.rect(x - width / 2, self.y, width, height, "part on" if on else "part")
        self.text(x, self.y + 20, name, "name", "middle")
        for number, chip in enumerate(chips):
            top = self.y + 30 + number * (CHIP + GAP)
            self.rect(x - width / 2 + 10, top, width - 20, CHIP, "chip on" if chip.on else "chip", 4)
            self.text(x, top + 15.5, chip.text, "", "middle")
        return self.y + height

    def after(self, chips: Sequence[Chip], x: float = MIDDLE, width: float = 190) -> None:
        """What is done to what a part gives out, each after an arrow."""
        for chip in chips:
            self.down(14, x)
            self.rect(x - width / 2, self.y, width, CHIP, "chip on" if chip.on else "chip", CHIP / 2)
            self.text(x, self.y + 15.5, chip.text, "", "middle")
            self.y += CHIP

    def plus(self) -> None:
        """Adds to the stream, in a circle whose top is at y."""
        middle = self.y + 11
        self.shapes.append(f'<circle cx="{MIDDLE}" cy="{middle:g}" r="11" class="part"/>')
        self.path(f"M {MIDDLE - 6} {middle:g} h 12 M {MIDDLE} {middle - 6:g} v 12", arrow=False)
        self.y += 22

    def note(self, y: float, *lines: str) -> None:
        for number, line in enumerate(lines):
            self.text(NOTES, y + number * 17, line, "quiet")

    def svg(self, title: str, about: str) -> str:
        height = self.y + 16
        arrow = (
            '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M 0 0 L 8 4 L 0 8 z" class="head"/></marker>'
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
                f'height="{height:g}" role="img">',
                f"<title>{escape(title)}</title><desc>{escape(about)}</desc>",
                f"<style>{STYLE}</style><defs>{arrow}</defs>",
                f'<rect width="{WIDTH}" height="{height:g}" class="paper"/>',
                *self.shapes,
                "</svg>\n",
            ]
        )
