"""The one cross-entropy: from the last hidden states of a model to nats, without ever holding all logits.

2,048 targets over GPT-2's 50,257 tokens have 412 MB of float32 logits. Here they are made CHUNK at a time and forgotten.
Scoring takes the nats; `train/objective.py` makes gradients of the same chunks.

Shapes: N positions of all rows, D width, V vocabulary, C targets at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shortrun.model.language_model import LanguageModel, LinearHead
from shortrun.tokens.rows import IGNORE, Rows

CHUNK = 2**24
"""Logits made at a time: 64 MiB in float32. On 2 cores 512, 1,024 and 2,048 rows of 16,000 took the same time."""


class Softmax(NamedTuple):
    """What is made of some logits_CV on the way to their nats."""

    p_CV: Tensor
    """The probabilities, in the logits' type."""
    log_sum_C1: Tensor
    """The logarithm of the sum of exp(logits), float32 at least."""


def softmax(logits_CV: Tensor) -> Softmax:
    """Probabilities, and the log-sum from the largest logit and its probability, because that one is known most exactly."""
    wide = wide_type(logits_CV.dtype)
    p_CV = torch.softmax(logits_CV, dim=-1)
    log_sum_C1 = logits_CV.amax(dim=-1, keepdim=True).to(wide) - p_CV.amax(dim=-1, keepdim=True).to(wide).log()
    return Softmax(p_CV, log_sum_C1)


def nats_of(logits_CV: Tensor, log_sum_C1: Tensor, targets_C: Tensor) -> Tensor:
    """-log p(target) of each row, shape C1, float32 at least; what stands for an IGNORE means nothing."""
    return log_sum_C1 - logits_CV.gather(1, targets_C.clamp(min=0)[:, None]).to(log_sum_C1.dtype)


def token_nats(model: LanguageModel, rows: Rows) -> Tensor:
    """Cross-entropy in nats of each target of some rows, float64 on the CPU, shape N; an IGNORE costs 0.

    The logits are float32, or float64 in a float64 model.
    """
    counted_N = rows.y_N != IGNORE
    targets_N = rows.y_N[counted_N]
    if isinstance(model, LinearHead):
        hidden_ND, head_VD = model.hidden(rows)[counted_N], model.head_VD
        size = max(CHUNK // len(head_VD), 1)
        pieces = zip(torch.split(hidden_ND, size), torch.split(targets_N, size), strict=True)
        nats = [_nats(hidden_CD @ head_VD.t(), targets_C) for hidden_CD, targets_C in pieces]
    else:
        nats = [_nats(logits_of(model, rows)[counted_N], targets_N)]
    nats_N = torch.zeros(len(rows.y_N), dtype=torch.float64)
    nats_N[counted_N.cpu()] = torch.cat(nats)
    return nats_N


def logits_of(model: LanguageModel, rows: Rows) -> Tensor:
    """The logits_NV of all positions of some rows, by a model that only knows rows of equal length."""
    x_BT, place_N = rows.padded()
    logits_NV: Tensor = model(x_BT).flatten(0, 1)
    return logits_NV if len(logits_NV) == len(place_N) else logits_NV[place_N]


def wide_type(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _nats(logits_CV: Tensor, targets_C: Tensor) -> Tensor:
    logits_CV = logits_CV.to(wide_type(logits_CV.dtype))
    nats_C1 = nats_of(logits_CV, softmax(logits_CV).log_sum_C1, targets_C)
    return nats_C1[:, 0].cpu().double()  # on the CPU, because MPS has no float64
