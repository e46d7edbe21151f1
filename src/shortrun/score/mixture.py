"""The weights of an ensemble's members that make some documents likeliest.

Shapes: K members, N targets.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from shortrun.model.ensemble import Ensemble
from shortrun.score.cross_entropy import token_nats
from shortrun.score.evaluate import TOKENS_AT_ONCE, evaluating
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.windows import of_like_length, rows_of, windows_of

ROUNDS = 500
"""Of the EM algorithm: each takes a millisecond."""


def fitted_weights(model: Ensemble, documents: EncodedDocuments) -> NDArray[np.float64]:
    """The weights_K, which add up to 1, under which the mean of the members' probabilities has the least nats."""
    return mixture_weights(_member_nats(model, documents))


def mixture_weights(nats_KN: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of a mixture by EM (Dempster et al. 1977), from -log p of each target under each of its parts.

    The likelihood has one maximum, and no round lowers it.
    """
    p_KN = np.exp(nats_KN.min(axis=0) - nats_KN)
    weights_K = np.full(len(nats_KN), 1 / len(nats_KN))
    for _ in range(ROUNDS):
        shares_KN = weights_K[:, None] * p_KN
        weights_K = (shares_KN / shares_KN.sum(axis=0)).mean(axis=1)
    total: float = weights_K.sum()
    return np.asarray(weights_K / total)


@torch.no_grad()
def _member_nats(model: Ensemble, documents: EncodedDocuments) -> NDArray[np.float64]:
    """-log p of each target by each member, nats_KN, in the windows in which the ensemble is scored."""
    windows = windows_of(documents.lengths_D, model.block_size)
    with evaluating(model) as device:
        rows = [rows_of(documents, windows, group).to(device) for group in of_like_length(windows, TOKENS_AT_ONCE)]
        return np.stack([torch.cat([token_nats(member, each) for each in rows]).numpy() for member in model.each])
