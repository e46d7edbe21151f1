"""What a model predicts before each token of some documents, in the windows and by the softmax in which they are scored.

Shapes: C targets at a time, V vocabulary, N ids of all documents, W windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shortrun.model.language_model import LanguageModel
from shortrun.score.cross_entropy import probabilities, target_logits
from shortrun.score.evaluate import TOKENS_AT_ONCE, evaluating
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.windows import of_like_length, rows_of, windows_of


class Predictions(NamedTuple):
    """Probabilities of whatever could come next, at some places in documents."""

    at_C: NDArray[np.int64]
    """The places in ids_N of the tokens that did come next."""
    targets_C: Tensor
    """int64: those tokens, on the model's device as all below."""
    p_CV: Tensor
    """The probability of each token before one was seen; float32, or float64 in a float64 model."""
    nats_C: Tensor
    """-log p of the targets. Their sum is what `document_nats` gives, but for rounding."""


@torch.no_grad()
def predictions(
    model: LanguageModel, documents: EncodedDocuments, *, tokens_at_once: int = TOKENS_AT_ONCE
) -> Iterator[Predictions]:
    """The predictions before every token and end of some documents, each once; those in short windows come first.

    Each document begins afresh after one `eos`. One that outgrows the block is read in the windows in which it is scored.
    """
    windows = windows_of(documents.lengths_D, model.block_size)
    begins_W = (documents.ends_D - documents.lengths_D)[windows.document_W]
    with evaluating(model) as device:
        for group in of_like_length(windows, tokens_at_once):
            stretches = zip(begins_W[group], windows.scored_W[group], windows.stop_W[group], strict=True)
            at_N = np.concatenate([np.arange(begin + scored, begin + stop) for begin, scored, stop in stretches])
            done = 0
            for logits_CV, targets_C in target_logits(model, rows_of(documents, windows, group).to(device)):
                p_CV, nats_C1 = probabilities(logits_CV, targets_C)
                yield Predictions(at_N[done : done + len(targets_C)], targets_C, p_CV, nats_C1[:, 0])
                done += len(targets_C)
