"""Charts of how models read a text: how surprising each token was, and what they expect next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shortrun.text.visible import shown_token
from shortrun.view.charts import COLOURS, altair_library
from shortrun.view.reading import Guess, Reading

if TYPE_CHECKING:
    import altair

MOST = 100
"""Tokens of a long text that are drawn: its last ones."""


def reading_chart(reading: Reading, at: int | None = None) -> altair.VConcatChart:
    """The tokens of one reading (the first `at` of them), and below them the likeliest ones to come."""
    alt = altair_library()
    expected = next_chart({"": reading.guesses_at(at)})
    panels = [surprisal_chart(reading, at), expected] if reading.tokens[:at] else [expected]
    chart: altair.VConcatChart = alt.vconcat(*panels, spacing=16)
    return chart


def surprisal_chart(reading: Reading, at: int | None = None) -> altair.Chart:
    """A bar a token, in the text's order: its surprisal in nats."""
    alt = altair_library()
    drawn = list(enumerate(reading.tokens[:at]))[-MOST:]
    values = [
        {"place": place, "token": shown_token(token.token), "nats": token.surprisal, "rank": token.rank}
        for place, token in drawn
    ]
    names = {place: token.token for place, token in drawn}
    chart: altair.Chart = (
        alt.Chart(alt.Data(values=values))
        .mark_bar()
        .encode(
            x=alt.X(
                "place:O",
                title=None,
                # two tokens may have the same name, so the axis counts places and writes their names
                axis=alt.Axis(labelExpr=f"({_expression(names)})[datum.value]", labelAngle=-60),
            ),
            y=alt.Y("nats:Q", title="surprisal (nats)"),
            color=alt.Color("nats:Q", scale=alt.Scale(scheme="viridis", reverse=True), legend=None),
            tooltip=["token:N", alt.Tooltip("nats:Q", format=".2f"), "rank:Q"],
        )
        .properties(height=160, title=f"surprisal, {reading.loss:.4f} nats per character in all")
    )
    return chart


def next_chart(guesses: Mapping[str, Sequence[Guess]], came: Mapping[str, Guess] | None = None) -> altair.HConcatChart:
    """The likeliest next tokens of one or several readers, such as a model before and after training, side by side.

    came: for each reader the token of its tokenizer that did come next. It has another colour, and a bar below the others
    where it is none of them.
    """
    alt = altair_library()
    came = came or {}
    most = max(guess.probability for some in guesses.values() for guess in some)
    panels = []
    for reader, likeliest in guesses.items():
        actual = came.get(reader)
        missing = actual is not None and actual.id not in [guess.id for guess in likeliest]
        some = [*likeliest, actual] if actual and missing else likeliest
        values = [
            {
                "place": place,
                "token": shown_token(guess.token),
                "probability": guess.probability,
                "came": actual is not None and guess.id == actual.id,
            }
            for place, guess in enumerate(some)
        ]
        names = {place: guess.token for place, guess in enumerate(some)}
        panels.append(
            alt.Chart(alt.Data(values=values))
            .mark_bar()
            .encode(
                color=alt.condition("datum.came", alt.value(COLOURS["better"]), alt.value(COLOURS[""])),
                y=alt.Y("place:O", title=None, axis=alt.Axis(labelExpr=f"({_expression(names)})[datum.value]")),
                x=alt.X("probability:Q", scale=alt.Scale(domain=[0, most]), axis=alt.Axis(format="%", tickCount=4)),
                tooltip=["token:N", alt.Tooltip("probability:Q", format=".2%")],
            )
            .properties(width=260, height=alt.Step(18), title=f"what comes next{reader and ': ' + reader}")
        )
    chart: altair.HConcatChart = alt.hconcat(*panels, spacing=16)
    return chart


def _expression(names: Mapping[int, str]) -> str:
    """The names by place, as a Vega expression: JSON is one."""
    return json.dumps({str(place): shown_token(name) for place, name in names.items()})
