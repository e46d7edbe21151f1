"""What a run's tokenizer does to its documents."""

from __future__ import annotations

from collections.abc import Iterator

from shortrun.report.blocks import Block, Figure, Items, Section, Table
from shortrun.report.plain import spec
from shortrun.report.subjects import NamedRun, Split
from shortrun.runs.trained import Trained
from shortrun.text.corpus import Corpus
from shortrun.text.visible import shown_token
from shortrun.view.tokenizer import report_on
from shortrun.view.tokenizer_charts import tokenizer_chart

SHOWN = 20
"""Pieces of each kind."""


def tokenizer_section(run: NamedRun, trained: Trained, corpus: Corpus, split: Split, command: str) -> Section:
    """Lengths and pieces, of the training documents and of another split."""
    return Section.of("Tokenizer", _blocks(run, trained, corpus, split, command))


def _blocks(run: NamedRun, trained: Trained, corpus: Corpus, split: Split, command: str) -> Iterator[Block]:
    splits = {name: corpus.split(name) for name in ("train", split)}
    found = report_on(trained.tokenizer, splits, run.recipe.batches.block_size)
    told = found.as_dict(SHOWN)
    rows = []
    for name, use in told["splits"].items():
        length = use["length"]
        rows.append(
            (
                name,
                f"{use['documents']:,}",
                f"{use['given_back']:.2%}",
                f"{use['unknown_rate']:.3%}",
                f"{use['byte_fallback_rate']:.3%}",
                f"{use['tokens_per_character']:.3f}",
                f"{use['fertility']:.2f}",
                f"{length['mean']:.1f}",
                f"{length['median']:.0f}",
                f"{length['p95']:.0f}",
                f"{length['longer_than_block']:.2%}",
            )
        )
    headings = (
        "documents", "number", "given back", "unknown", "byte fallback", "tokens/char", "tokens/word", "mean length", "median", "95th",
        "longer than a block",
    )  # fmt: skip
    yield Table(
        headings, tuple(rows), caption=f"{told['vocab_size']:,} entries; lengths in tokens, a document's end counted"
    )
    yield Figure(
        name="tokenizer",
        caption="How long documents are in tokens, and how often each entry is used in the training documents.",
        chart=spec(tokenizer_chart(found)),
        runs=(run.name,),
        command=command,
    )
    pieces = {
        key: ", ".join(shown_token(piece["token"]) for piece in told[key]) for key in ("most_frequent", "longest")
    }
    unused = ", ".join(map(shown_token, told["never_used_examples"]))
    yield Items(
        (
            ("most frequent", pieces["most_frequent"]),
            ("longest", pieces["longest"]),
            (f"never used ({told['never_used']:,})", unused or "none"),
        )
    )
