"""Dropout whose bits are drawn quickly on a CPU.

torch draws them there one at a time, on one thread: a sixth of a bfloat16 step of the baseline's shape (docs/performance.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zeroes a share `p` of its input in training and scales the rest up, so that the mean stays (Srivastava et al. 2014)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return drop(x, self.p) if self.training else x


def drop(x: Tensor, p: float) -> Tensor:
    """`x` with a share `p` of its elements zeroed and the rest divided by 1 - p. torch's generator decides which."""
    if not p:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    keep, scale = draw_mask(x.shape, p, x.dtype)
    return x * keep.mul_(scale)


class Mask(NamedTuple):
    """What dropout keeps."""

    keep: Tensor
    """1 or 0 for each element."""
    scale: float
    """What the kept ones are multiplied by."""


def draw_mask(shape: torch.Size, p: float, dtype: torch.dtype) -> Mask:
    """A mask on the CPU. Each element gets 16 random bits, so p is a multiple of 2^-16."""
    seed, count = int(torch.randint(2**63 - 1, ())), shape.numel()
    words = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16)[:count]
    dropped = min(round(p * 2**16), 2**16 - 1)
    keep = torch.empty(shape, dtype=dtype)
    torch.ge(torch.from_numpy(words).view(shape), dropped - 2**15, out=keep)
    return Mask(keep, 1 / (1 - dropped / 2**16))
