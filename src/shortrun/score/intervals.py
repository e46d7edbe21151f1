"""How far a loss could be off because these documents were scored and not others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def bootstrap_interval(
    nats: NDArray[np.float64], characters: NDArray[np.int64], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of sum(nats) / sum(characters) over documents (Efron 1979).

    nats, characters: one entry a document, ends included. Documents are drawn with replacement, RESAMPLES times; the same seed
    gives the same interval. It covers the choice of documents, not the noise between training seeds.
    """
    rng = np.random.default_rng(seed)
    losses = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        drawn = rng.integers(0, len(nats), size=len(nats))
        losses[index] = nats[drawn].sum() / characters[drawn].sum()
    low, high = np.quantile(losses, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
