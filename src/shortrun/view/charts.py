"""Charts, each defined once by altair and written as SVG, PNG or PDF by vl-convert (the extra `charts`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortrun.disk import require_writable
from shortrun.errors import UserError, did_you_mean, missing_extra
from shortrun.study.table import ResultRow, StudyResult
from shortrun.view.study import verdict

if TYPE_CHECKING:
    import altair

COLOURS = {"better": "#1b7f5c", "tie": "#8a8a8a", "worse": "#b5442e", "": "#335c99"}
"""Told apart by red-green blind readers by their lightness too. What one seed says of a change has the last one."""
RUN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a7a7a", "#882255")
"""One for each run, told apart by colour-blind readers (most are Okabe & Ito's of 2008); more runs begin anew."""
FORMATS = ("svg", "png", "pdf", "json", "html")


def study_chart(result: StudyResult) -> altair.HConcatChart:
    """Losses of each change, a point a seed, and beside them its difference from its reference with the interval."""
    alt = altair_library()
    rows = [row for row in result.rows if row.loss is not None]
    if not rows:
        raise UserError(f"{result.study} has no run that is done, so there is nothing to draw")
    order = [row.change for row in rows]
    y = alt.Y("change:N", sort=order, title=None, axis=alt.Axis(labelLimit=320))
    points = [
        {"change": row.change, "seed": str(seed), "loss": loss, "verdict": verdict(row), "colour": _settled(row)}
        for row in rows
        for seed, loss in row.losses.items()
    ]
    means = [
        {"change": row.change, "loss": row.loss, "verdict": verdict(row), "colour": _settled(row), "reason": row.reason}
        for row in rows
    ]
    colour = alt.Color("colour:N", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())), legend=None)
    x = alt.X(
        "loss:Q", scale=alt.Scale(zero=False, nice=True), title=f"loss on the {result.split} documents (nats/char)"
    )
    losses = alt.Chart(alt.Data(values=points)).mark_point(size=28, opacity=0.7, filled=True).encode(
        x=x, y=y, color=colour, tooltip=["change:N", "seed:N", alt.Tooltip("loss:Q", format=".4f")]
    ) + alt.Chart(alt.Data(values=means)).mark_tick(thickness=2, size=16).encode(
        x=x, y=y, color=colour, tooltip=["change:N", alt.Tooltip("loss:Q", format=".4f"), "reason:N"]
    )
    differences = [
        {
            "change": row.change,
            "difference": row.difference,
            "low": row.interval[0],
            "high": row.interval[1],
            "verdict": verdict(row),
            "colour": _settled(row),
        }
        for row in rows
        if row.difference is not None and row.interval is not None
    ]
    beside: Any = alt.Chart(alt.Data(values=differences)).encode(
        y=alt.Y("change:N", sort=order, title=None, axis=None, scale=alt.Scale(domain=order)),
        color=colour,
        tooltip=["change:N", *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("difference", "low", "high"))],
    )
    zero = (
        alt.Chart(alt.Data(values=[{"difference": 0}]))
        .mark_rule(strokeDash=[3, 3], color="#555")
        .encode(x="difference:Q")
    )
    told = "difference, 95 % interval" + (" (from the row above)" if result.form == "ladder" else "")
    drawn = (
        zero
        + beside.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=told), x2="high:Q")
        + beside.mark_point(filled=True, size=50).encode(x="difference:Q")
    )
    height = alt.Step(24)
    panels = [panel.properties(width=330, height=height) for panel in (losses, drawn)]
    title = alt.TitleParams(result.study, subtitle=f"{result.base}, {result.scale}", anchor="start")
    chart: altair.HConcatChart = alt.hconcat(*panels, spacing=12, title=title)
    return chart


def _settled(row: ResultRow) -> str:
    """The verdict on a change, where it comes from more than one seed."""
    found = verdict(row)
    return "" if found.endswith("?") else found


def require_chart(path: Path | None) -> None:
    """Raises UserError where no chart can be written at `path`; asked before the work that the chart shows."""
    if path is None:
        return
    _format(path)
    altair_library()
    require_writable(path)


def _format(path: Path) -> str:
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise UserError(f"{path}: a chart is no .{ending}; {did_you_mean(ending, FORMATS)}")
    return ending


def save(chart: Any, path: Path) -> None:
    """Writes a chart in the format that the file's name ends in."""
    ending = _format(path)
    more = {"inline": True} if ending == "html" else {}  # all scripts inside: the page needs no network
    try:
        chart.save(str(path), format=ending, **more)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror or error}") from None


def altair_library() -> Any:
    """altair, able to write pictures; raises UserError where the extra is not installed."""
    try:
        import altair
        import vl_convert  # noqa: F401  # what altair writes pictures with
    except ImportError:
        raise missing_extra("A chart", "charts") from None
    return altair
