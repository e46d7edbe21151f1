"""The parameters of each part of a model."""

from __future__ import annotations

from torch import nn

from shortrun.model.attention import CausalSelfAttention
from shortrun.model.gpt import GPT
from shortrun.model.language_model import LanguageModel
from shortrun.model.layer_scale import LayerScale
from shortrun.model.mlp import MLP, SwiGLU

PARTS = ("embeddings", "attention", "mlp", "norms", "layer_scale", "head", "other")
"""In the order in which they are shown; norms are those inside attention too."""


def parameters_by_part(model: LanguageModel) -> dict[str, int]:
    """How many trained numbers each of PARTS has, one that several parts share counted once, where it comes first.

    They add up to `model.count_parameters()`. The head of a model that shares its token embeddings with it has none.
    """
    counts = dict.fromkeys(PARTS, 0)
    seen: set[int] = set()

    def count(module: nn.Module, inside: str) -> None:
        part = _part(module, inside)
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                counts[part] += parameter.numel()
        for child in module.children():
            count(child, "head" if isinstance(module, GPT) and child is module.head else part)

    count(model, "other")
    return counts


def _part(module: nn.Module, inside: str) -> str:
    """The part that a module's own parameters belong to; `inside` is the part of what holds it."""
    match module:
        case nn.LayerNorm() | nn.RMSNorm():
            return "norms"
        case LayerScale():
            return "layer_scale"
        case CausalSelfAttention():
            return "attention"
        case MLP() | SwiGLU():
            return "mlp"
        case nn.Embedding():
            return "embeddings"
        case GPT():
            return "embeddings"  # its own parameters are the learned positions
        case nn.Linear() if inside == "embeddings":
            return "embeddings"  # of a GPT's own maps only the head is none that brings them up to its width
        case nn.ModuleList() if inside == "embeddings":
            return "other"  # the blocks of a GPT
    return "other" if inside == "embeddings" else inside
