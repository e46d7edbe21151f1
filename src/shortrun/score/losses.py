"""The three losses, defined.

Let the titles to score be t_1 ... t_n, with `<eos>` as each title's end.

**loss** (nats per character). Minus the log-probability that the model gives to each title on its own, from a fresh
start after one `<eos>`, its end charged, summed over all titles; divided by the characters of the titles joined by
`<eos>` and ending in one, where `<eos>` counts as 5:

    loss = sum_i -log p(t_i, end | <eos>)  /  sum_i (len(t_i) + 5)

Every token of every title, and every end, is a target exactly once. It is a property of the model alone: batch size,
padding, order and the number of processes don't move it. The denominator is counted in the original text, so tokenizers
compare. A title whose tokens and end don't fit the model's block is scored in overlapping windows: the first window
scores all its targets, each later one moves on by half a block and scores only the targets not scored before, which so
see at least half a block of context.

**bits_per_byte**. The same sum in bits, divided by the titles' UTF-8 bytes, with one byte for each title's end.

**official_loss** (nats per character). What Mainrun's `evaluate()` computes, for comparison with published numbers: the
joined text encoded as one stream of N tokens, read in spans of block_size * batch_size + 1 tokens that don't overlap,
an incomplete last span dropped; cross-entropy of the targets inside spans, divided by *all* the characters. Its
**coverage** is the share of the stream's N - 1 targets that were scored: what is not covered lowers the loss for free.
A stream shorter than one span scores nothing: loss 0, coverage 0.

**perplexity** is exp(nats / targets): per token, so it compares only between runs with the same tokenizer.

Sums are float64; cross-entropy itself is computed in float32, or in float64 for a float64 model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EOS_CHARACTERS = 5
"""Characters that a title's end counts for in nats per character: len("<eos>")."""
EOS_BYTES = 1
"""Bytes that a title's end counts for in bits per byte: one, as a newline would."""


def joined_characters(titles: Sequence[str]) -> int:
    """Characters (Unicode code points) of the titles joined by `<eos>` and ending in one: the losses' denominator."""
    return sum(len(title) + EOS_CHARACTERS for title in titles)


def joined_bytes(titles: Sequence[str]) -> int:
    """UTF-8 bytes of the titles, one byte for each end."""
    return sum(len(title.encode()) + EOS_BYTES for title in titles)


def token_nats(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Cross-entropy in nats of each target, float64 on the CPU, shape (B, T); padded targets (-100) cost 0."""
    logits_BTV = logits_BTV if logits_BTV.dtype == torch.float64 else logits_BTV.float()
    nats_N = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
    return nats_N.cpu().double().view(targets_BT.shape)  # on the CPU, for MPS has no float64


@dataclass(frozen=True)
class Loss:
    """A set of titles scored on their own; the fields are the sums, the properties the losses."""

    nats: float
    characters: int
    bytes: int
    targets: int
    titles: int

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
        try:
            return math.exp(self.nats / self.targets)
        except OverflowError:
            return None

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
