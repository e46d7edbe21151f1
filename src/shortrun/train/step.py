"""One training step: a batch becomes a gradient, the gradient a change of the weights.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from shortrun import recipe
from shortrun.model.gpt import GPT
from shortrun.tokens.batches import IGNORE, Batch


@dataclass(frozen=True)
class StepResult:
    loss: float
    """Mean cross-entropy of the batch's targets, nats per token, before the step."""
    grad_norm: float
    """Global norm of the gradient before clipping."""
    finite: bool
    """Whether both are numbers; where not, the weights have been left as they were."""


def train_step(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    lr: float,
    seed: tuple[int, int],
    settings: recipe.Recipe,
) -> StepResult:
    """Takes one step at learning rate `lr`.

    `seed` = (run's seed, step) decides dropout, so a step's randomness does not depend on the steps before it.
    """
    device = model.pos_emb.device
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))
    model.train()
    x_BT, y_BT = batch.x_BT.to(device), batch.y_BT.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.train.precision == "bfloat16"):
        logits_BTV = model(x_BT)
    # the sum over targets, divided once: rows that are padded weigh as many targets as they hold
    total = F.cross_entropy(logits_BTV.flatten(0, 1).float(), y_BT.flatten(), ignore_index=IGNORE, reduction="sum")
    loss = total / batch.targets
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optim.grad_clip)
    finite = bool(torch.isfinite(loss) & torch.isfinite(norm))
    if finite:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    return StepResult(loss.item(), norm.item(), finite)
