"""Fills the datastore of a trained model: one more pass over the training documents, forward only.

Shapes: N targets of all training documents, D width of a hidden state, W width of a key, C targets of some rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shortrun.model.datastore import Datastore, keys_of, main_directions
from shortrun.model.language_model import LanguageModel, LinearHead
from shortrun.recipe import DatastoreConfig
from shortrun.score.evaluate import TOKENS_AT_ONCE, evaluating
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import IGNORE, Rows
from shortrun.tokens.windows import of_like_length, rows_of, windows_of

SAMPLED = 16
"""One group of documents in so many decides the directions of keys, and at least about so many do."""


@torch.no_grad()
def remember(
    model: LanguageModel, documents: EncodedDocuments, config: DatastoreConfig, dtype: torch.dtype
) -> tuple[int, int]:
    """Gives each learner a datastore of every target of the documents; returns how many entries and bytes all have.

    Each document is read in the windows in which it would be scored. dtype: what products are computed in, and keys kept in.
    """
    entries = size = 0
    for learner in model.learners():
        learner.datastore = None
        learner.datastore = _filled(learner, documents, config, dtype)
        entries += len(learner.datastore.tokens_N)
        size += learner.datastore.keys_NW.nbytes
    return entries, size


def _filled(
    model: LanguageModel, documents: EncodedDocuments, config: DatastoreConfig, dtype: torch.dtype
) -> Datastore:
    windows = windows_of(documents.lengths_D, model.block_size)
    rows = [rows_of(documents, windows, group) for group in of_like_length(windows, TOKENS_AT_ONCE)]
    tokens_N = torch.cat([each.y_N[each.y_N != IGNORE] for each in rows])
    order_N = torch.argsort(tokens_N, stable=True)
    place_N = torch.empty_like(order_N)
    place_N[order_N] = torch.arange(len(order_N))
    with evaluating(model) as device:
        basis_DW = main_directions(
            (_hidden(model, each, device, dtype) for each in _sampled(rows)), config.width - 1
        ).to(device)
        keys_NW = torch.empty(len(order_N), basis_DW.shape[1] + 1, dtype=dtype, device=device)
        done = 0
        for each in rows:  # each key straight into its place, because a copy of all would be as large again
            keys_CW = keys_of(_hidden(model, each, device, dtype), basis_DW).to(dtype)
            keys_NW[place_N[done : done + len(keys_CW)].to(device)] = keys_CW
            done += len(keys_CW)
    return Datastore(
        basis_DW,
        keys_NW,
        tokens_N[order_N].int().to(device),
        vocab_size=model.vocab_size,
        weight=config.weight,
        sharpness=config.sharpness,
    )


def _sampled(groups: list[Rows]) -> list[Rows]:
    """One group in SAMPLED, more of a few: they come by length, and short documents alone would decide."""
    return groups[:: min(max(len(groups) // SAMPLED, 1), SAMPLED)]


def _hidden(model: LanguageModel, rows: Rows, device: torch.device, dtype: torch.dtype) -> Tensor:
    """hidden_CD before each target of some rows, float32."""
    assert isinstance(model, LinearHead)
    rows = rows.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        hidden_ND = model.hidden(rows)
    return hidden_ND[rows.y_N != IGNORE].float()
