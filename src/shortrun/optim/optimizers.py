"""Optimizers, by name, and which parameters each takes care of."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from shortrun import recipe


class Optimizers:
    """One or two torch optimizers that step together; each group remembers its peak learning rate."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        for group in self.groups():
            group["peak"] = group["lr"]

    def groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self, rate: float) -> None:
        """Moves the weights at `rate` times each group's peak learning rate."""
        for group in self.groups():
            group["lr"] = rate * group["peak"]
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def make_optimizer(model: nn.Module, settings: recipe.Optim) -> Optimizers:
    """The optimizer a recipe names, over all of a model's parameters.

    muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) takes the blocks' linear maps; adamw the embeddings, the
    head, gates, norms and biases.
    """
    matrices = _matrices(model)
    in_blocks = {id(p) for name, p in model.named_parameters() if name.startswith("blocks.") and ".gate." not in name}
    by_muon = [p for p in matrices if id(p) in in_blocks] if settings.name == "muon" else []
    taken = {id(p) for p in by_muon}
    rest = [p for p in model.parameters() if id(p) not in taken]
    groups: list[dict[str, Any]] = [{"params": rest, "weight_decay": settings.weight_decay}]
    if settings.decay == "matrices":
        decaying = {id(p) for p in matrices}
        groups = [
            {"params": [p for p in rest if id(p) in decaying], "weight_decay": settings.weight_decay},
            {"params": [p for p in rest if id(p) not in decaying], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        return Optimizers(torch.optim.SGD(groups, lr=settings.lr))
    adamw = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)
    if settings.name == "adamw":
        return Optimizers(adamw)
    muon = torch.optim.Muon(
        by_muon,
        lr=settings.muon_lr,
        momentum=settings.muon_momentum,
        weight_decay=settings.muon_weight_decay,
    )
    return Optimizers(muon, adamw)


def _matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights of linear maps (a tied head is an embedding, not one of them)."""
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    return [parameter for parameter in model.parameters() if id(parameter) in linear]
