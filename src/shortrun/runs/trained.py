"""A trained model, read back from its run folder: for scoring, sampling, and whatever looks at runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from shortrun.errors import UserError
from shortrun.model.device import choose_device, keep_freed_memory, repeatable
from shortrun.model.generate import Draw, generate_steps
from shortrun.model.language_model import LanguageModel
from shortrun.model.make import make_model
from shortrun.recipe import Recipe
from shortrun.runs.checkpoints import (
    Checkpoint,
    checkpoint_of,
    load_weights,
    newest_checkpoint,
    require_weights,
    whole_checkpoints,
)
from shortrun.runs.datastores import read_datastores
from shortrun.runs.folder import RunFolder
from shortrun.runs.members import members_of
from shortrun.tokens.tokenizer import Tokenizer

AT_ONCE = 256
"""Documents that are sampled together: more take no less time each."""


@dataclass(frozen=True)
class Trained:
    """The model of a run's checkpoint, with what is needed to use it."""

    recipe: Recipe
    tokenizer: Tokenizer
    model: LanguageModel
    step: int
    notes: tuple[str, ...] = ()
    """What a person should know about how it was read, such as a damaged newer checkpoint."""

    def computing(self) -> AbstractContextManager[int]:
        """Torch's settings while the model is at work: the run's number of threads, deterministic algorithms.

        They are set back at the end, so that whoever uses a model as a library finds torch as it was.
        """
        return repeatable(self.recipe.train.threads)

    def sample(
        self,
        *,
        prefix: str,
        count: int,
        temperature: float,
        seed: int,
        top_k: int | None = None,
        top_p: float = 1.0,
        max_tokens: int | None = None,
    ) -> list[str]:
        """New documents, each beginning with `prefix`, with at most `max_tokens` more; left out, two blocks.

        Raises UserError for a prefix that the tokenizer can't give back.
        """
        draw = Draw(temperature, top_k, top_p)
        steps = self.sample_steps(prefix=prefix, count=count, draw=draw, seed=seed, max_tokens=max_tokens)
        ended = {number: document for step in steps for number, document in step}
        return [ended[number] for number in range(count)]

    def sample_steps(
        self, *, prefix: str, count: int, draw: Draw, seed: int, max_tokens: int | None = None
    ) -> Iterator[list[tuple[int, str]]]:
        """The same documents as `sample`, as they end: after each token of all of them, those that it has ended.

        Each comes with its number, from 0.
        """
        (prefix_ids,) = self.tokenizer.encode_losslessly([prefix]) if prefix else ([],)
        with self.computing():
            for first in range(0, count, AT_ONCE):
                for step in generate_steps(
                    self.model,
                    prefix_ids,
                    count=min(AT_ONCE, count - first),
                    first=first,
                    eos=self.tokenizer.eos,
                    banned=[token for token in (self.tokenizer.pad, self.tokenizer.unk) if token is not None],
                    draw=draw,
                    seed=seed,
                    max_tokens=len(prefix_ids) + (max_tokens or 2 * self.model.block_size),
                ):
                    yield [(number, self.tokenizer.decode(ids)) for number, ids in step]


def load_trained(path: Path) -> Trained:
    """Reads a run's model; raises UserError if `path` is no run or has no whole checkpoint."""
    return load_checkpoints(path, every=False)[0]


def load_checkpoints(path: Path, *, every: bool) -> list[Trained]:
    """The newest whole checkpoint of a run, or every one, oldest first; raises UserError if there is none."""
    return _load(path, _every if every else _newest)


def load_step(path: Path, step: int) -> Trained:
    """The model of a run's checkpoint of that step; raises UserError where there is none, or a damaged one."""
    return _load(path, lambda folder: ([checkpoint_of(folder, step)], []))[0]


_Found = tuple[list[Checkpoint], list[str]]
"""Checkpoints, and a sentence for each damaged one that was passed over."""


def _newest(folder: RunFolder) -> _Found:
    newest, damaged = newest_checkpoint(folder)
    return [newest] if newest else [], damaged


def _every(folder: RunFolder) -> _Found:
    return whole_checkpoints(folder)


def _load(path: Path, find: Callable[[RunFolder], _Found]) -> list[Trained]:
    try:
        return _load_once(RunFolder.open(path), find)
    except FileNotFoundError:  # the run is still training and has just replaced one by a newer
        return _load_once(RunFolder.open(path), find)


def _load_once(folder: RunFolder, find: Callable[[RunFolder], _Found]) -> list[Trained]:
    recipe, tokenizer, notes = folder.recipe(), folder.tokenizer(), []
    unknown = folder.unknown_fields()
    if unknown:
        notes.append(f"{folder.path} was made by an older shortrun; this one does not know {', '.join(unknown)}")
    members = [member.recipe for member in members_of(folder.manifest())]
    keep_freed_memory()
    device, _ = choose_device(recipe.train.device)
    checkpoints, damaged = find(folder)
    if not checkpoints:
        raise UserError("\n".join([f"{folder.path} has no whole checkpoint to load.", *damaged]))
    models = []
    for checkpoint in checkpoints:
        require_weights(recipe, tokenizer.vocab_size, checkpoint, members)
        with repeatable(recipe.train.threads):  # weights are drawn before they are read
            model = make_model(recipe, tokenizer.vocab_size, tokenizer.eos, members)
        load_weights(model, checkpoint)
        read_datastores(model, members or [recipe], checkpoint)
        models.append(Trained(recipe, tokenizer, model.to(device).eval(), checkpoint.progress.step, (*notes, *damaged)))
    return models
