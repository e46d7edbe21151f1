"""The one place that makes a model from a recipe."""

from __future__ import annotations

import torch

from shortrun.model.gpt import GPT
from shortrun.model.language_model import LanguageModel
from shortrun.recipe import Recipe


def make_model(recipe: Recipe, vocab_size: int, eos: int) -> LanguageModel:
    """The model of a recipe, its weights drawn from torch's global generator: seed it first.

    vocab_size, eos: of the tokenizer that was made, which may have fewer entries than the recipe asks for.
    """
    return GPT(recipe.model, vocab_size, recipe.batches.block_size, eos)


def model_without_weights(recipe: Recipe, vocab_size: int) -> LanguageModel:
    """The same model on torch's meta device, where tensors have shapes and take no memory: to count and to draw."""
    with torch.device("meta"):
        return make_model(recipe, vocab_size, eos=1)
