"""How long a prepared corpus' documents are, as a chart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shortrun.view.charts import COLOURS, altair_library

if TYPE_CHECKING:
    import altair


def lengths_chart(lengths: dict[str, list[int]]) -> altair.Chart:
    """A bar for the documents of each length in characters, from the manifest's `lengths`; each bar is twice as long as the
    one before it, so that the axis is logarithmic. Splits stand one on the other.
    """
    alt = altair_library()
    bars = [
        {"split": split, "from": 2**at, "to": 2 ** (at + 1), "documents": number}
        for split, bins in lengths.items()
        for at, number in enumerate(bins)
        if number
    ]
    splits = alt.Scale(domain=list(lengths), range=[COLOURS[""], COLOURS["worse"]][: len(lengths)])
    bar: Any = alt.Chart(alt.Data(values=bars)).mark_bar(stroke="white", strokeWidth=0.5)
    chart: altair.Chart = bar.encode(
        x=alt.X("from:Q", scale=alt.Scale(type="log", base=2), title="characters", axis=alt.Axis(format=",d")),
        x2="to:Q",
        y=alt.Y("documents:Q", stack="zero", title="documents", axis=alt.Axis(format=",d")),
        color=alt.Color("split:N", scale=splits, title=None, legend=alt.Legend(orient="top")),
        tooltip=["split:N", *(alt.Tooltip(f"{name}:Q", format=",d") for name in ("from", "to", "documents"))],
    ).properties(width=620, height=260)
    return chart
