"""From a recipe and what was prepared for it to the parts that move: batches, model, optimizer, step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from shortrun.model.device import choose_device, choose_precision, machine
from shortrun.model.language_model import LanguageModel
from shortrun.model.make import make_model
from shortrun.optim.optimizers import Optimizers, make_optimizer
from shortrun.recipe import Recipe
from shortrun.runs.checkpoints import weights_sha256
from shortrun.runs.folder import run_fingerprint
from shortrun.tokens.batches import Batches, make_batches
from shortrun.train.compiled import compile_model
from shortrun.train.memory import rows_at_once
from shortrun.train.objective import Objective
from shortrun.train.parallel import Processes
from shortrun.train.prepare import Prepared
from shortrun.train.step import TrainingStep


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, before its first step."""

    recipe: Recipe
    prepared: Prepared
    batches: Batches
    model: LanguageModel
    step: TrainingStep
    average: AveragedModel | None
    """The moving average of the weights, where the recipe keeps one."""
    device: torch.device
    manifest: dict[str, Any]
    """What manifest.json holds of recipe, data, tokenizer and machine."""
    processes: Processes
    notes: tuple[str, ...]
    """What a person should know about how it will train."""

    @property
    def optimizer(self) -> Optimizers:
        return self.step.optimizer

    @property
    def scored(self) -> LanguageModel:
        """The model whose losses count, and which is sampled: the average of the weights, where there is one."""
        if self.average is None:
            return self.model
        averaged = self.average.module
        assert isinstance(averaged, LanguageModel)
        return averaged


def assemble(
    recipe: Recipe, prepared: Prepared, processes: Processes, threads: int, precision: str | None = None
) -> Assembly:
    """Builds the parts; the initial weights follow from `train.seed`.

    precision: what a run that goes on began with; left out, the recipe's, or what a timed product chooses. Raises UserError
    for anything that can't work, before a step is taken.
    """
    device, reason = choose_device(recipe.train.device)
    if precision:
        dtype, sentence = getattr(torch, precision), f"{precision}, because the run began in it"
    else:
        dtype, sentence = choose_precision(recipe.train.precision, device)
        dtype = processes.firsts(dtype)
    tokenizer = prepared.tokenizer
    batches = make_batches(prepared.train, recipe.batches, recipe.train.epochs, recipe.train.seed)
    data_sha256 = prepared.corpus.sha256
    processes.require_same("documents (their sha256s differ)", data_sha256)
    processes.require_same("tokenizer (their sha256s differ)", tokenizer.sha256)
    torch.manual_seed(recipe.train.seed)
    model = make_model(recipe, tokenizer.vocab_size, tokenizer.eos).to(device)
    average = _average(model, recipe.train.ema)
    objectives = [Objective(learner, recipe.train, dtype) for learner in model.learners()]
    rows, notes = rows_at_once(model, recipe, dtype, device.type, processes.size)
    if recipe.train.precision != "float32":
        notes = [f"Training computes in {sentence}", *notes]
    if recipe.train.compile != "off":
        compiled = [note for each in objectives for note in compile_model(each, recipe, device, rows)]
        notes += dict.fromkeys(compiled)
    optimizer = make_optimizer(model, recipe.optim, dtype)
    manifest = {
        "fingerprint": run_fingerprint(recipe, data_sha256, tokenizer.sha256),
        "recipe": recipe.model_dump(mode="json"),
        **prepared.manifest(),
        "machine": machine(device, reason, threads, dtype, processes.size),
        "initial_weights": {"sha256": weights_sha256(model)},
    }
    return Assembly(
        recipe=recipe,
        prepared=prepared,
        batches=batches,
        model=model,
        step=TrainingStep(
            [processes.spread(each, device) for each in objectives],
            model,
            optimizer,
            recipe,
            processes,
            rows * recipe.batches.block_size,
        ),
        average=average,
        device=device,
        manifest=manifest,
        processes=processes,
        notes=tuple(notes),
    )


def _average(model: LanguageModel, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
