"""One training step: a batch becomes a gradient, the gradient a change of the weights.

Shapes: B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from shortrun.model.language_model import LanguageModel
from shortrun.optim.optimizers import Optimizers
from shortrun.recipe import OptimConfig, Recipe
from shortrun.tokens.batch import Batch
from shortrun.train.memory import out_of_memory
from shortrun.train.objective import copies_at_once, steps_before_rdrop
from shortrun.train.parallel import ALONE, Processes, unsynchronised

ASAM_ETA = 0.01
"""Added to |w| in ASAM's neighbourhood, so that weights at 0 can move too (Kwon et al. 2021)."""


@dataclass(frozen=True)
class StepResult:
    loss: float
    """Mean cross-entropy of the batch's targets, nats per token, before the step; of several learners the mean of theirs."""
    grad_norm: float
    """Global norm of the gradient before clipping; of several learners the mean of their norms."""
    finite: bool
    """Whether both are numbers; where not, the weights have been left as they were."""


def passes_of(recipe: Recipe, steps: int, total_steps: int) -> int:
    """Forward-backward passes over a batch in the first `steps` of a run's steps: SAM doubles them, R-Drop does from its
    first step on, and each member takes its own."""
    doubled = max(steps - steps_before_rdrop(total_steps, recipe.train), 0)
    return (2 if recipe.optim.sharpness != "none" else 1) * (steps + doubled) * recipe.model.members


class TrainingStep:
    """Takes steps: the gradient of a batch, at the weights or at the worst point nearby, clipped, handed to the optimizer.

    objective: an `Objective` over `model`, as it is or spread over processes; or one for each of its `learners`, which then
    take the step side by side, each with a gradient, a norm and a worst point of its own, as it would alone. positions: how
    many to take at once with R-Drop where the recipe has it, fewer for less memory; the gradients of these micro-batches add
    up to the batch's. A step that runs out of memory is taken again with half as many, and so are all after it.
    """

    def __init__(
        self,
        objective: nn.Module | Sequence[nn.Module],
        model: LanguageModel,
        optimizer: Optimizers,
        recipe: Recipe,
        processes: Processes = ALONE,
        positions: int = 2**62,
    ) -> None:
        self.objectives = [objective] if isinstance(objective, nn.Module) else list(objective)
        self.learners = [model] if len(self.objectives) == 1 else model.learners()
        self.model, self.optimizer = model, optimizer
        self.recipe, self.processes, self.positions = recipe, processes, positions

    def __call__(
        self, batch: Batch, lr_scale: float, seed: tuple[int, int], decay_scale: float = 1.0, rdrop: bool = True
    ) -> StepResult:
        """One step at `lr_scale` times each parameter group's peak learning rate, `decay_scale` times its weight decay.

        `rdrop` = False leaves out R-Drop in a step before it begins. `seed` = (run's seed, step) decides dropout, so a step's
        randomness does not depend on the steps before it. With SAM, both passes drop the same activations.
        """
        for objective in self.objectives:
            objective.train()
        loss = None
        while loss is None:
            try:
                loss = self._gradients(batch, seed, rdrop)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or not self._halve():
                    raise
            # the error's traceback held what was computed, and is gone here
            if loss is None and torch.cuda.is_available():
                torch.cuda.empty_cache()
        norms = [
            torch.nn.utils.get_total_norm([each.grad for each in learner.parameters() if each.grad is not None])
            for learner in self.learners
        ]
        norm = torch.stack(norms).mean()
        finite, clip = bool(torch.isfinite(loss) & torch.isfinite(norm)), self.recipe.optim.grad_clip
        if finite:
            for learner, own in zip(self.learners, norms, strict=True):
                if own + 1e-6 > clip:  # where torch's own function would multiply by less than 1; it does by 1 too
                    torch.nn.utils.clip_grads_with_norm_(learner.parameters(), clip, own)
            self.optimizer.step(lr_scale, decay_scale)
        return StepResult(loss.item(), norm.item(), finite)

    def _gradients(self, batch: Batch, seed: tuple[int, int], rdrop: bool) -> Tensor:
        """Leaves the step's gradient in the parameters, and the weights as they are; returns the mean cross-entropy."""
        loss = self._gradient(batch, seed, rdrop)
        if self.recipe.optim.sharpness != "none":
            with ExitStack() as moved:
                for learner in self.learners:
                    moved.enter_context(_worst_point_nearby(learner, self.recipe.optim))
                self._gradient(batch, seed, rdrop)
        return loss

    def _halve(self) -> bool:
        """Takes half as many positions at once from here on; False where that can't be.

        Several processes can't, because the others wait for sums of as many micro-batches as they take themselves.
        """
        geometry = self.recipe.batches
        positions = min(self.positions, geometry.batch_size * geometry.block_size)
        if positions <= geometry.block_size or self.processes.size > 1:
            return False
        self.optimizer.zero_grad()
        self.positions = max(positions // 2, geometry.block_size)
        return True

    def _gradient(self, batch: Batch, seed: tuple[int, int], rdrop: bool) -> Tensor:
        """Leaves each objective's gradient in the parameters; returns the mean cross-entropy."""
        device = next(self.model.parameters()).device
        rank = (self.processes.rank,) if self.processes.rank else ()  # the first draws what a single process would
        torch.manual_seed(int(np.random.SeedSequence((*seed, *rank)).generate_state(1, np.uint64)[0]))
        # sums, divided once: rows that are padded weigh as many targets as they hold. Processes average their gradients.
        copies = copies_at_once(self.recipe.train) if rdrop else 1
        count = batch.targets * copies
        nats_sum = torch.zeros((), device=device)
        self.optimizer.zero_grad()
        positions = self.positions * copies_at_once(self.recipe.train) // copies
        micro_batches = batch.micro_batches(positions, self.processes.rank, self.processes.size)
        for objective in self.objectives:  # one after the other, so that one's activations are there at a time
            for index, rows in enumerate(micro_batches):
                with unsynchronised(objective) if index < len(micro_batches) - 1 else nullcontext():
                    value, nats = objective(rows.to(device), rdrop)
                    (value * self.processes.size / count).backward()
                nats_sum = nats_sum + nats
        return self.processes.sum(nats_sum) / (count * len(self.objectives))


@contextmanager
def _worst_point_nearby(model: LanguageModel, config: OptimConfig) -> Iterator[None]:
    """Moves the weights to where the loss is highest nearby, to first order, and puts the very same weights back after.

    SAM (Foret et al. 2021, arXiv 2010.01412): rho * g / |g|. ASAM (Kwon et al. 2021, arXiv 2102.11600): the neighbourhood
    is scaled by s = |w| + eta for each weight, which makes the step rho * s^2 g / |s g|.
    """
    moved = [weight for weight in model.parameters() if weight.grad is not None]

    def scaled(weight: Tensor, vector: Tensor) -> Tensor:
        return (weight.abs() + ASAM_ETA) * vector if config.sharpness == "asam" else vector

    with torch.no_grad():
        # one weight at a time, and no gradient is held on to, so that `before` is the only copy of the weights' size
        norms = torch.stack([torch.linalg.vector_norm(scaled(weight, _gradient_of(weight))) for weight in moved])
        length = config.rho / (torch.linalg.vector_norm(norms).item() + 1e-12)
        before = [weight.detach().clone() for weight in moved]
    try:
        with torch.no_grad():
            for weight in moved:
                weight.add_(scaled(weight, scaled(weight, _gradient_of(weight))), alpha=length)
        yield
    finally:
        with torch.no_grad():
            for weight, saved in zip(moved, before, strict=True):
                weight.copy_(saved)


def _gradient_of(weight: nn.Parameter) -> Tensor:
    assert weight.grad is not None
    return weight.grad
