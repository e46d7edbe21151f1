"""Charts of what a tokenizer does: how long documents get, how often pieces are used, how sizes compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shortrun.errors import UserError
from shortrun.view.charts import altair_library
from shortrun.view.tokenizer import TokenizerReport

if TYPE_CHECKING:
    import altair

BINS, RANKS = 60, 300
"""Bars of a histogram and points of a curve, at most."""
COLOURS = ("#335c99", "#d1813a")
"""Told apart by colour-blind readers too."""


def tokenizer_chart(report: TokenizerReport, sizes: Sequence[Mapping[str, Any]] = ()) -> altair.VConcatChart:
    """All charts of a report, and below them those of some sizes' rows; raises UserError where there are no documents."""
    alt = altair_library()
    if report.train is None:
        raise UserError("There are no documents, so there is nothing to draw")
    lengths = length_chart({name: use.lengths_D for name, use in report.uses.items()}, report.block_size)
    rows = [alt.hconcat(lengths, frequency_chart(report.train.counts_V), spacing=24)]
    if sizes:
        rows.append(sizes_chart(sizes))
    title = alt.TitleParams(f"A tokenizer of {report.tokenizer.vocab_size:,} entries", anchor="start")
    chart: altair.VConcatChart = alt.vconcat(*rows, spacing=24, title=title)
    return chart


def length_chart(lengths: Mapping[str, NDArray[np.int64]], block_size: int) -> altair.LayerChart:
    """The share of documents of each length in tokens, their ends counted; a line for each split, a rule at the block."""
    alt = altair_library()
    # the few longest documents would leave no room for the others
    most = max(int(np.percentile(lengths_D, 99.5)) for lengths_D in lengths.values()) + 1
    step = -(-most // BINS)
    edges = np.arange(1, most + step + 1, step)
    values = [
        {"split": name, "length": int(edge), "share": count / len(lengths_D)}
        for name, lengths_D in lengths.items()
        for edge, count in zip(edges, np.histogram(lengths_D, bins=edges)[0].tolist(), strict=False)
    ]
    colour = alt.Color("split:N", title=None, scale=alt.Scale(domain=list(lengths), range=list(COLOURS)))
    layers = [
        alt.Chart(alt.Data(values=values))
        .mark_line(interpolate="step-after")
        .encode(
            x=alt.X("length:Q", title="tokens of a document, its end among them"),
            y=alt.Y("share:Q", title="share of documents", axis=alt.Axis(format="%")),
            color=colour,
            tooltip=["split:N", "length:Q", alt.Tooltip("share:Q", format=".2%")],
        )
    ]
    if block_size <= most:
        block = alt.Chart(alt.Data(values=[{"block": block_size}]))
        layers.append(block.mark_rule(strokeDash=[3, 3]).encode(x="block:Q"))
    chart: altair.LayerChart = alt.layer(*layers).properties(width=330, height=220, title="lengths")
    return chart


def frequency_chart(counts_V: NDArray[np.int64]) -> altair.Chart:
    """How often each entry was used, by its rank, on logarithmic axes; those never used are left out."""
    alt = altair_library()
    used = np.sort(counts_V[counts_V > 0])[::-1]
    ranks = np.unique(np.geomspace(1, len(used), num=min(RANKS, len(used))).round().astype(int))
    values = [{"rank": int(rank), "count": int(used[rank - 1])} for rank in ranks]
    chart: altair.Chart = (
        alt.Chart(alt.Data(values=values))
        .mark_line(color=COLOURS[0])
        .encode(
            x=alt.X("rank:Q", title="rank of the entry", scale=alt.Scale(type="log"), axis=alt.Axis(grid=False)),
            y=alt.Y(
                "count:Q", title="times in training documents", scale=alt.Scale(type="log"), axis=alt.Axis(grid=False)
            ),
            tooltip=["rank:Q", "count:Q"],
        )
        .properties(width=330, height=220, title="how often entries are used")
    )
    return chart


def sizes_chart(rows: Sequence[Mapping[str, Any]]) -> altair.HConcatChart:
    """How long documents get and how many pieces are never used, by the size of the vocabulary."""
    alt = altair_library()
    values = [dict(row) for row in rows]
    x = alt.X("vocab_size:Q", title="entries of the vocabulary", scale=alt.Scale(type="log", nice=False))
    panels = [
        alt.Chart(alt.Data(values=values))
        .mark_line(point=True, color=COLOURS[0])
        .encode(
            x=x,
            y=alt.Y(f"{name}:Q", title=title, scale=alt.Scale(zero=zero), axis=alt.Axis(format=form)),
            tooltip=["vocab_size:Q", alt.Tooltip(f"{name}:Q", format=form)],
        )
        .properties(width=330, height=180)
        for name, title, form, zero in (
            ("mean_length", "tokens of a validation document", ".1f", False),
            ("never_used_share", "pieces never used in training", ".1%", True),
        )
    ]
    chart: altair.HConcatChart = alt.hconcat(*panels, spacing=24)
    return chart
