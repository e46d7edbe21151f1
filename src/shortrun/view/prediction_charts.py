"""What models expect next, as bars; and what they expect on average beside how frequent each token is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shortrun.view.charts import COLOURS, RUN_COLOURS, altair_library
from shortrun.view.diagnosis import Frequency
from shortrun.view.reading import Guess

if TYPE_CHECKING:
    import altair


def guesses_chart(guesses: Mapping[str, Sequence[Guess]], actual: str | None = None) -> altair.HConcatChart:
    """The likeliest next tokens, a panel for each model, all with the same axis.

    guesses: by the model's name, likeliest first. actual: what really came next, which is marked.
    """
    alt = altair_library()
    most = max((guess.probability for each in guesses.values() for guess in each), default=1.0)
    panels = []
    for name, each in guesses.items():
        rows = [
            {"token": shown_token(guess.token), "probability": guess.probability, "actual": guess.token == actual}
            for guess in each
        ]
        bars: Any = alt.Chart(alt.Data(values=rows), title=name).mark_bar()
        colour = alt.condition("datum.actual", alt.value(COLOURS["better"]), alt.value(COLOURS[""]))
        panels.append(
            bars.encode(
                x=alt.X(
                    "probability:Q", title="probability", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, most])
                ),
                y=alt.Y("token:N", sort=[row["token"] for row in rows], title=None, axis=alt.Axis(labelLimit=140)),
                color=colour,
                tooltip=["token:N", alt.Tooltip("probability:Q", format=".2%")],
            ).properties(width=230, height=alt.Step(16))
        )
    chart: altair.HConcatChart = alt.hconcat(*panels, spacing=24)
    return chart


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


def shown_token(token: str) -> str:
    """A token with its spaces visible."""
    return token.replace(" ", "\N{OPEN BOX}")
