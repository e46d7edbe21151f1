"""A trained model, read back from its run folder: for scoring, sampling, and whatever looks at runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from shortrun.errors import UserError
from shortrun.model.device import choose_device, keep_freed_memory, repeatable
from shortrun.model.generate import generate
from shortrun.model.language_model import LanguageModel
from shortrun.model.make import make_model
from shortrun.recipe import Recipe
from shortrun.runs.checkpoints import load_weights, newest_checkpoint, whole_checkpoints
from shortrun.runs.folder import RunFolder
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

    def sample(self, *, prefix: str, count: int, temperature: float, seed: int) -> list[str]:
        """New documents, each beginning with `prefix`; at most two blocks long.

        Raises UserError for a prefix that the tokenizer can't give back.
        """
        (prefix_ids,) = self.tokenizer.encode_losslessly([prefix]) if prefix else ([],)
        documents = []
        with self.computing():
            for first in range(0, count, AT_ONCE):
                documents += generate(
                    self.model,
                    prefix_ids,
                    count=min(AT_ONCE, count - first),
                    first=first,
                    eos=self.tokenizer.eos,
                    banned=[token for token in (self.tokenizer.pad, self.tokenizer.unk) if token is not None],
                    temperature=temperature,
                    seed=seed,
                    max_tokens=len(prefix_ids) + 2 * self.model.block_size,
                )
        return [self.tokenizer.decode(ids) for ids in documents]


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
    recipe, tokenizer, notes = folder.recipe(), folder.tokenizer(), []
    unknown = folder.unknown_fields()
    if unknown:
        notes.append(f"{folder.path} was made by an older shortrun; this one does not know {', '.join(unknown)}")
    keep_freed_memory()
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
        with repeatable(recipe.train.threads):  # weights are drawn before they are read
            model = make_model(recipe, tokenizer.vocab_size, tokenizer.eos)
        try:
            load_weights(model, checkpoint)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError("\n".join([f"{checkpoint.path} holds another model's weights: {reason}", *notes])) from None
        models.append(Trained(recipe, tokenizer, model.to(device).eval(), checkpoint.progress.step, (*notes, *damaged)))
    return models
