"""LayerScale: a learned factor for each channel that a block adds to the stream, folded into the linear map before it."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerScale(nn.Module):
    """A learned factor for each channel (Touvron et al. 2021, arXiv 2103.17239)."""

    def __init__(self, d_model: int, initial: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((d_model,), initial))


def scaled_linear(linear: nn.Linear, scale: LayerScale | None, x_NC: Tensor) -> Tensor:
    """A linear map and the factors of its channels, as one map, because the weights are fewer than what it gives out."""
    return F.linear(x_NC, scaled(linear.weight, scale), scaled(linear.bias, scale))


WeightOrNone = TypeVar("WeightOrNone", Tensor, Tensor | None)


def scaled(weight: WeightOrNone, scale: LayerScale | None) -> WeightOrNone:
    """A weight, if there is one, whose rows are the channels that are scaled."""
    if scale is None or weight is None:
        return weight
    return weight * (scale.factor if weight.ndim == 1 else scale.factor[:, None])
