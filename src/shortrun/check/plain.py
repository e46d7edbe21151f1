"""The losses once more, in a few plain lines, from the definitions in docs/losses.md and nothing else.

Nothing of `score/` is used. Logits come from the model's forward pass, which is given no targets; torch's cross-entropy
makes nats of them, so they are those of a distribution that sums to 1.

Shapes: N ids of a stream, R rows, L their length, V vocabulary, D documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from shortrun.model.language_model import LanguageModel

LOGITS_AT_ONCE = 2**24
"""64 MiB in float32."""


@dataclass(frozen=True)
class StreamLoss:
    """The official loss."""

    loss: float
    """Nats of the scored targets per character of the whole text."""
    characters: int
    scored: int
    """Targets that were scored, each once."""
    targets: int
    """Targets that the stream has."""
    largest: float
    """The most nats that any target took."""

    @property
    def coverage(self) -> float:
        return self.scored / self.targets if self.targets else 0.0


@dataclass(frozen=True)
class DocumentLosses:
    """The project's own loss, with what each document took."""

    nats_D: NDArray[np.float64]
    characters: int
    targets: int

    @property
    def loss(self) -> float:
        return math.fsum(self.nats_D) / self.characters


def stream_loss(
    model: LanguageModel,
    stream_N: NDArray[np.int64],
    text: str,
    *,
    block_size: int,
    batch_size: int,
    begins_anew_after: int | None = None,
) -> StreamLoss:
    """What Mainrun's `evaluate()` gives for a validation text and its ids.

    The stream is read in spans of block_size * batch_size + 1 ids, the incomplete last one is dropped, and the sum is
    divided by the characters of the whole text. `begins_anew_after`: the id of a document's end, for a model that keeps
    documents apart inside a row.
    """
    span = block_size * batch_size + 1
    starts: list[int] = []
    for begin in range(0, len(stream_N) - span + 1, span):
        starts += range(begin, begin + span - 1, block_size)
    lengths = [block_size] * len(starts)
    if begins_anew_after is not None:
        starts, lengths = _cut(stream_N, starts, block_size, begins_anew_after)
    nats_N = nats_of_rows(model, stream_N, starts, lengths)
    scored = ~np.isnan(nats_N)
    return StreamLoss(
        loss=math.fsum(nats_N[scored]) / len(text),
        characters=len(text),
        scored=int(scored.sum()),
        targets=max(len(stream_N) - 1, 0),
        largest=float(nats_N[scored].max(initial=0.0)),
    )


def _cut(stream_N: NDArray[np.int64], starts: Sequence[int], length: int, eos: int) -> tuple[list[int], list[int]]:
    """The same rows, cut before each input that is a document's end."""
    begins, lengths = [], []
    for start in starts:
        inside = [start, *(start + 1 + np.flatnonzero(stream_N[start + 1 : start + length] == eos)), start + length]
        begins += [int(place) for place in inside[:-1]]
        lengths += [int(size) for size in np.diff(inside)]
    return begins, lengths


def document_losses(
    model: LanguageModel, ids_D: Sequence[Sequence[int]], texts: Sequence[str], eos: int
) -> DocumentLosses:
    """-log p of each document and its end, on its own after one `eos`; one that outgrows the block in windows.

    Each later window begins half a block further on, and only what no window before it has scored counts.
    """
    block, half = model.block_size, max(model.block_size // 2, 1)
    nats_D = np.zeros(len(ids_D))
    waves: dict[int, list[int]] = {}  # windows of one number have one way of counting
    for document, ids in enumerate(ids_D):
        later = max(math.ceil((len(ids) + 1 - block) / half), 0)
        for window in range(later + 1):
            waves.setdefault(window, []).append(document)
    for window, documents in sorted(waves.items()):
        pieces = [[eos, *ids_D[document], eos][window * half : window * half + block + 1] for document in documents]
        ends = np.cumsum([len(piece) for piece in pieces])
        starts = ends - [len(piece) for piece in pieces]
        stream_N = np.concatenate([np.array(piece, dtype=np.int64) for piece in pieces])
        nats_N = nats_of_rows(model, stream_N, starts, [len(piece) - 1 for piece in pieces])
        first = 1 if window == 0 else 1 + block - half  # the first target that counts
        for document, start, end in zip(documents, starts, ends, strict=True):
            nats_D[document] += math.fsum(nats_N[start + first : end])
    return DocumentLosses(
        nats_D=nats_D,
        characters=sum(map(len, texts)) + len("<eos>") * len(texts),
        targets=sum(map(len, ids_D)) + len(ids_D),
    )


@torch.no_grad()
def nats_of_rows(
    model: LanguageModel,
    stream_N: NDArray[np.int64],
    starts: Sequence[int] | NDArray[np.int64],
    lengths: Sequence[int],
) -> NDArray[np.float64]:
    """-log p of the id after each input of some rows of a stream, at that id's place; NaN where no row has it as a target.

    Rows of one length go through the model together. Raises AssertionError where a target is in two rows.
    """
    nats_N = np.full(len(stream_N), np.nan)
    starts_R, lengths_R = np.asarray(starts, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    device = next(model.parameters()).device
    for length in np.unique(lengths_R):
        rows = max(LOGITS_AT_ONCE // model.vocab_size // int(length), 1)
        same = starts_R[lengths_R == length]
        for first in range(0, len(same), rows):
            at_RL = same[first : first + rows, None] + np.arange(length)
            assert np.isnan(nats_N[at_RL + 1]).all(), "a target was scored twice"
            logits_RLV = model(torch.from_numpy(stream_N[at_RL]).to(device)).float()
            y_RL = torch.from_numpy(stream_N[at_RL + 1]).to(device)
            nats = F.cross_entropy(logits_RLV.flatten(0, 1), y_RL.flatten(), reduction="none")
            nats_N[at_RL + 1] = nats.double().cpu().numpy().reshape(at_RL.shape)
    return nats_N
