"""A report as one HTML file: no network, interactive charts, readable on a phone and in dark mode."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from shortrun.disk import write_atomically
from shortrun.errors import UserError
from shortrun.report.blocks import Figure, Report
from shortrun.report.extra import needs
from shortrun.report.plain import shown
from shortrun.report.static import figure_png

MOST_BYTES = 3_000_000
"""A page that is sent by mail or opened on a phone should stay below this."""


def write_html(report: Report, path: Path) -> None:
    """Writes the page, whole or not at all; raises UserError where it would be larger than MOST_BYTES."""
    write_atomically(path, html(report).encode())


def html(report: Report) -> str:
    """The page. Text is escaped by jinja2; charts' data stand in a script element that nothing in them can close.

    Where its charts would make it larger than MOST_BYTES, the largest are pictures. Raises UserError where that is not enough.
    """
    charts = {figure.name: figure.chart for figure in report.figures if figure.chart}
    largest = sorted(
        (figure for figure in report.figures if figure.chart), key=lambda each: -len(in_script(each.chart))
    )
    pictures: dict[str, str] = {}
    page = _page(report, charts, pictures)
    for figure in largest:
        if len(page.encode()) <= MOST_BYTES:
            break
        picture = "data:image/png;base64," + b64encode(figure_png(figure)).decode()
        if len(picture) > len(in_script(figure.chart)):
            continue
        pictures[figure.name] = picture
        del charts[figure.name]
        page = _page(report, charts, pictures)
    if (size := len(page.encode())) > MOST_BYTES:
        raise UserError(
            f"The page would have {size / 1e6:.1f} MB, and more than {MOST_BYTES / 1e6:g} is too much for a phone: report on fewer "
            "runs at once, or take --pdf or --myst"
        )
    return page


def _page(report: Report, charts: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    jinja2 = needs("jinja2")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_finalize
    )
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    return str(
        environment.from_string(_file("report.html.jinja")).render(
            report=report,
            style=_file("report.css"),
            script=_file("report.js"),
            library=bundle() if charts else "",
            charts=in_script(charts),
            pictures=pictures,
            drawing=_drawing,
        )
    )


def in_script(value: Any) -> str:
    """JSON that can stand inside a script element."""
    told = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        told = told.replace(mark, f"\\u{ord(mark):04x}")
    return told


@cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script (0.9 MB), which vl-convert brings along."""
    return str(needs("vl_convert").javascript_bundle()).replace("</script", "<\\/script")


def _finalize(value: Any) -> Any:
    """Text without what HTML does not allow, or what turns the direction of the text behind it."""
    return shown(value) if type(value) is str else value


def _drawing(figure: Figure) -> str:
    """An SVG as the address of an image, so that its styles stay its own."""
    assert figure.svg is not None
    return "data:image/svg+xml;base64," + b64encode(figure.svg.encode()).decode()


def _file(name: str) -> str:
    return files("shortrun.report").joinpath(name).read_text(encoding="utf-8")
