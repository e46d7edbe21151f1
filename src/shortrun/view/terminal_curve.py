"""A small curve for a terminal, drawn in braille: each character holds two by four dots."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BRAILLE = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a character, by row and column (Unicode's block U+2800)."""


def terminal_curve(
    points: Sequence[tuple[float, float]], *, x: str, y: str, width: int = 64, height: int = 10, plain: bool = False
) -> list[str]:
    """The lines of a plot of (x, y) points joined by straight lines; none where there are fewer than two points.

    x, y: what the axes are. width, height: characters of the plot inside its axes. plain: draw it in stars, for an output
    that has no braille.
    """
    if len({at for at, _ in points}) < 2:
        return []
    left, right = min(at for at, _ in points), max(at for at, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    rows, columns = height * 4 - 1, width * 2 - 1
    spread = high - low or 1.0
    dots = [
        (round((at - left) / (right - left) * columns), round((high - value) / spread * rows)) for at, value in points
    ]
    cells = [[0] * width for _ in range(height)]
    for (x0, y0), (x1, y1) in pairwise(dots):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps + 1):
            column, row = round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps)
            cells[row // 4][column // 2] |= DOTS[row % 4][column % 2]
    labels = {0: _number(high), height - 1: _number(low)}
    margin = max(map(len, labels.values()))
    side, corner, floor = ("|", "+", "-") if plain else ("│", "└", "─")
    lines = [f"{'':>{margin}} {y}"]
    for number, cells_of_row in enumerate(cells):
        drawn = "".join(" " if not cell else "*" if plain else chr(BRAILLE + cell) for cell in cells_of_row)
        lines.append(f"{labels.get(number, ''):>{margin}} {side}{drawn}".rstrip())
    lines.append(f"{'':>{margin}} {corner}{floor * width}")
    ends = _number(left), _number(right)
    middle = x.center(width - len(ends[0]) - len(ends[1]))
    lines.append(f"{'':>{margin}}  {ends[0]}{middle}{ends[1]}")
    return lines


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
