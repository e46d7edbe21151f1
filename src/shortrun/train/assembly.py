"""From a recipe to everything a run needs in memory: titles, tokenizer, batches, model, optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from shortrun.model.gpt import GPT
from shortrun.optim.optimizers import Optimizers, make_optimizer
from shortrun.recipe import Recipe
from shortrun.score.evaluate import ScoringSet
from shortrun.text.corpus import Corpus, load_corpus
from shortrun.tokens.batches import Batches, make_batches
from shortrun.tokens.kinds import make_tokenizer
from shortrun.tokens.tokenizer import Tokenizer
from shortrun.train.budget import rows_at_once
from shortrun.train.compiled import compile_hidden
from shortrun.train.device import choose_device, keep_freed_memory, machine, make_repeatable
from shortrun.train.parallel import ALONE, Processes
from shortrun.train.step import Objective, TrainingStep


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, before its first step. The titles' text is not among them: ids are what is trained on and scored."""

    recipe: Recipe
    train_titles: int
    """How many there are."""
    tokenizer: Tokenizer
    batches: Batches
    validation: ScoringSet
    tuning: ScoringSet | None
    model: GPT
    step: TrainingStep
    average: AveragedModel | None
    """The moving average of the weights, where the recipe keeps one."""
    device: torch.device
    manifest: dict[str, Any]
    """What manifest.json holds: data, tokenizer, machine."""
    processes: Processes
    notes: tuple[str, ...]
    """What a person should know about how it will train."""

    @property
    def optimizer(self) -> Optimizers:
        return self.step.optimizer

    @property
    def scored(self) -> GPT:
        """The model whose losses count, and which is sampled: the average of the weights, where there is one."""
        if self.average is None:
            return self.model
        averaged = self.average.module
        assert isinstance(averaged, GPT)
        return averaged


def assemble(
    recipe: Recipe,
    processes: Processes = ALONE,
    tokenizer: Tokenizer | None = None,
    threads: int | None = None,
) -> Assembly:
    """Builds the parts in the order in which text becomes a loss. A resumed run gives its tokenizer, a new one makes it,
    and the number of threads it began with.

    The initial weights follow from `train.seed`. Raises UserError for anything that can't work, before a step is taken.
    """
    keep_freed_memory()
    threads = make_repeatable(recipe.train.threads or threads)
    device, reason = choose_device(recipe.train.device)
    corpus = load_corpus(recipe.data)
    if tokenizer is None:
        seen = corpus.train.titles if recipe.tokenizer.fit_on == "train" else _both(corpus)
        tokenizer = make_tokenizer(seen, recipe.tokenizer)
    tuning = ScoringSet(tokenizer, corpus.tuning.titles) if corpus.tuning else None
    validation = ScoringSet(tokenizer, corpus.validation.titles)
    encoded = tokenizer.encode_slices(corpus.train.titles)
    batches = make_batches(
        encoded, tokenizer.eos, tokenizer.vocab_size, recipe.batches, recipe.train.epochs, recipe.train.seed
    )
    processes.require_same("titles (their sha256s differ)", corpus.manifest["sha256"])
    processes.require_same("tokenizer (their sha256s differ)", tokenizer.sha256)
    torch.manual_seed(recipe.train.seed)
    model = GPT(recipe.model, tokenizer.vocab_size, recipe.batches.block_size, tokenizer.eos).to(device)
    average = _average(model, recipe.train.ema)
    objective = Objective(model, recipe.train)
    rows, notes = rows_at_once(model, recipe, device.type, processes.size)
    if recipe.train.compile != "off":
        notes += compile_hidden(objective, recipe, device, rows)
    spread = processes.spread(objective, device)
    optimizer = make_optimizer(model, recipe.optim)
    manifest = {
        "recipe": recipe.model_dump(mode="json"),
        "data": corpus.manifest,
        "tokenizer": {
            "sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
            "train_tokens": batches.tokens_per_epoch,
            "validation_tokens": len(validation.joined_ids),
        },
        "denominators": {"characters": validation.characters, "bytes": validation.bytes},
        "machine": machine(device, reason, threads, processes.size),
    }
    return Assembly(
        recipe=recipe,
        train_titles=len(corpus.train.titles),
        tokenizer=tokenizer,
        batches=batches,
        validation=validation,
        tuning=tuning,
        model=model,
        step=TrainingStep(spread, model, optimizer, recipe, processes, rows),
        average=average,
        device=device,
        manifest=manifest,
        processes=processes,
        notes=tuple(notes),
    )


def _average(model: GPT, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


def _both(corpus: Corpus) -> list[str]:
    """Training (tuning titles among them, as the split was before they were cut) and validation titles, in order."""
    return [*corpus.train.titles, *(corpus.tuning.titles if corpus.tuning else ()), *corpus.validation.titles]
