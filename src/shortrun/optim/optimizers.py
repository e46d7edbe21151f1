"""Optimizers, by name, and which parameters each takes care of."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from shortrun import recipe
from shortrun.errors import UserError


class Optimizers:
    """One or two torch optimizers that step together; each group remembers its peak learning rate and weight decay."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        for group in self.groups():
            group["peak"], group["peak_weight_decay"] = group["lr"], group["weight_decay"]

    def groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self, rate: float, decay: float = 1.0) -> None:
        """Moves the weights at `rate` times each group's peak learning rate and `decay` times its weight decay."""
        for group in self.groups():
            group["lr"] = rate * group["peak"]
            group["weight_decay"] = decay * group["peak_weight_decay"]
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
    head, gates, norms and biases. lion (Chen et al. 2023, arXiv 2302.06675) and soap (Vyas et al. 2024, arXiv 2409.11321;
    its first step only looks at the gradient) take every parameter. Raises UserError where their library is missing.
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
    match settings.name:
        case "sgd":
            return Optimizers(torch.optim.SGD(groups, lr=settings.lr))
        case "lion":
            return Optimizers(_library().Lion(groups, lr=settings.lr, betas=settings.betas))
        case "soap":
            return Optimizers(_library().SOAP(groups, lr=settings.lr, betas=settings.betas))
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


def _library() -> Any:
    try:
        import pytorch_optimizer
    except ImportError:
        raise UserError("The lion and soap optimizers come with an extra: pip install 'shortrun[optimizers]'") from None
    return pytorch_optimizer


def _matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights of linear maps (a tied head is an embedding, not one of them)."""
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    return [parameter for parameter in model.parameters() if id(parameter) in linear]
