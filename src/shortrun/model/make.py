"""The one place that makes a model from a recipe."""

from __future__ import annotations

from shortrun.model.gpt import GPT
from shortrun.model.language_model import LanguageModel
from shortrun.recipe import Recipe


def make_model(recipe: Recipe, vocab_size: int, eos: int) -> LanguageModel:
    """The model of a recipe, its weights drawn from torch's global generator: seed it first.

    vocab_size, eos: of the tokenizer that was made, which may have fewer entries than the recipe asks for.
    """
    return GPT(recipe.model, vocab_size, recipe.batches.block_size, eos)
