"""One training step: a batch becomes a gradient, the gradient a change of the weights.

Shapes: B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from shortrun import recipe
from shortrun.model.gpt import GPT
from shortrun.optim.optimizers import Optimizers
from shortrun.score.objective import training_loss
from shortrun.tokens.batches import IGNORE, Batch
from shortrun.train.parallel import ALONE, Processes, unsynchronised

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


def copies_at_once(settings: recipe.Train) -> int:
    """How often a batch is in memory at once: R-Drop's two passes go together, for dropout differs by row."""
    return 2 if settings.rdrop else 1


def passes_per_step(settings: recipe.Recipe) -> int:
    """Forward-backward passes over a batch in one step: SAM doubles them, and R-Drop does."""
    return (2 if settings.optim.sharpness != "none" else 1) * copies_at_once(settings.train)


class Objective(nn.Module):
    """Rows of a batch to (objective, nats), both summed over targets: what is differentiated."""

    def __init__(self, model: GPT, settings: recipe.Train) -> None:
        super().__init__()
        self.model = model
        self.hidden = model.hidden
        self.copies = copies_at_once(settings)
        self.settings = settings

    def forward(self, x_BT: Tensor, y_BT: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x_BT.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            return training_loss(
                self.hidden(x_BT.repeat(self.copies, 1)).flatten(0, 1),
                self.model.head_VD,
                y_BT.repeat(self.copies, 1).flatten(),
                label_smoothing=self.settings.label_smoothing,
                rdrop=self.settings.rdrop,
            )


class TrainingStep:
    """Takes steps: the gradient of a batch, at the weights or at the worst point nearby, clipped, handed to the optimizer.

    objective: an `Objective` over `model`, as it is or spread over processes. rows: how many rows to take at once, fewer
    for less memory; the gradients of the parts add up to the batch's.
    """

    def __init__(
        self,
        objective: nn.Module,
        model: GPT,
        optimizer: Optimizers,
        settings: recipe.Recipe,
        processes: Processes = ALONE,
        rows: int | None = None,
    ) -> None:
        self.objective, self.model, self.optimizer = objective, model, optimizer
        self.settings, self.processes, self.rows = settings, processes, rows

    def __call__(self, batch: Batch, rate: float, seed: tuple[int, int], decay: float = 1.0) -> StepResult:
        """One step at `rate` times each parameter group's peak learning rate and `decay` times its weight decay.

        `seed` = (run's seed, step) decides dropout, so a step's randomness does not depend on the steps before it. With
        SAM, both passes drop the same activations.
        """
        self.objective.train()
        loss = self._gradient(batch, seed)
        if self.settings.optim.sharpness != "none":
            with _worst_point_nearby(self.model, self.settings.optim):
                self._gradient(batch, seed)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.optim.grad_clip)
        finite = bool(torch.isfinite(loss) & torch.isfinite(norm))
        if finite:
            self.optimizer.step(rate, decay)
        return StepResult(loss.item(), norm.item(), finite)

    def _gradient(self, batch: Batch, seed: tuple[int, int]) -> Tensor:
        """Leaves the objective's gradient in the parameters; returns the mean cross-entropy."""
        device = self.model.head_VD.device
        rank = (self.processes.rank,) if self.processes.rank else ()  # the first draws what a single process would
        torch.manual_seed(int(np.random.SeedSequence((*seed, *rank)).generate_state(1, np.uint64)[0]))
        # sums, divided once: rows that are padded weigh as many targets as they hold. Processes average their gradients.
        count = batch.targets * copies_at_once(self.settings.train)
        nats_sum = torch.zeros((), device=device)
        self.optimizer.zero_grad()
        parts = list(self._parts(batch))
        for index, (x_BT, y_BT) in enumerate(parts):
            with unsynchronised(self.objective) if index < len(parts) - 1 else nullcontext():
                objective, nats = self.objective(x_BT.to(device), y_BT.to(device))
                (objective * self.processes.size / count).backward()
            nats_sum = nats_sum + nats
        return self.processes.sum(nats_sum) / count

    def _parts(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's rows, in equal parts of at most `rows`."""
        share = ceil(len(batch.x_BT) / self.processes.size)
        number = ceil(share / min(self.rows or share, share))  # as many in every process
        x_BT, y_BT = self.processes.rows(batch.x_BT), self.processes.rows(batch.y_BT)
        missing = number - len(x_BT)
        if missing > 0:  # a short last batch: rows without a target, for every process must take part in the sum
            x_BT = torch.cat([x_BT, batch.x_BT[:1].expand(missing, -1)])
            y_BT = torch.cat([y_BT, torch.full_like(batch.y_BT[:1], IGNORE).expand(missing, -1)])
        yield from zip(x_BT.tensor_split(number), y_BT.tensor_split(number), strict=True)


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
        norm = torch.nn.utils.get_total_norm(scaled)
        length = settings.rho / (norm.item() + 1e-12)
        for parameter, scale, gradient in zip(parameters, scales, scaled, strict=True):
            parameter.add_(scale * gradient * length)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, weight in zip(parameters, before, strict=True):
                parameter.copy_(weight)
