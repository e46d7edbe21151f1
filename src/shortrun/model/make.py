"""The one place that makes a model from a recipe."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from shortrun.model.ensemble import Ensemble
from shortrun.model.gpt import GPT
from shortrun.model.language_model import LanguageModel
from shortrun.recipe import Recipe


def make_model(recipe: Recipe, vocab_size: int, eos: int, members: Sequence[Recipe] = ()) -> LanguageModel:
    """The model of a recipe, its weights drawn from torch's global generator: seed it first.

    vocab_size, eos: of the tokenizer that was made, which may have fewer entries than the recipe asks for. members: the
    recipes of the runs that an ensemble is combined of, which are then what counts. The members of `model.members` draw one
    after the other, so the first is what would be alone, and each is the same in every larger ensemble.
    """
    if members:
        return Ensemble([make_model(each, vocab_size, eos) for each in members])
    models = [GPT(recipe.model, vocab_size, recipe.batches.block_size, eos) for _ in range(recipe.model.members)]
    return models[0] if len(models) == 1 else Ensemble(models)


def model_without_weights(recipe: Recipe, vocab_size: int, members: Sequence[Recipe] = ()) -> LanguageModel:
    """The same model on torch's meta device, where tensors have shapes and take no memory: to count and to draw."""
    with torch.device("meta"):
        return make_model(recipe, vocab_size, eos=1, members=members)
