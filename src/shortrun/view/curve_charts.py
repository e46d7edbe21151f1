"""Charts of curves: validation loss over steps, tokens and seconds, and what training did at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from shortrun.errors import UserError, did_you_mean
from shortrun.view.charts import RUN_COLOURS, altair_library
from shortrun.view.curves import ALL_POINTS, MOST_POINTS, WINDOW, Curves, Evaluated, smoothed, thinned

if TYPE_CHECKING:
    import altair

AXES = {"steps": "steps", "tokens": "tokens trained on", "seconds": "seconds, evaluations included"}
HEIGHT = 300
LINE_HEIGHT = 14
"""Of a label, in pixels."""


def validation_chart(
    curves: Mapping[str, Curves],
    over: Sequence[str] = tuple(AXES),
    changes: Mapping[str, str] | None = None,
    split: str = "validation",
) -> altair.HConcatChart:
    """The validation or tuning loss of some runs, a panel for each of `over`: "steps", "tokens", "seconds".

    curves: by the name that a run has in the chart. changes: what is special about a run, to stand behind its name. At the
    right edge each run's name and last loss stand beside the end of its line. Raises
    UserError where no run has an evaluation, or for a panel that there is not.
    """
    alt = altair_library()
    for name in over:
        if name not in AXES:
            raise UserError(f"there is no curve over '{name}': {did_you_mean(name, AXES)}")
    found = {name: each.on(split).evaluations for name, each in curves.items()}
    runs = {name: evaluations for name, evaluations in found.items() if evaluations}
    if not runs:
        raise UserError(f"No run has an evaluation of {split} documents in its log yet, so there is no curve to draw")
    rows = [
        {
            "run": name,
            "steps": at.step,
            "tokens": at.tokens,
            "seconds": at.seconds,
            "epoch": at.epoch,
            "loss": at.loss,
            "official loss": f"{at.official_loss:.4f} ({at.coverage:.1%} covered)" if at.coverage else "none",
        }
        for name, evaluations in runs.items()
        for at in evaluations
    ]
    low, high = _frame([[at.loss for at in evaluations] for evaluations in runs.values()])
    colour = _colour(alt, runs)
    panels = []
    for number, name in enumerate(over):
        y = alt.Y(
            "loss:Q",
            scale=alt.Scale(domain=[low, high], nice=False),
            title=None if number else f"{split} loss (nats per character)",
        )
        told = ["run:N", alt.Tooltip("loss:Q", format=".4f"), "steps:Q", alt.Tooltip("epoch:Q", format=".2f")]
        if split == "validation":
            told.insert(2, "official loss:N")
        lines = alt.Chart(alt.Data(values=rows)).mark_line(
            clip=True, point=alt.OverlayMarkDef(size=18), strokeWidth=1.6
        )
        panel: Any = lines.encode(
            x=alt.X(f"{name}:Q", title=AXES[name], axis=alt.Axis(tickCount=5, format="~s")),
            y=y,
            color=colour,
            tooltip=told,
        ).add_params(_zoom(alt, name))
        if name == over[-1]:
            panel += _ends(alt, runs, changes or {}, (low, high), colour)
        panels.append(panel.properties(width=max(220, 560 // len(over)), height=HEIGHT))
    chart: altair.HConcatChart = alt.hconcat(*panels, spacing=16)
    return chart


def training_chart(curves: Mapping[str, Curves]) -> altair.HConcatChart:
    """Training loss, learning rate and gradient norm of some runs over their steps.

    Loss and norm are averaged over a hundredth of the steps to either side. The more runs, the fewer points of each are
    drawn. Raises UserError where no run has taken a step.
    """
    alt = altair_library()
    runs = {name: each for name, each in curves.items() if len(each.steps_N)}
    if not runs:
        raise UserError("No run has taken a step yet, so there is no training curve to draw")
    most = min(MOST_POINTS, max(ALL_POINTS // len(runs), 2))
    rows = [row for name, each in runs.items() for row in _training_rows(name, each, most)]
    colour = _colour(alt, runs)
    panels = []
    titles = {
        "loss": "training loss (nats per token), smoothed",
        "lr": "learning rate",
        "grad norm": "gradient norm, smoothed",
    }
    for name, title in titles.items():
        panel: Any = alt.Chart().mark_line(strokeWidth=1.2, clip=True)
        panel = panel.encode(
            x=alt.X("step:Q", title="steps", axis=alt.Axis(tickCount=5, format="~s")),
            y=alt.Y(f"{name}:Q", title=title, scale=alt.Scale(zero=name == "lr")),
            color=colour,
            tooltip=["run:N", "step:Q", alt.Tooltip(f"{name}:Q", format=".4g")],
        ).add_params(_zoom(alt, name))
        panels.append(panel.properties(width=220, height=180))
    chart: altair.HConcatChart = alt.hconcat(*panels, spacing=16, data=alt.Data(values=rows))  # once for all panels
    return chart


def curves_chart(curves: Mapping[str, Curves], changes: Mapping[str, str] | None = None, title: str = "") -> Any:
    """Both: validation loss above, what training did below."""
    alt = altair_library()
    drawn = [validation_chart(curves, changes=changes)]
    if any(len(each.steps_N) for each in curves.values()):
        drawn.append(training_chart(curves))
    chart = alt.vconcat(*drawn, spacing=20)
    return chart.properties(title=alt.TitleParams(title, anchor="start")) if title else chart


def leaves_out_first(curves: Mapping[str, Curves], split: str = "validation") -> bool:
    """Whether the chart of these curves cuts off a first evaluation."""
    losses = [[at.loss for at in each.on(split).evaluations] for each in curves.values()]
    return any(len(each) > 2 and each[0] > _frame(losses)[1] for each in losses)


def _training_rows(name: str, curves: Curves, most: int) -> list[dict[str, Any]]:
    window = int(len(curves.steps_N) * WINDOW)
    loss_N, norm_N = smoothed(curves.loss_N, window), smoothed(curves.grad_norm_N, window)
    return [
        {
            "run": name,
            "step": int(curves.steps_N[at]),
            "loss": _rounded(loss_N[at]),
            "lr": _rounded(curves.lr_N[at]),
            "grad norm": _rounded(norm_N[at]),
        }
        for at in thinned(len(curves.steps_N), most)
    ]


def _rounded(value: float) -> float:
    """To five digits, of which a screen shows three."""
    return float(f"{value:.5g}")


def _zoom(alt: Any, name: str) -> Any:
    """In a page, the wheel zooms along a panel's axis; every panel's needs a name of its own."""
    return alt.selection_interval(name=f"zoom_{name.replace(' ', '_')}", bind="scales", encodings=["x"])


def _colour(alt: Any, runs: Mapping[str, Any]) -> Any:
    colours = [RUN_COLOURS[number % len(RUN_COLOURS)] for number in range(len(runs))]
    return alt.Color("run:N", scale=alt.Scale(domain=list(runs), range=colours), legend=None)


def _frame(losses: Sequence[Sequence[float]]) -> tuple[float, float]:
    """What the axis shows: all but the evaluation at step 1, which would press everything after it into a line."""
    shown = [loss for each in losses for loss in (each[1:] if len(each) > 2 else each)] or [0.0]
    low, high = min(shown), max(shown)
    margin = (high - low) * 0.05 or 0.05
    return low - margin, high + margin


def _ends(
    alt: Any,
    runs: Mapping[str, Sequence[Evaluated]],
    changes: Mapping[str, str],
    frame: tuple[float, float],
    colour: Any,
) -> Any:
    """Name, change and last loss of each run at the right edge, as high as its line ends, but none over another."""
    low, high = frame
    ends = {name: evaluations[-1].loss for name, evaluations in runs.items()}
    order = sorted(ends, key=lambda name: -ends[name])
    places = apart([(high - ends[name]) / (high - low) * HEIGHT for name in order])
    labels = [
        {
            "run": name,
            "label": f"{ends[name]:.4f}  {name}" + (f": {changes[name]}" if changes.get(name) else ""),
            "at": high - place / HEIGHT * (high - low),
        }
        for name, place in zip(order, places, strict=True)
    ]
    drawn = alt.Chart(alt.Data(values=labels))
    marks = drawn.mark_text(align="left", baseline="middle", dx=6, fontSize=11, limit=340, clip=False)
    return marks.encode(x=alt.value("width"), y="at:Q", text="label:N", color=colour)


def apart(places: Sequence[float], least: float = LINE_HEIGHT) -> list[float]:
    """The same heights in pixels, from the top, moved so that none is nearer to the next than a line is high.

    As little as can be: where lines touch, they stand around the mean of where they would be.
    """
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while (
            len(groups) > 1
            and _middle(groups[-1]) - _middle(groups[-2]) < least * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            last = groups.pop()
            groups[-1] += last
    found = [_middle(group) + least * (at - (len(group) - 1) / 2) for group in groups for at in range(len(group))]
    assert all(later - earlier > least * 0.99 for earlier, later in pairwise(found))
    return found


def _middle(group: Sequence[float]) -> float:
    return float(np.mean(group))
