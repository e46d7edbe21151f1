"""The datastores of a run's model, in a file of its last checkpoint and back.

Their recipe decides whether a model has one; the file holds one for each of its learners, in order, as `0.keys_NW` and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortrun.disk import shared_permissions
from shortrun.errors import UserError
from shortrun.model.datastore import Datastore
from shortrun.model.language_model import LanguageModel, LinearHead
from shortrun.recipe import DatastoreConfig, Recipe
from shortrun.runs.checkpoints import Checkpoint

DATASTORES = "datastores.safetensors"
"""A file of a checkpoint. Only the last one of a run has it."""
PARTS = ("basis_DW", "keys_NW", "tokens_N")


def write_datastores(model: LanguageModel, folder: Path) -> None:
    """Writes them into a checkpoint's folder, if there are any."""
    tensors = {
        f"{number}.{part}": getattr(learner.datastore, part).contiguous()
        for number, learner in enumerate(model.learners())
        if learner.datastore is not None
        for part in PARTS
    }
    if tensors:
        save_file(tensors, folder / DATASTORES)
        shared_permissions(folder / DATASTORES)


def read_datastores(model: LanguageModel, recipes: Iterable[Recipe], checkpoint: Checkpoint) -> None:
    """Gives a model's learners what a checkpoint holds for them. recipes: of all members, or the one of the model.

    Raises UserError where the file can't be read or holds something else.
    """
    path = checkpoint.path / DATASTORES
    if not path.exists():
        return
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} can't be read: {error}") from None
    for number, (learner, config) in enumerate(zip(model.learners(), _configs(recipes), strict=True)):
        if config.weight:
            try:
                basis_DW, keys_NW, tokens_N = (tensors[f"{number}.{part}"] for part in PARTS)
                _require_shapes(basis_DW, keys_NW, tokens_N, learner)
            except (KeyError, ValueError) as error:
                raise UserError(f"{path} holds no datastore of this model: {error}") from None
            learner.datastore = Datastore(
                basis_DW,
                keys_NW,
                tokens_N,
                vocab_size=learner.vocab_size,
                weight=config.weight,
                sharpness=config.sharpness,
            )


def _configs(recipes: Iterable[Recipe]) -> Iterator[DatastoreConfig]:
    """For each learner, in order."""
    for recipe in recipes:
        yield from [recipe.datastore] * recipe.model.members


def _require_shapes(basis_DW: Tensor, keys_NW: Tensor, tokens_N: Tensor, model: LanguageModel) -> None:
    (count, keys), (states, inside) = keys_NW.shape, basis_DW.shape
    asked = model.head_VD.shape[1] if isinstance(model, LinearHead) else None
    if (states, inside) != (asked, keys - 1) or basis_DW.dtype != torch.float32 or not bool(basis_DW.isfinite().all()):
        raise ValueError(f"its basis is {tuple(basis_DW.shape)}, and its keys are {tuple(keys_NW.shape)}")
    if keys_NW.dtype not in (torch.float32, torch.bfloat16) or not bool(keys_NW.isfinite().all()):
        raise ValueError("its keys are no numbers of a kind that is computed in")
    if tokens_N.dtype != torch.int32 or tokens_N.shape != (count,) or not count:
        raise ValueError(f"it has tokens {tuple(tokens_N.shape)} for {count} keys")
    if bool((tokens_N.diff() < 0).any()) or tokens_N[0] < 0 or tokens_N[-1] >= model.vocab_size:
        raise ValueError("its tokens are not in order, or not in the vocabulary")
