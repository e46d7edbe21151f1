"""What models expect on average, beside how frequent each token is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shortrun.text.visible import shown_token
from shortrun.view.charts import RUN_COLOURS, altair_library
from shortrun.view.diagnosis import Frequency

if TYPE_CHECKING:
    import altair


def frequencies_chart(frequencies: Mapping[str, Sequence[Frequency]]) -> altair.HConcatChart:
    """The training documents' most frequent tokens: how frequent they are, and how likely a model finds them on average."""
    alt = altair_library()
    panels = []
    for name, each in frequencies.items():
        rows = [
            {"token": shown_token(one.token), "what": what, "share": share}
            for one in each
            for what, share in (("in the training documents", one.frequency), ("average prediction", one.predicted))
        ]
        scale = alt.Scale(domain=["in the training documents", "average prediction"], range=list(RUN_COLOURS[:2]))
        bars: Any = alt.Chart(alt.Data(values=rows), title=name).mark_bar()
        panels.append(
            bars.encode(
                x=alt.X("share:Q", title="share of all tokens", axis=alt.Axis(format="%")),
                y=alt.Y("token:N", sort=[shown_token(one.token) for one in each], title=None),
                yOffset=alt.YOffset("what:N", sort=scale.domain),
                color=alt.Color("what:N", scale=scale, title=None, legend=alt.Legend(orient="top")),
                tooltip=["token:N", "what:N", alt.Tooltip("share:Q", format=".2%")],
            ).properties(width=230, height=alt.Step(8))
        )
    chart: altair.HConcatChart = alt.hconcat(*panels, spacing=24)
    return chart
