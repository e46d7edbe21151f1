"""Optimizers, by name."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from shortrun import recipe


def make_optimizer(parameters: Iterable[nn.Parameter], settings: recipe.Optim) -> torch.optim.Optimizer:
    """The optimizer a recipe names, over all parameters in one group."""
    if settings.name == "sgd":
        return torch.optim.SGD(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(
        parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )
