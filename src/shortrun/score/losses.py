"""The three losses, defined.

Let the documents to score be t_1 ... t_n, with `<eos>` as each document's end. In Mainrun they are titles.

**loss** (nats per character). Minus the log-probability that the model gives to each document on its own, from a fresh
start after one `<eos>`, its end charged, summed over all documents; divided by the characters of the documents joined by
`<eos>` and ending in one, where `<eos>` counts as 5:

    loss = sum_i -log p(t_i, end | <eos>)  /  sum_i (len(t_i) + 5)

Every token of every document, and every end, is a target exactly once. It is a property of the model alone: batch size,
padding, order and the number of processes don't move it. The denominator is counted in the original text, so tokenizers
compare. A document whose tokens and end don't fit the model's block is scored in overlapping windows: the first window
scores all its targets, each later one moves on by half a block and scores only the targets not scored before, which so
see at least half a block of context.

**bits_per_byte**. The same sum in bits, divided by the documents' UTF-8 bytes, with one byte for each document's end.

**official_loss** (nats per character). What Mainrun's `evaluate()` computes, for comparison with published numbers: the
joined text encoded as one stream of N tokens, read in spans of block_size * batch_size + 1 tokens that don't overlap,
an incomplete last span dropped; cross-entropy of the targets inside spans, divided by *all* the characters. Its
**coverage** is the share of the stream's N - 1 targets that were scored: what is not covered lowers the loss for free.
A stream shorter than one span scores nothing: loss 0, coverage 0. A model that was trained on one document a row keeps
documents apart here too, as its forward pass would: within a row it begins anew after each `<eos>`.

**perplexity** is exp(nats / targets): per token, so it compares only between runs with the same tokenizer.

Sums are float64; cross-entropy itself is computed in float32, or in float64 for a float64 model.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

EOS_CHARACTERS = 5
"""Characters that a document's end counts for in nats per character: len("<eos>")."""
EOS_BYTES = 1
"""Bytes that a document's end counts for in bits per byte: one, as a newline would."""


def perplexity(nats: float) -> float | None:
    """exp(nats per target); None where that is too large for a float."""
    try:
        return math.exp(nats)
    except OverflowError:
        return None


@dataclass(frozen=True)
class Loss:
    """A set of documents scored on their own; the fields are the sums, the properties the losses."""

    nats: float
    characters: int
    bytes: int
    targets: int
    documents: int

    @property
    def loss(self) -> float:
        """Nats per character: the project's loss."""
        return self.nats / self.characters

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float | None:
        """exp(nats per target); None where that is too large for a float."""
        return perplexity(self.nats / self.targets)

    def as_dict(self) -> dict[str, float | int | None]:
        return {
            "loss": self.loss,
            **asdict(self),
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
        }


@dataclass(frozen=True)
class OfficialLoss:
    """Mainrun's loss over a stream, with how much of the stream it scored."""

    nats: float
    characters: int
    targets_scored: int
    targets: int

    @property
    def loss(self) -> float:
        """Nats of the scored targets per character of the whole text."""
        return self.nats / self.characters

    @property
    def coverage(self) -> float:
        """Targets scored / targets there are."""
        return self.targets_scored / self.targets if self.targets else 0.0
