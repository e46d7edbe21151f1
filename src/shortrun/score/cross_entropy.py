"""The one cross-entropy: from the last hidden states of a model to nats, without ever holding all logits.

2,048 targets over GPT-2's 50,257 tokens have 412 MB of float32 logits. Here they are made CHUNK at a time and forgotten.
Scoring takes the nats; `train/objective.py` makes gradients of the same chunks.

Shapes: N positions of all rows, D width, V vocabulary, C targets at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from shortrun.model.ensemble import Ensemble
from shortrun.model.language_model import LanguageModel, LinearHead, logits_from
from shortrun.tokens.rows import IGNORE, Rows

CHUNK, ROWS = 2**23, 512
"""Logits made at a time, 32 MiB in float32, and targets whose logits they are. Forward and backward of 4,096 targets on a core
with AMX, in ms at 256, 512, 1,024 and 2,048 targets:
float32, 256 channels, 8,000 tokens: 312, 332, 326, 325; 512 channels, 16,000 tokens: 1,204, 1,127, 1,089, 1,106;
bfloat16, the same: 135, 126, 143, 166 and 611, 468, 501, 538."""


LIKELY = 1e-30
"""Probabilities above this are normal float32 numbers, as exact as all others."""


class Softmax(NamedTuple):
    """What is made of some logits_CV and their targets."""

    p_CV: Tensor
    """The probabilities, in the logits' type."""
    nats_C1: Tensor
    """-log p(target), float32 at least; what stands for an IGNORE means nothing."""


def softmax(logits_CV: Tensor, targets_C: Tensor) -> Softmax:
    """Probabilities, and the nats from the target's.

    Those of bfloat16 logits and of the unlikeliest targets come from the largest logit and its probability instead, because
    that one is known most exactly. Looking for it goes over all logits twice more: 25 of 1,520 ms of a step with 8,000 tokens.
    Other devices always look, because asking whether they need to would make the CPU wait for them.
    """
    wide = wide_type(logits_CV.dtype)
    p_CV, target_C1 = torch.softmax(logits_CV, dim=-1), targets_C.clamp(min=0)[:, None]
    p_C1 = p_CV.gather(1, target_C1)
    if p_C1.dtype == wide and p_C1.device.type == "cpu" and bool((p_C1 > LIKELY).all()):
        return Softmax(p_CV, -p_C1.log())
    log_sum_C1 = largest(logits_CV).to(wide) - largest(p_CV).to(wide).log()
    return Softmax(p_CV, log_sum_C1 - logits_CV.gather(1, target_C1).to(wide))


def largest(x_CV: Tensor) -> Tensor:
    """The largest number of each row, shape C1; NaN counts as largest, in a row of nothing but NaN at least.

    torch's own amax of bfloat16 takes 12 times as long on a CPU as that of the same bits read as int16, in whose order numbers
    of sign 0 are as they should be, and above all those of sign 1.
    """
    if x_CV.dtype == torch.bfloat16 and x_CV.device.type == "cpu":
        bits_C1 = x_CV.view(torch.int16).amax(dim=-1, keepdim=True)
        if bool((bits_C1 >= 0).all()):
            return bits_C1.view(torch.bfloat16)
    return x_CV.amax(dim=-1, keepdim=True)


def token_nats(model: LanguageModel, rows: Rows) -> Tensor:
    """Cross-entropy in nats of each target of some rows, float64 on the CPU, shape N; an IGNORE costs 0.

    The logits are float32, or float64 in a float64 model.
    """
    nats_N = torch.zeros(len(rows.y_N), dtype=torch.float64)
    nats_N[(rows.y_N != IGNORE).cpu()] = torch.cat([_nats(*piece) for piece in target_logits(model, rows)])
    return nats_N


def target_logits(model: LanguageModel, rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    """logits_CV and targets_C of the targets of some rows, in order and without each IGNORE.

    They come a chunk at a time, where the model has a linear head, or is an ensemble of such.
    """
    if isinstance(model, Ensemble):
        first, *others = [target_logits(member, rows) for member in model.each]
        for logits_CV, targets_C in first:
            yield model.mixed(chain([logits_CV], (next(other)[0] for other in others))), targets_C
        return
    counted_N = rows.y_N != IGNORE
    targets_N = rows.y_N[counted_N]
    if isinstance(model, LinearHead):
        hidden_ND, size = model.hidden(rows)[counted_N], targets_at_once(len(model.head_VD))
        for hidden_CD, targets_C in zip(torch.split(hidden_ND, size), torch.split(targets_N, size), strict=True):
            yield logits_from(model, hidden_CD), targets_C
    else:
        yield logits_of(model, rows)[counted_N], targets_N


def logits_of(model: LanguageModel, rows: Rows) -> Tensor:
    """The logits_NV of all positions of some rows, by a model that only knows rows of equal length."""
    x_BT, place_N = rows.padded()
    logits_NV: Tensor = model(x_BT).flatten(0, 1)
    return logits_NV if len(logits_NV) == len(place_N) else logits_NV[place_N]


def targets_at_once(logits: int) -> int:
    """How many targets have so many logits each that they may be there together: a multiple of 32, from 32 on.

    AMX takes 32 rows at a time: of GPT-2's 50,257 tokens, 160 targets take half as long for each product as 166.
    """
    most = max(min(CHUNK // logits, ROWS), 1)
    return most - most % 32 if most > 32 else most


def wide_type(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def probabilities(logits_CV: Tensor, targets_C: Tensor) -> Softmax:
    """As scoring takes them, in float32 at least, whatever the logits' type."""
    return softmax(logits_CV.to(wide_type(logits_CV.dtype)), targets_C)


def _nats(logits_CV: Tensor, targets_C: Tensor) -> Tensor:
    return probabilities(logits_CV, targets_C).nats_C1[:, 0].cpu().double()  # on the CPU, because MPS has no float64
