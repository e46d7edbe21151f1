"""Optimizers, by name: how each is built, which parameters it takes care of, what it keeps in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shortrun.errors import missing_extra
from shortrun.model.attention import CausalSelfAttention
from shortrun.model.gpt import GPT, block_matrices
from shortrun.optim.muon import Muon
from shortrun.recipe import OptimConfig


class Optimizers:
    """One or two torch optimizers that step together; each group remembers its peak learning rate and weight decay."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        for group in self.groups():
            group["peak"], group["peak_weight_decay"] = group["lr"], group["weight_decay"]

    def groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self, lr_scale: float, decay_scale: float = 1.0) -> None:
        """Moves the weights at `lr_scale` times each group's peak learning rate, `decay_scale` times its weight decay."""
        for group in self.groups():
            group["lr"] = lr_scale * group["peak"]
            group["weight_decay"] = decay_scale * group["peak_weight_decay"]
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


Groups = list[dict[str, Any]]
"""Parameter groups, as torch's optimizers take them."""


@dataclass(frozen=True)
class Kind:
    """All there is to know of one optimizer; its settings are in `recipe.OptimConfig`."""

    build: Callable[[nn.Module, OptimConfig, torch.dtype], Optimizers]
    """Over all of a model's parameters, given the precision of the run's matrix products."""
    remembered: float
    """Numbers that it keeps for each parameter, about."""


def make_optimizer(model: nn.Module, config: OptimConfig, dtype: torch.dtype = torch.float32) -> Optimizers:
    """The optimizer a recipe names, over all of a model's parameters. Raises UserError where its library is missing.

    dtype: the precision of the run's matrix products, in which Muon orthogonalises.
    """
    return OPTIMIZERS[config.name].build(model, config, dtype)


def _sgd(model: nn.Module, config: OptimConfig, _: torch.dtype) -> Optimizers:
    """Without momentum, as the baseline."""
    return Optimizers(torch.optim.SGD(_groups(model, config), lr=config.lr))


def _adamw(model: nn.Module, config: OptimConfig, _: torch.dtype) -> Optimizers:
    """Loshchilov & Hutter 2019, arXiv 1711.05101."""
    return Optimizers(_adamw_over(_groups(model, config), config))


def _muon(model: nn.Module, config: OptimConfig, dtype: torch.dtype) -> Optimizers:
    """Jordan et al. 2024, kellerjordan.github.io/posts/muon: the blocks' matrices by Muon, everything else by AdamW."""
    matrices = block_matrices(model)
    muon = Muon(
        matrices,
        lr=config.muon_lr,
        momentum=config.muon_momentum,
        weight_decay=config.muon_weight_decay,
        dtype=dtype,
    )
    return Optimizers(muon, _adamw_over(_groups(model, config, without=[matrix for matrix, _ in matrices]), config))


def _lion(model: nn.Module, config: OptimConfig, _: torch.dtype) -> Optimizers:
    """Chen et al. 2023, arXiv 2302.06675."""
    return Optimizers(_library().Lion(_groups(model, config), lr=config.lr, betas=config.betas))


def _soap(model: nn.Module, config: OptimConfig, _: torch.dtype) -> Optimizers:
    """Vyas et al. 2024, arXiv 2409.11321. Its first step only looks at the gradient."""
    return Optimizers(_library().SOAP(_groups(model, config), lr=config.lr, betas=config.betas))


OPTIMIZERS = {
    "sgd": Kind(_sgd, remembered=0),
    "adamw": Kind(_adamw, remembered=2),
    "muon": Kind(_muon, remembered=1.5),
    "lion": Kind(_lion, remembered=1),
    "soap": Kind(_soap, remembered=6),
}


def _adamw_over(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def _groups(model: nn.Module, config: OptimConfig, without: list[nn.Parameter] | None = None) -> Groups:
    """A model's parameters, but for some: one group for each learning rate among them, those that decay first."""
    taken = {id(parameter) for parameter in without or ()}
    parameters = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    # a tied head is an embedding, not a linear map
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    factors = _lr_factors(model, config)
    found: dict[tuple[bool, float], list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        spared = config.decay == "matrices" and id(parameter) not in linear
        found[spared, factors.get(id(parameter), 1.0)].append(parameter)
    return [
        {"params": alike, "weight_decay": 0.0 if spared else config.weight_decay, "lr": config.lr * factor}
        for (spared, factor), alike in sorted(found.items(), key=lambda pair: pair[0])
    ]


def _lr_factors(model: nn.Module, config: OptimConfig) -> dict[int, float]:
    """By what the learning rate of a parameter is multiplied, by its id; of others it is not."""
    factors = {id(one): config.gain_lr_factor for one in model.parameters() if one.ndim <= 1}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            factors[id(module.weight)] = config.embedding_lr_factor
        if isinstance(module, CausalSelfAttention) and module.gate is not None:
            factors[id(module.gate.weight)] = config.gain_lr_factor
        if isinstance(module, GPT):
            if module.pos_emb is not None:
                factors[id(module.pos_emb)] = config.embedding_lr_factor
            if module.head is not None:
                factors[id(module.head.weight)] = config.head_lr_factor
    return factors


def _library() -> Any:
    try:
        import pytorch_optimizer
    except ImportError:
        raise missing_extra('optim.name = "lion" or "soap"', "optimizers") from None
    return pytorch_optimizer
