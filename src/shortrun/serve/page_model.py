"""A model as plain data and float16 weights, with which `alone/model.js` computes; and whether the page can hold it."""

from __future__ import annotations

import copy
import gzip
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shortrun.errors import UserError
from shortrun.model.gpt import GPT
from shortrun.runs.trained import Trained

MOST_PARAMETERS = 50_000_000
"""Of a model: the file of one this large has about 115 MB, and each token that is typed takes about 50 ms."""


@dataclass(frozen=True)
class PageModel:
    """A model that the page can hold."""

    facts: dict[str, Any]
    """JSON-ready: what it is made of, and the names and sizes of its matrices in their order."""
    weights: bytes
    """gzip of the upper bytes of all float16 numbers, then of the lower ones: the upper ones repeat, so they pack better."""
    rounded: GPT
    """The model with weights as float16 has them."""


@torch.no_grad()
def page_model(trained: Trained) -> PageModel:
    """Raises UserError for a model that the page can't hold."""
    model = trained.model
    if not isinstance(model, GPT):
        raise UserError(
            f"A page holds one GPT, and this model is another ({type(model).__name__}): its JavaScript knows no others"
        )
    if model.datastore is not None:
        raise UserError("A page can't hold a datastore, which has a key for every token of the training documents")
    if model.count_parameters() > MOST_PARAMETERS:
        raise UserError(
            f"A page can't hold {model.count_parameters() / 1e6:.1f}M parameters: at most {MOST_PARAMETERS / 1e6:.0f}M, so "
            "that a browser can open the file and type in it"
        )
    state = {name: weight.detach().float().cpu().half() for name, weight in model.state_dict().items()}
    beyond = [name for name, weight in state.items() if not weight.isfinite().all()]
    if beyond:
        raise UserError(
            f"A page can't hold this model: {beyond[0]} has a weight that float16 can't hold (above 65,504, or no number)"
        )
    halves = np.concatenate([weight.numpy().ravel() for weight in state.values()]).astype("<f2").view(np.uint8)
    rounded = copy.deepcopy(model).cpu().eval()
    rounded.load_state_dict({name: weight.float() for name, weight in state.items()})
    facts = {"config": _config(trained, model), "sizes": [[name, weight.numel()] for name, weight in state.items()]}
    planes = np.concatenate([halves[1::2], halves[0::2]])
    return PageModel(facts, gzip.compress(planes.tobytes(), mtime=0), rounded)


def _config(trained: Trained, model: GPT) -> dict[str, Any]:
    """What the matrices do not say by being there."""
    settings = trained.recipe.model
    fields = ("n_layer", "n_head", "d_model", "embedding_width", "positions", "rope_base", "norm", "mlp", "block")
    told = {name: getattr(settings, name) for name in fields}
    sizes = {"block_size": model.block_size, "vocab_size": model.vocab_size}
    return {**told, **sizes, "embedding_scale": model.embedding_scale}
