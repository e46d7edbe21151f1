"""Windows: the rows in which documents are scored, and how one that outgrows the block is cut.

A document of n ids is n + 1 targets, its ids and its end; their inputs are an `eos` and its ids. The first window holds the
first `block_size` of them. Each later one begins half a block further on and scores only what no window before it scored,
so every target counts exactly once and has at least half a block of context, where the document has that much.

Shapes: D documents, W windows, B rows, N positions of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import IGNORE, Rows


@dataclass(frozen=True)
class Windows:
    """Stretches of documents, as positions of their targets."""

    document_W: NDArray[np.int64]
    start_W: NDArray[np.int64]
    """The first target's place in the document."""
    scored_W: NDArray[np.int64]
    """The first target that counts here; those before it are context."""
    stop_W: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.document_W)

    @property
    def lengths_W(self) -> NDArray[np.int64]:
        return self.stop_W - self.start_W


def windows_of(lengths_D: NDArray[np.int64], block_size: int) -> Windows:
    """The windows of documents with so many targets each; those of one document stand together, in order."""
    stride = max(block_size // 2, 1)
    more_D = -(-np.maximum(lengths_D - block_size, 0) // stride)  # windows after the first
    document_W = np.repeat(np.arange(len(lengths_D)), more_D + 1)
    first_W = np.repeat(np.cumsum(more_D + 1) - more_D - 1, more_D + 1)
    start_W = (np.arange(len(document_W)) - first_W) * stride
    stop_W = np.minimum(start_W + block_size, lengths_D[document_W])
    scored_W = np.where(start_W == 0, 0, start_W - stride + block_size)
    return Windows(document_W, start_W, scored_W, stop_W)


def rows_of(documents: EncodedDocuments, windows: Windows, chosen_B: NDArray[np.int64]) -> Rows:
    """Some windows as rows; targets that only are context are IGNORE."""
    lengths_B = windows.lengths_W[chosen_B]
    start_B, scored_B = windows.start_W[chosen_B], windows.scored_W[chosen_B]
    first_B = (documents.ends_D - documents.lengths_D)[windows.document_W[chosen_B]] + start_B
    # position in the rows -> position in ids_N: each row is moved by one constant
    at_N = np.arange(lengths_B.sum()) + np.repeat(first_B - (np.cumsum(lengths_B) - lengths_B), lengths_B)
    # before a document's first id lies the end of the one before it; before the very first, at -1, the end of the last
    x_N, y_N = (documents.ids_N[place].astype(np.int64) for place in (at_N - 1, at_N))
    y_N[at_N - np.repeat(first_B, lengths_B) < np.repeat(scored_B - start_B, lengths_B)] = IGNORE
    return Rows(torch.from_numpy(x_N), torch.from_numpy(y_N), lengths_B)


def of_like_length(windows: Windows, positions: int) -> Iterator[NDArray[np.int64]]:
    """All windows, the shortest first, in groups of at most `positions` positions, were they padded (one window at least)."""
    order = np.argsort(windows.lengths_W, kind="stable")
    lengths = windows.lengths_W[order]
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and (end + 1 - begin) * lengths[end] <= positions:
            end += 1
        yield order[begin:end]
        begin = end
