"""Which recipes the classes of transformers can hold, as a table: a refusal names every field that stands in the way.

What is not in the table is held whatever it is (`HELD`): folded into the weights, or said in config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shortrun.recipe import Recipe
from shortrun.recipe_file import toml_value

GPT2, LLAMA = "GPT2LMHeadModel", "LlamaForCausalLM"


@dataclass(frozen=True)
class Need:
    """A field of the recipe's section `model`, the values with which a class holds it, and why no others."""

    field: str
    allowed: tuple[Any, ...]
    because: str


_BOTH = (
    Need("block", ("sequential",), "its MLP reads what attention has added"),
    Need("output_gate", (False,), "it has no gates on its heads"),
    Need("qk_norm", (False,), "it normalises neither queries nor keys"),
    Need("members", (1,), "it is one model, and no mean of several"),
)
NEEDS: dict[str, tuple[Need, ...]] = {
    GPT2: (
        Need("positions", ("learned",), "it adds a learned vector for each position and rotates nothing"),
        Need("norm", ("layernorm",), "its norms take the mean away"),
        Need("mlp", ("gelu", "relu2"), "its MLP is two linear maps with a function between"),
        *_BOTH,
    ),
    LLAMA: (
        Need("positions", ("rotary",), "it rotates queries and keys and adds no vector for a position"),
        Need("norm", ("rmsnorm",), "its norms take no mean away"),
        Need("mlp", ("swiglu",), "its MLP multiplies a gate and a value"),
        *_BOTH,
    ),
}
HELD: dict[str, str] = {
    "n_layer": "in config.json",
    "n_head": "in config.json",
    "d_model": "in config.json",
    "embedding_width": "multiplied out into embeddings of d_model",
    "dropout": "in config.json, as far as the class drops anything; nothing is dropped in use",
    "word_dropout": "in training only",
    "word_replacement": "in training only",
    "rope_base": "in config.json",
    "bias": "GPT2LMHeadModel always has biases: zeros; LlamaForCausalLM has switches for them",
    "scale_embeddings": "folded into the embeddings, which are then no longer the head's",
    "tied_head": "in config.json",
    "init": "in training only",
    "layer_scale": "folded into the map before it",
}


def obstacles(recipe: Recipe, name: str) -> list[str]:
    """A line for each field whose value a class can't hold."""
    lines = []
    for need in NEEDS[name]:
        value = getattr(recipe.model, need.field)
        if value not in need.allowed:
            allowed = " or ".join(map(toml_value, need.allowed))
            lines.append(f"model.{need.field} = {toml_value(value)}: only {allowed}, because {need.because}")
    return lines


def class_for(recipe: Recipe) -> tuple[str | None, str]:
    """The class that holds a recipe; or None, and what stands in the way of each class, the nearest first."""
    found = sorted(((obstacles(recipe, name), name) for name in NEEDS), key=lambda pair: len(pair[0]))
    if not found[0][0]:
        return found[0][1], ""
    paragraphs = [
        "\n".join([f"{name} of transformers can't hold this recipe:", *(f"  {line}" for line in lines)])
        for lines, name in found
    ]
    return None, "\n".join([*paragraphs, "--format onnx holds every recipe"])
