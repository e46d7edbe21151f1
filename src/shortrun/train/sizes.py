"""Sizes that follow from the data: how wide a model, how large a vocabulary, how many steps some text is worth.

The fields that `train.from_data` names get their values here, before anything is prepared. The rules pass through the sizes
that were tried on HN-100k (4.9 million characters: 6 layers of 256, a vocabulary of 8,000, 4,096 tokens a step, 7 epochs)
and shrink or grow from there; docs/log.md says how they did at other sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from typing import Any

from shortrun.recipe import Recipe
from shortrun.text.corpus import load_corpus
from shortrun.tokens.kinds import KINDS

VOCABULARIES = (512, 1000, 2000, 4000, 8000, 16_000)
CHARACTERS_AN_ENTRY = 600
WIDTH_CHARACTERS = 4_900_000
"""Characters that are worth a width of 256."""
STEP_TOKENS = (4096, 2048, 1024, 512, 256, 128)
STEPS = 1000
"""Fewer are too few to learn in."""


def sized(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with the values that its data asks for, and a sentence for each with the reason."""
    if not recipe.train.from_data:
        return recipe, []
    train = load_corpus(recipe.data).manifest["splits"]["train"]
    documents, characters = train["documents"], train["characters"] + 5 * train["documents"]
    sections: dict[str, dict[str, Any]] = {}
    reasons = []
    for field, value, reason in _sizes(recipe, documents, characters):
        if field in recipe.train.from_data:
            section, _, name = field.partition(".")
            sections.setdefault(section, {})[name] = value
            reasons.append(f"{field} = {value:,}, because {reason}")
    sections.setdefault("train", {})["from_data"] = ()
    values = recipe.model_dump()
    made = {section: {**fields, **sections.get(section, {})} for section, fields in values.items()}
    return Recipe.model_validate(made), reasons


def _sizes(recipe: Recipe, documents: int, characters: int) -> Iterator[tuple[str, Any, str]]:
    """Field, value and reason. A value that the recipe keeps is what the later ones follow from."""
    keeps = set(recipe.train.from_data)

    def chosen(field: str, value: Any) -> Any:
        return value if field in keeps else recipe.value(field)

    text = f"there are {characters:,} characters to train on"
    vocabulary = chosen(
        "tokenizer.vocab_size", min(VOCABULARIES, key=lambda size: abs(log(size * CHARACTERS_AN_ENTRY / characters)))
    )
    yield "tokenizer.vocab_size", vocabulary, f"{text}, and an entry is worth about {CHARACTERS_AN_ENTRY} of them"
    width = chosen("model.d_model", 64 * min(max(round(4 * (characters / WIDTH_CHARACTERS) ** 0.25), 1), 8))
    yield "model.d_model", width, f"{text}, and 16 times as many are worth twice the width"
    layers = 3 if width <= 64 else 4 if width <= 192 else 6
    yield "model.n_layer", layers, f"the width is {width}"
    yield "model.n_head", max(width // 64, 1) if width % 64 == 0 else recipe.model.n_head, "a head has 64 channels"
    small = characters < 1_000_000
    yield "model.dropout", 0.2 if small else 0.1, "less text is learnt by heart sooner" if small else text
    epochs = chosen("train.epochs", 7 if characters >= 2_000_000 else 10 if characters >= 200_000 else 15)
    yield "train.epochs", epochs, text
    block = chosen("batches.block_size", 128 if characters <= 300 * documents else 256)
    yield "batches.block_size", block, f"a document has {characters / documents:,.0f} characters on average"
    tokens = characters / KINDS[recipe.tokenizer.kind].characters_a_token(vocabulary)
    wanted = next((size for size in STEP_TOKENS if tokens * epochs >= STEPS * size), STEP_TOKENS[-1])
    steps = tokens * epochs / wanted
    rows = max(wanted // block, 1)
    yield "batches.batch_size", rows, f"{wanted:,} tokens a step then make about {steps:,.0f} steps"
