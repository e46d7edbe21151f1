"""A sweep's trials as charts: in their order, and against each field that was searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shortrun.errors import UserError
from shortrun.view.charts import COLOURS, altair_library
from shortrun.view.sweep import SweepReport

if TYPE_CHECKING:
    import altair


def sweep_chart(sweep: SweepReport) -> altair.VConcatChart:
    """Losses trial by trial with the best so far, and below them loss against each field.

    Raises UserError where no trial has a loss yet.
    """
    alt = altair_library()
    trials = sorted((trial for trial in sweep.trials if trial.loss is not None), key=lambda trial: trial.number)
    if not trials:
        raise UserError(f"{sweep.sweep} has no trial with a loss, so there is nothing to draw")
    best, so_far = float("inf"), []
    for trial in trials:
        if trial.state == "COMPLETE" and trial.loss is not None:
            best = min(best, trial.loss)
            so_far.append({"trial": trial.number, "best": best})
    rows = [
        {"trial": trial.number, "loss": trial.loss, "state": trial.state.lower(), **_plain(trial.params)}
        for trial in trials
    ]
    states = alt.Scale(domain=["complete", "pruned"], range=[COLOURS[""], COLOURS["tie"]])
    colour = alt.Color("state:N", scale=states, title=None, legend=alt.Legend(orient="top"))
    told = ["trial:Q", alt.Tooltip("loss:Q", format=".4f"), "state:N", *(f"{_key(name)}:N" for name in sweep.search)]
    y = alt.Y("loss:Q", scale=alt.Scale(zero=False), title="tuning loss (nats/char)")
    points: Any = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=36, opacity=0.8)
    line: Any = alt.Chart(alt.Data(values=so_far)).mark_line(
        interpolate="step-after", strokeWidth=1.5, color=COLOURS["better"]
    )
    history = points.encode(
        x=alt.X("trial:Q", title="trial; the line is the best so far"), y=y, color=colour, tooltip=told
    )
    history += line.encode(x="trial:Q", y="best:Q")
    slices = [
        points.encode(
            x=alt.X(f"{_key(name)}:{_type(rows, name)}", title=name, scale=_scale(alt, rows, name)),
            y=y,
            color=colour,
            tooltip=told,
        ).properties(width=190, height=180)
        for name in sweep.search
    ]
    chart: altair.VConcatChart = alt.vconcat(history.properties(width=560, height=220), alt.hconcat(*slices))
    return chart


def _key(name: str) -> str:
    """A field's name in a chart's data, where a dot would ask for a part."""
    return name.replace(".", "_")


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    return {_key(name): value if isinstance(value, int | float) else str(value) for name, value in params.items()}


def _type(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[_key(name)] for row in rows if _key(name) in row]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return "Q" if numbers and len(set(values)) > 6 else "O"


def _scale(alt: Any, rows: list[dict[str, Any]], name: str) -> Any:
    """Logarithmic where values span more than a factor of 20."""
    values = [row[_key(name)] for row in rows if _key(name) in row]
    if _type(rows, name) != "Q":
        return alt.Undefined
    return alt.Scale(type="log" if min(values) > 0 and max(values) > 20 * min(values) else "linear", zero=False)
