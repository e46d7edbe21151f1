"""Fills the datastore of a trained model: one more pass over the training documents, forward only.

Shapes: N targets of all training documents, D width of a hidden state, W width of a key, C targets of some rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from shortrun.errors import UserError
from shortrun.model.datastore import Datastore, keys_of, main_directions
from shortrun.model.language_model import LanguageModel, LinearHead
from shortrun.recipe import DatastoreConfig
from shortrun.score.evaluate import TOKENS_AT_ONCE, evaluating
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import IGNORE
from shortrun.tokens.windows import of_like_length, rows_of, windows_of

SAMPLED = 16
"""One group of documents in so many decides the directions of keys."""


@torch.no_grad()
def remember(
    model: LanguageModel, documents: EncodedDocuments, config: DatastoreConfig, dtype: torch.dtype
) -> tuple[int, int]:
    """Gives each learner a datastore of every target of the documents; returns how many entries and bytes all have.

    Each document is read as it would be scored. dtype: what products are computed in, and keys kept in. Raises UserError for a
    model whose predictions don't come from hidden states.
    """
    entries = size = 0
    for learner in model.learners():
        if not isinstance(learner, LinearHead):
            raise UserError("A datastore (datastore.weight) needs a model with hidden states and a linear head")
        learner.datastore = None
        learner.datastore = _filled(learner, documents, config, dtype)
        entries += len(learner.datastore.tokens_N)
        size += learner.datastore.keys_NW.nbytes
    return entries, size


def _filled(
    model: LanguageModel, documents: EncodedDocuments, config: DatastoreConfig, dtype: torch.dtype
) -> Datastore:
    sample_ND = torch.cat([hidden_CD for hidden_CD, _ in _contexts(model, documents, dtype, every=SAMPLED)])
    basis_DW = main_directions(sample_ND.cpu(), config.width - 1).to(sample_ND.device)
    found = [
        (keys_of(hidden_CD, basis_DW).to(dtype), targets_C.int())
        for hidden_CD, targets_C in _contexts(model, documents, dtype)
    ]
    keys_NW, tokens_N = (torch.cat(parts) for parts in zip(*found, strict=True))
    order_N = torch.argsort(tokens_N, stable=True)
    return Datastore(
        basis_DW,
        keys_NW[order_N],
        tokens_N[order_N],
        vocab_size=model.vocab_size,
        weight=config.weight,
        sharpness=config.sharpness,
    )


def _contexts(
    model: LanguageModel, documents: EncodedDocuments, dtype: torch.dtype, every: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """hidden_CD before each target, and the targets_C, of one group of documents after another; `every` skips most of them."""
    assert isinstance(model, LinearHead)
    windows = windows_of(documents.lengths_D, model.block_size)
    with evaluating(model) as device:
        for number, group in enumerate(of_like_length(windows, TOKENS_AT_ONCE)):
            if number % every == 0:
                rows = rows_of(documents, windows, group).to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                    hidden_ND = model.hidden(rows)
                counted_N = rows.y_N != IGNORE
                yield hidden_ND[counted_N].float(), rows.y_N[counted_N]
