"""Figures as SVG, where nothing can draw them later."""

from __future__ import annotations

from shortrun.report.blocks import Figure
from shortrun.report.extra import needs


def figure_svg(figure: Figure) -> str:
    """The figure as SVG."""
    if figure.svg is not None:
        return figure.svg
    return str(needs("vl_convert").vegalite_to_svg(figure.chart))
