"""A trained model, read back from its run folder: for scoring, sampling, and whatever looks at runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shortrun.errors import UserError
from shortrun.model.generate import generate
from shortrun.model.gpt import GPT
from shortrun.recipe import Recipe
from shortrun.tokens.tokenizer import Tokenizer
from shortrun.train.checkpoints import newest_checkpoint, whole_checkpoints
from shortrun.train.device import choose_device, keep_freed_memory, make_repeatable
from shortrun.train.folder import RunFolder
from shortrun.train.state import load_weights


@dataclass(frozen=True)
class Trained:
    """The model of a run's newest whole checkpoint, with what is needed to use it."""

    recipe: Recipe
    tokenizer: Tokenizer
    model: GPT
    step: int

    def sample(self, *, prefix: str, count: int, temperature: float, seed: int) -> list[str]:
        """New titles, each beginning with `prefix`; at most two blocks long."""
        ids = self.tokenizer.encode(prefix) if prefix else []
        titles = generate(
            self.model,
            ids,
            count=count,
            eos=self.tokenizer.eos,
            banned=[token for token in (self.tokenizer.pad, self.tokenizer.unk) if token is not None],
            temperature=temperature,
            seed=seed,
            max_tokens=len(ids) + 2 * self.model.block_size,
        )
        return [self.tokenizer.decode(title) for title in titles]


def load_trained(path: Path) -> Trained:
    """Reads a run's model; raises UserError if `path` is no run or has no whole checkpoint."""
    return load_checkpoints(path, every=False)[0]


def load_checkpoints(path: Path, *, every: bool) -> list[Trained]:
    """The newest whole checkpoint of a run, or every one, oldest first; raises UserError if there is none."""
    try:
        return _load(RunFolder.open(path), every)
    except FileNotFoundError:  # the run is still training and has just replaced one by a newer
        return _load(RunFolder.open(path), every)


def _load(folder: RunFolder, every: bool) -> list[Trained]:
    recipe, tokenizer = folder.recipe(), folder.tokenizer()
    keep_freed_memory()
    make_repeatable(recipe.train.threads)
    device, _ = choose_device(recipe.train.device)
    if every:
        checkpoints, damaged = whole_checkpoints(folder)
    else:
        newest, damaged = newest_checkpoint(folder)
        checkpoints = [newest] if newest else []
    if not checkpoints:
        raise UserError("\n".join([f"{folder.path} has no whole checkpoint to load.", *damaged]))
    models = []
    for checkpoint in checkpoints:
        model = GPT(recipe.model, tokenizer.vocab_size, recipe.batches.block_size, tokenizer.eos)
        load_weights(model, checkpoint)
        models.append(Trained(recipe, tokenizer, model.to(device).eval(), checkpoint.progress.step))
    return models
