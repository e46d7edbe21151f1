"""What training minimises, straight from the last hidden states: the logits of a step are never held whole.

A step of 8,192 targets over 16,000 tokens has half a gigabyte of float32 logits, and cross-entropy's gradient another. Here
they are made about a thousand rows at a time; loss and gradients are computed at once, and the logits forgotten.

Shapes: N targets, D d_model, V vocabulary, C rows at a time, P passes over the same targets (2 in R-Drop), M = N / P.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from shortrun.tokens.batches import IGNORE

CHUNK = 2**24
"""Logits made at a time: 64 MiB in float32. On 2 cores 512, 1,024 and 2,048 rows of 16,000 took the same time."""


def training_loss(
    hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, *, label_smoothing: float = 0.0, rdrop: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(objective, nats): sums over all targets that are not IGNORE. Gradients flow from the objective alone.

    nats: the cross-entropy -log p(target), without smoothing. objective: with label smoothing s, cross-entropy to the
    distribution that has 1 - s on the target and s spread over the vocabulary (Szegedy et al. 2016, arXiv 1512.00567).

    With R-Drop (Wu et al. 2021, arXiv 2106.14448), hidden_ND and targets_N hold two passes over the same targets, one
    behind the other, and the objective gains 2 * rdrop times the symmetric divergence (KL(p|q) + KL(q|p)) / 2 of each
    target's two predictions. Divided by N, that is the mean cross-entropy plus `rdrop` times the mean divergence.

    Matrix products are in autocast's type where it is on, and in that of hidden_ND elsewhere.
    """
    device = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
    with torch.autocast(device, enabled=False):
        objective, nats = _ChunkedLoss.apply(hidden_ND, head_VD, targets_N, dtype, label_smoothing, rdrop)  # type: ignore[no-untyped-call]
    return objective, nats


class _ChunkedLoss(torch.autograd.Function):
    """Computes the gradients with the loss, so that backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        targets_N: Tensor,
        dtype: torch.dtype,
        smoothing: float,
        rdrop: float,
    ) -> tuple[Tensor, Tensor]:
        passes = 2 if rdrop else 1
        hidden_PMD = hidden_ND.to(dtype).view(passes, -1, hidden_ND.shape[1])
        targets_PM = targets_N.view(passes, -1)
        head = head_VD.to(dtype)
        d_hidden_PMD, d_head_VD = torch.empty_like(hidden_PMD), torch.zeros_like(head_VD)
        sums = torch.zeros(2, dtype=_exact(hidden_ND.device), device=hidden_ND.device)
        size = max(CHUNK // (passes * len(head)), 1)
        for first in range(0, targets_PM.shape[1], size):
            rows = slice(first, first + size)
            hidden_CD = hidden_PMD[:, rows].flatten(0, 1)
            objective, nats, d_logits_CV = _loss_and_gradient(
                hidden_CD @ head.t(), targets_PM[:, rows].flatten(), smoothing, rdrop
            )
            sums[0] += objective
            sums[1] += nats
            d_hidden_PMD[:, rows] = (d_logits_CV @ head).view(passes, -1, head.shape[1])
            if dtype == d_head_VD.dtype:
                d_head_VD.addmm_(d_logits_CV.t(), hidden_CD)
            else:  # the sum over chunks keeps the weights' precision
                d_head_VD += d_logits_CV.t() @ hidden_CD
        ctx.save_for_backward(d_hidden_PMD.view_as(hidden_ND).to(hidden_ND.dtype), d_head_VD)
        objective, nats = (each.to(_wide(hidden_ND.dtype)) for each in sums)
        ctx.mark_non_differentiable(nats)
        return objective, nats

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden_ND, d_head_VD = ctx.saved_tensors
        return d_hidden_ND * grad_outputs[0], d_head_VD * grad_outputs[0], None, None, None, None


def _loss_and_gradient(
    logits_CV: Tensor, targets_C: Tensor, smoothing: float, rdrop: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Objective and nats of some rows, summed, and the objective's gradient in the logits, in their type."""
    counted_C1 = (targets_C != IGNORE)[:, None]
    index_C1 = targets_C.clamp(min=0)[:, None]
    wide = _wide(logits_CV.dtype)
    p_CV = torch.softmax(logits_CV, dim=-1)
    # log(sum(exp)) from the largest logit and its probability: of all, the one known most exactly
    log_sum_C1 = logits_CV.amax(dim=-1, keepdim=True).to(wide) - p_CV.amax(dim=-1, keepdim=True).to(wide).log()
    nats_C1 = log_sum_C1 - logits_CV.gather(1, index_C1).to(wide)
    objective_C1 = nats_C1
    if smoothing:
        uniform_C1 = log_sum_C1 - logits_CV.mean(dim=-1, keepdim=True, dtype=wide)
        objective_C1 = (1 - smoothing) * nats_C1 + smoothing * uniform_C1
    if rdrop:
        divergence_C1, d_divergence_CV = _divergence(logits_CV.to(wide) - log_sum_C1)
        objective_C1 = objective_C1 + rdrop * divergence_C1
    d_logits_CV = p_CV.scatter_add_(1, index_C1, (smoothing - 1) * torch.ones_like(index_C1, dtype=p_CV.dtype))
    if smoothing:
        d_logits_CV.sub_(smoothing / logits_CV.shape[1])
    if rdrop:
        d_logits_CV.add_(d_divergence_CV, alpha=rdrop)
    if not bool(counted_C1.all()):
        nats_C1, objective_C1 = (torch.where(counted_C1, each, 0) for each in (nats_C1, objective_C1))
        d_logits_CV.masked_fill_(~counted_C1, 0)
    exact = _exact(logits_CV.device)
    return objective_C1.sum(dtype=exact), nats_C1.sum(dtype=exact), d_logits_CV


def _divergence(log_p_CV: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric divergence between the first and the second half of the rows, for each row of both, and twice the
    gradient of one such divergence in the logits, which is that of the sum over rows."""
    log_ratio = log_p_CV - log_p_CV.roll(len(log_p_CV) // 2, dims=0)
    p_CV = log_p_CV.exp()
    difference = p_CV - p_CV.roll(len(p_CV) // 2, dims=0)
    own_C1 = (p_CV * log_ratio).sum(dim=-1, keepdim=True)  # KL of this row from its partner
    divergence_C1 = (own_C1 + own_C1.roll(len(own_C1) // 2, dims=0)) / 2
    return divergence_C1, p_CV * (log_ratio - own_C1) + difference


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _exact(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
