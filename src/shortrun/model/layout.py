"""Where rows begin in a stream of positions without padding, and how attention takes them together.

Rows of like length make a group, whose queries, keys and values are padded to its longest row. Attention is causal, so no
position sees the padding behind its row, and no mask is needed.

Shapes: N positions of all rows, B rows of a group, T its longest, D any width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GROUP = 128
"""What one more group costs, in positions that are padded."""
GRID = 8
"""In bfloat16 on a CPU, a group's rows and positions are multiples of this, because oneDNN compiles a kernel for each shape that it
has not seen: 0.57 instead of 0.59 s of processor time for a step of 4 x 256."""


@dataclass(frozen=True)
class Group:
    """Some rows that lie one behind the other."""

    first: int
    stop: int
    """The stretch of positions that they take."""
    rows: int
    width: int
    place: Tensor | None
    """For each of the positions its place among B * T; None where all rows are equally long."""
    heads: dict[tuple[int, int], Heads] = field(default_factory=dict, compare=False, repr=False)
    """What `heads_of` has found, because every layer asks for the same."""

    def pad(self, x_ND: Tensor) -> Tensor:
        """The group's part of a stream, as x_BTD; zeros behind each row."""
        x_ND = x_ND[self.first : self.stop]
        if self.place is not None:
            x_ND = _Pad.apply(x_ND, self.place, self.rows * self.width)  # type: ignore[no-untyped-call]
        return x_ND.view(self.rows, self.width, -1)

    def unpad(self, x_BTD: Tensor) -> Tensor:
        """The positions that are none of the padding."""
        x_ND = x_BTD.flatten(0, 1)
        return x_ND if self.place is None else take_rows(x_ND, self.place)

    def heads_of(self, parts: int, n_head: int) -> Heads:
        if (parts, n_head) not in self.heads:
            self.heads[parts, n_head] = self._find_heads(parts, n_head)
        return self.heads[parts, n_head]

    def _find_heads(self, P: int, H: int) -> Heads:
        B, T, n = self.rows, self.width, self.stop - self.first
        inside_PBHT = torch.arange(P * B * H * T).view(P, B, H, T)
        back_BTPH = inside_PBHT.permute(1, 3, 0, 2).flatten(0, 1)
        back_n = (back_BTPH if self.place is None else back_BTPH[self.place]).flatten()
        into = torch.full((P * B * H * T,), -1).index_copy_(0, back_n, torch.arange(n * P * H) + self.first * P * H)
        behind = (into < 0).nonzero()[:, 0]
        return Heads((P, B * H, T), into.clamp_(min=0), behind, back_n, slice(self.first * P * H, self.stop * P * H))


@dataclass(frozen=True)
class Heads:
    """How the heads of a group's positions lie in a stream, (N, P, H), and how in P stacks of matrices, (P, M, T)."""

    shape: tuple[int, int, int]
    into: Tensor
    """For each place in the stacks the one in the stream; any at all behind a row."""
    behind: Tensor
    """The places in the stacks that are behind a row."""
    back: Tensor
    """For each place of the group in the stream the one in the stacks."""
    here: slice
    """Those places of the group in the stream."""

    def stacked(self, x_RK: Tensor) -> Tensor:
        """The heads of a stream as x_PMTK. Behind a row there is nothing to rely on."""
        return x_RK.index_select(0, self.into).view(*self.shape, -1)

    def clear_behind(self, x_PMTK: Tensor) -> Tensor:
        """Zeros behind each row."""
        if len(self.behind):
            x_PMTK.view(-1, x_PMTK.shape[-1]).index_fill_(0, self.behind, 0)
        return x_PMTK

    def put_back(self, x_PMTK: Tensor, out_RK: Tensor) -> None:
        """The way back, into the group's part of a stream."""
        torch.index_select(x_PMTK.view(-1, x_PMTK.shape[-1]), 0, self.back, out=out_RK[self.here])


@dataclass(frozen=True)
class Layout:
    """All rows of a stream, in groups."""

    groups: tuple[Group, ...]

    @classmethod
    def full(cls, rows: int, width: int) -> Layout:
        """Rows of equal length."""
        return cls((Group(0, rows * width, rows, width, None),))

    @classmethod
    def of(cls, lengths_B: NDArray[np.int64], device: torch.device) -> Layout:
        """Rows of any length; those of like length are best side by side."""
        always_other = device.type == "cpu" and torch.is_autocast_enabled("cpu") and len(set(lengths_B.tolist())) > 1
        grid = GRID if always_other else 1
        ends = np.concatenate(([0], np.cumsum(lengths_B)))
        groups = []
        for first, stop in cuts(_up(lengths_B, grid)):
            lengths = lengths_B[first:stop]
            rows, width, place = _up(stop - first, grid), _up(int(lengths.max()), grid), None
            if rows > len(lengths) or (lengths != width).any():
                place = torch.from_numpy(np.flatnonzero(np.arange(width) < lengths[:, None])).to(device)
            groups.append(Group(int(ends[first]), int(ends[stop]), rows, width, place))
        return cls(tuple(groups))

    def places(self, device: torch.device) -> Tensor:
        """The position of each of the N in its row."""
        found = []
        for group in self.groups:
            place = torch.arange(group.width, device=device).repeat(group.rows)
            found.append(place if group.place is None else place[group.place])
        return torch.cat(found)


def cuts(lengths_B: NDArray[np.int64]) -> list[tuple[int, int]]:
    """The rows of each group, as first and stop, so that padding and GROUP for each group add up to the least.

    Groups begin where the length changes. The best way to cut the rows up to any one of them follows from the best ways to
    cut those before it.
    """
    begins = np.concatenate(([0], np.flatnonzero(np.diff(lengths_B)) + 1, [len(lengths_B)]))
    tokens = np.concatenate(([0], np.cumsum(lengths_B)))[begins]
    lengths = lengths_B[begins[:-1]]
    least, came_from = np.zeros(len(begins)), [0]
    for last in range(1, len(begins)):
        widest = np.maximum.accumulate(lengths[:last][::-1])[::-1]
        padding = (begins[last] - begins[:last]) * widest - (tokens[last] - tokens[:last])
        costs = least[:last] + padding + GROUP
        came_from.append(int(costs.argmin()))
        least[last] = costs.min()
    found = [len(begins) - 1]
    while found[-1]:
        found.append(came_from[found[-1]])
    return [(int(begins[first]), int(begins[stop])) for first, stop in pairwise(found[::-1])]


Counts = TypeVar("Counts", int, NDArray[np.int64])


def _up(counts: Counts, grid: int) -> Counts:
    """To the next multiples of `grid`."""
    return -(-counts // grid) * grid


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, place_N: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(place_N)
        return x_ND.new_zeros(size, x_ND.shape[1]).index_copy_(0, place_N, x_ND)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0].index_select(0, ctx.saved_tensors[0]), None, None


def take_rows(x_ND: Tensor, place_N: Tensor) -> Tensor:
    """Some rows of a matrix, none of them twice."""
    found: Tensor = _Unpad.apply(x_ND, place_N)  # type: ignore[no-untyped-call]
    return found


class _Unpad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, place_N: Tensor) -> Tensor:
        ctx.save_for_backward(place_N)
        ctx.size = len(x_ND)
        return x_ND.index_select(0, place_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_ND = gradients[0]
        return d_ND.new_zeros(ctx.size, d_ND.shape[1]).index_copy_(0, ctx.saved_tensors[0], d_ND), None
