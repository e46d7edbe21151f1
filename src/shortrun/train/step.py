"""One training step: a batch becomes a gradient, the gradient a change of the weights.

Shapes: B rows, T positions, N = B * T.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shortrun import recipe
from shortrun.model.gpt import GPT
from shortrun.optim.optimizers import Optimizers
from shortrun.score.objective import training_loss
from shortrun.tokens.batches import Batch

ASAM_ETA = 0.01
"""Added to |w| in ASAM's neighbourhood, so that weights at 0 can move too (Kwon et al. 2021)."""


@dataclass(frozen=True)
class StepResult:
    loss: float
    """Mean cross-entropy of the batch's targets, nats per token, before the step."""
    grad_norm: float
    """Global norm of the gradient before clipping."""
    finite: bool
    """Whether both are numbers; where not, the weights have been left as they were."""


def passes_per_step(settings: recipe.Recipe) -> int:
    """Forward-backward passes over a batch in one step: SAM doubles them, and R-Drop does."""
    return (2 if settings.optim.sharpness != "none" else 1) * (2 if settings.train.rdrop else 1)


def train_step(
    model: GPT,
    optimizer: Optimizers,
    batch: Batch,
    rate: float,
    seed: tuple[int, int],
    settings: recipe.Recipe,
    decay: float = 1.0,
) -> StepResult:
    """Takes one step at `rate` times each parameter group's peak learning rate and `decay` times its weight decay.

    `seed` = (run's seed, step) decides dropout, so a step's randomness does not depend on the steps before it. With SAM,
    both passes drop the same activations.
    """
    model.train()
    loss = _gradient(model, optimizer, batch, seed, settings)
    if settings.optim.sharpness != "none":
        with _worst_point_nearby(model, settings.optim):
            _gradient(model, optimizer, batch, seed, settings)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optim.grad_clip)
    finite = bool(torch.isfinite(loss) & torch.isfinite(norm))
    if finite:
        optimizer.step(rate, decay)
    return StepResult(loss.item(), norm.item(), finite)


def _gradient(
    model: GPT, optimizer: Optimizers, batch: Batch, seed: tuple[int, int], settings: recipe.Recipe
) -> Tensor:
    """Leaves the objective's gradient in the parameters; returns the mean cross-entropy."""
    device = model.token_emb.weight.device
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))
    x_BT, y_N = batch.x_BT.to(device), batch.y_BT.to(device).flatten()
    copies = 2 if settings.train.rdrop else 1  # both of R-Drop's passes in one batch: dropout differs by row
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.train.precision == "bfloat16"):
        objective, nats = training_loss(
            model.hidden(x_BT.repeat(copies, 1)).flatten(0, 1),
            model.head_VD,
            y_N.repeat(copies),
            label_smoothing=settings.train.label_smoothing,
            rdrop=settings.train.rdrop,
        )
    count = batch.targets * copies  # sums, divided once: rows that are padded weigh as many targets as they hold
    optimizer.zero_grad()
    (objective / count).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return nats / count


@contextmanager
def _worst_point_nearby(model: GPT, settings: recipe.Optim) -> Iterator[None]:
    """Moves the weights to where the loss is highest nearby, to first order, and puts the very same weights back after.

    SAM (Foret et al. 2021, arXiv 2010.01412): rho * g / |g|. ASAM (Kwon et al. 2021, arXiv 2102.11600): the neighbourhood
    is scaled by s = |w| + eta for each weight, which makes the step rho * s^2 g / |s g|.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        scales = [
            weight.abs() + ASAM_ETA if settings.sharpness == "asam" else torch.ones_like(weight) for weight in before
        ]
        scaled = [scale * gradient for scale, gradient in zip(scales, gradients, strict=True)]
        norm = torch.nn.utils.get_total_norm(scaled) + 1e-12
        for parameter, scale, gradient in zip(parameters, scales, scaled, strict=True):
            parameter.add_(scale * gradient * (settings.rho / norm))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, weight in zip(parameters, before, strict=True):
                parameter.copy_(weight)
