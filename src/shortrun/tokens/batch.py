"""One batch: what a step trains on, in micro-batches whose gradients add up.

Shapes: B rows, T tokens a row, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import IGNORE, Rows
from shortrun.tokens.windows import Windows, rows_of

ROUND = 64
"""Positions of a micro-batch of documents are filled up to a multiple of this, because oneDNN compiles its bfloat16 products
anew for each number of rows: 0.55 s a step instead of 0.85 on a CPU with AMX."""
SLACK = 0.1
"""How much a micro-batch of documents may hold above what was asked for before there is one more."""


class Batch(Protocol):
    """What one step trains on."""

    @property
    def targets(self) -> int:
        """How many tokens are targets in it."""
        ...

    @property
    def documents_ended(self) -> NDArray[np.int64]:
        """Index of every training document whose end is among the targets, once for each time."""
        ...

    def micro_batches(self, positions: int, process: int = 0, of: int = 1) -> list[Rows]:
        """The rows that one of several processes takes, in pieces that it takes one after the other.

        Each has at most about `positions` positions, one row at least; every process gets as many pieces.
        """
        ...


@dataclass(frozen=True)
class RowBatch:
    """Rows of equal length."""

    x_BT: Tensor
    """int64: the tokens the model reads."""
    y_BT: Tensor
    """int64: the token that follows each, or IGNORE."""
    targets: int
    documents_ended: NDArray[np.int64]

    def micro_batches(self, positions: int, process: int = 0, of: int = 1) -> list[Rows]:
        share = ceil(len(self.x_BT) / of)
        rows = min(max(positions // self.x_BT.shape[1], 1), share)
        number = ceil(share / rows)  # as many in every process
        x_BT, y_BT = (each.tensor_split(of)[process] for each in (self.x_BT, self.y_BT))
        missing = number - len(x_BT)
        if missing > 0:  # a short last batch: rows without a target, because every process must take part in the sum
            x_BT = torch.cat([x_BT, self.x_BT[:1].expand(missing, -1)])
            y_BT = torch.cat([y_BT, torch.full_like(self.y_BT[:1], IGNORE).expand(missing, -1)])
        return [Rows.of(x, y) for x, y in zip(x_BT.tensor_split(number), y_BT.tensor_split(number), strict=True)]


@dataclass(frozen=True)
class DocumentBatch:
    """Documents, each in a row of its own (a long one in several windows), in the order of their length."""

    documents: EncodedDocuments
    windows: Windows
    chosen: NDArray[np.int64]
    """The windows that are in the batch."""
    targets: int
    documents_ended: NDArray[np.int64]

    def micro_batches(self, positions: int, process: int = 0, of: int = 1) -> list[Rows]:
        by_length = self.chosen[np.argsort(self.windows.lengths_W[self.chosen], kind="stable")]
        shares = [self._pieces(by_length[number::of], positions) for number in range(of)]
        made = [
            rows_of(self.documents, self.windows, piece).filled(ROUND, self.documents.eos) for piece in shares[process]
        ]
        missing = max(map(len, shares)) - len(made)
        # rows of one position, because a model may have no longer ones
        nothing = Rows.of(*(torch.full((ROUND, 1), value) for value in (self.documents.eos, IGNORE)))
        return made + [nothing] * missing  # every process must take part in the sum

    def _pieces(self, chosen: NDArray[np.int64], positions: int) -> list[NDArray[np.int64]]:
        """The fewest pieces of about equally many positions, at most about `positions`."""
        if not len(chosen):  # a short last batch, of fewer windows than there are processes
            return []
        ends = np.cumsum(self.windows.lengths_W[chosen])
        number = max(ceil(ends[-1] / positions - SLACK), 1)
        at = np.searchsorted(ends, ends[-1] * np.arange(1, number) / number)
        return [piece for piece in np.split(chosen, at) if len(piece)]
