"""Figures as SVG or PNG, where nothing can draw them later."""

from __future__ import annotations

import re

from shortrun.report.blocks import Figure
from shortrun.report.extra import needs

PATH = re.compile(r'(?<= d=")[^"]+')
"""The shape of a line or an area."""
LONG_NUMBER = re.compile(r"(\.\d\d)\d+")
"""Two digits of a pixel are more than any screen or printer has."""
SHARPNESS = 2
"""Pixels of a picture for one of the page, as most phones have them."""


def figure_svg(figure: Figure) -> str:
    """The figure as SVG."""
    if figure.svg is not None:
        return figure.svg
    drawn = str(needs("vl_convert").vegalite_to_svg(figure.chart))
    return PATH.sub(lambda path: LONG_NUMBER.sub(r"\1", path[0]), drawn)


def figure_png(figure: Figure) -> bytes:
    """A chart as a picture."""
    return bytes(needs("vl_convert").vegalite_to_png(figure.chart, scale=SHARPNESS))
