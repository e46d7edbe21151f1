"""Rows of tokens: what goes through a model at once, in training and in scoring alike.

Rows may differ in length. They lie one behind the other without padding, because most of a model works on single positions;
only attention needs to know where a row begins.

Shapes: N positions of all rows, B rows, T the longest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORE = -100
"""Target of a position that is not scored (`cross_entropy`'s own default)."""


@dataclass(frozen=True)
class Rows:
    """Inputs, and the targets one position on."""

    x_N: Tensor
    """int64: the tokens that the model reads."""
    y_N: Tensor
    """int64: the token that follows each, or IGNORE."""
    lengths_B: NDArray[np.int64]

    @classmethod
    def of(cls, x_BT: Tensor, y_BT: Tensor) -> Rows:
        """Rows of equal length."""
        B, T = x_BT.shape
        return cls(x_BT.flatten(), y_BT.flatten(), np.full(B, T, dtype=np.int64))

    def to(self, device: torch.device) -> Rows:
        return Rows(self.x_N.to(device), self.y_N.to(device), self.lengths_B)

    def twice(self) -> Rows:
        """The same rows once more behind these."""
        return Rows(self.x_N.repeat(2), self.y_N.repeat(2), np.tile(self.lengths_B, 2))

    def filled(self, multiple: int, token: int) -> Rows:
        """The same with rows behind them that count for nothing, so that there are a multiple of so many positions."""
        missing, longest = -len(self.x_N) % multiple, int(self.lengths_B.max())
        more = [longest] * (missing // longest) + [missing % longest] * (missing % longest > 0)
        x_N, y_N = (
            torch.cat([side, side.new_full((missing,), value)])
            for side, value in ((self.x_N, token), (self.y_N, IGNORE))
        )
        return Rows(x_N, y_N, np.concatenate((self.lengths_B, np.array(more, dtype=np.int64))))

    def split_before(self, token: int) -> Rows:
        """The same positions in shorter rows, of which each begins with that token or where a row began; shortest first."""
        begins = (self.x_N == token).numpy()
        begins[np.cumsum(self.lengths_B) - self.lengths_B] = True
        first = np.flatnonzero(begins)
        lengths = np.diff(first, append=len(begins))
        order = np.argsort(lengths, kind="stable")
        lengths_B = lengths[order]
        at_N = np.arange(len(begins)) + np.repeat(first[order] - (np.cumsum(lengths_B) - lengths_B), lengths_B)
        place_N = torch.from_numpy(at_N)
        return Rows(self.x_N[place_N], self.y_N[place_N], lengths_B)

    def padded(self) -> tuple[Tensor, Tensor]:
        """Inputs x_BT, filled up by zeros, and for each position of x_N its place among the B * T."""
        B, T = len(self.lengths_B), int(self.lengths_B.max())
        place_N = torch.from_numpy(np.flatnonzero(np.arange(T) < self.lengths_B[:, None])).to(self.x_N.device)
        x_BT = self.x_N.new_zeros(B * T).index_copy(0, place_N, self.x_N).view(B, T)
        return x_BT, place_N
