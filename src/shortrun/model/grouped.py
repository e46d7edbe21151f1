"""Attention over all groups of rows of a stream at once, on a CPU, with its backward pass written out.

Each head's channels of a position are moved once on their way from the stream into a padded group and once on their way back,
where autograd's own way copied them four times each way and added up a gradient as large as the stream for every group.

Shapes: N positions of all rows, n those of a group, B its rows, T its longest, H heads, M = B * H, K channels of a head.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shortrun.model.dropout import draw_mask
from shortrun.model.kernels import zero
from shortrun.model.layout import Layout

REGISTER = 16
"""Float32 numbers in a vector register: torch's softmax of shorter rows takes them one by one, 13 times as long."""


class Settings(NamedTuple):
    """What attention is told besides tensors."""

    layout: Layout
    n_head: int
    turn_TC: Tensor | None
    """e^(i angle) for each position and pair of channels, by which queries and keys are turned. The two channels of a pair
    lie side by side."""
    dropout: float
    """Share of the weights that are dropped."""


def grouped_attention(qkv_N3D: Tensor, gate_NH: Tensor | None, settings: Settings) -> Tensor:
    """Causal attention inside each row, y_ND; each head's times the sigmoid of its gate, where there is one."""
    y_ND: Tensor = _GroupedAttention.apply(qkv_N3D, gate_NH, settings)  # type: ignore[no-untyped-call]
    return y_ND


class _Kept(NamedTuple):
    """What the backward pass of a group needs."""

    qkv_3MTK: Tensor
    weights_MTT: Tensor
    used_MTT: Tensor
    """What the values were multiplied by: the weights, but for those that were dropped, times the gate."""
    gate_MT1: Tensor | None


class _GroupedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv_N3D: Tensor, gate_NH: Tensor | None, settings: Settings) -> Tensor:
        layout, H, turn_TC, dropout = settings
        y_ND = qkv_N3D.new_empty(len(qkv_N3D), qkv_N3D.shape[1] // 3)
        K = y_ND.shape[1] // H
        kept: list[Tensor | None] = []
        qkv_RK, y_RK = qkv_N3D.view(-1, K), y_ND.view(-1, K)
        gate_R1 = None if gate_NH is None else torch.sigmoid(gate_NH).view(-1, 1)
        for group in layout.groups:
            one, three = group.heads_of(1, H), group.heads_of(3, H)
            qkv_3MTK = three.stacked(qkv_RK)
            _turn(qkv_3MTK, turn_TC)
            q_MTK, k_MTK, v_MTK = qkv_3MTK.unbind()
            weights_MTT = _weights(q_MTK, k_MTK)
            used_MTT, ctx.scale = _dropped(weights_MTT, dropout)
            gate_MT1 = None
            if gate_R1 is not None:
                (gate_MT1,) = one.stacked(gate_R1)
                used_MTT = used_MTT * gate_MT1
            one.put_back(_scaled_bmm(used_MTT, v_MTK, ctx.scale), y_RK)
            kept += _Kept(qkv_3MTK, weights_MTT, used_MTT, gate_MT1)
        ctx.save_for_backward(*kept)
        ctx.settings = settings
        return y_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_ND: Tensor) -> tuple[Tensor | None, ...]:
        layout, H, turn_TC, _ = ctx.settings
        back_TC = None if turn_TC is None else turn_TC.conj_physical()
        d_qkv_N3D = d_ND.new_empty(len(d_ND), 3 * d_ND.shape[1])
        d_gate_NH = d_ND.new_empty(len(d_ND), H) if ctx.needs_input_grad[1] else None
        d_RK, d_qkv_RK = (each.view(-1, d_ND.shape[1] // H) for each in (d_ND, d_qkv_N3D))
        for group, tensors in zip(layout.groups, zip(*[iter(ctx.saved_tensors)] * 4, strict=True), strict=True):
            one, three, kept = group.heads_of(1, H), group.heads_of(3, H), _Kept(*tensors)
            (d_MTK,) = one.clear_behind(one.stacked(d_RK))
            d_3MTK, along_MT1 = _gradient(d_MTK, kept, ctx.scale)
            _turn(d_3MTK, back_TC)
            three.put_back(d_3MTK, d_qkv_RK)
            if kept.gate_MT1 is not None and d_gate_NH is not None:
                one.put_back(along_MT1.mul_(1 - kept.gate_MT1), d_gate_NH.view(-1, 1))
        return d_qkv_N3D, d_gate_NH, None


def _turn(qkv_3MTK: Tensor, turn_TC: Tensor | None) -> None:
    """Turns queries and keys in place, in float32 at least, because there are no complex numbers in bfloat16."""
    if turn_TC is None:
        return
    qk_2MTK = qkv_3MTK[:2]
    turned_2MTK = qk_2MTK.to(torch.promote_types(qk_2MTK.dtype, torch.float32))
    torch.view_as_complex(turned_2MTK.view(*qk_2MTK.shape[:-1], -1, 2)).mul_(turn_TC[: qk_2MTK.shape[2]])
    if turned_2MTK.dtype != qk_2MTK.dtype:
        qk_2MTK.copy_(turned_2MTK)


def _weights(q_MTK: Tensor, k_MTK: Tensor) -> Tensor:
    """Softmax of the scaled products, over each position and those before it."""
    T, K = q_MTK.shape[1:]
    scores_MTT = _scaled_bmm(q_MTK, k_MTK.mT, K**-0.5).add_(_later(T, q_MTK.dtype))
    if T >= REGISTER:
        return torch.softmax(scores_MTT, dim=-1)
    scores_MTT.sub_(scores_MTT.amax(dim=-1, keepdim=True)).exp_()
    return scores_MTT.div_(scores_MTT.sum(dim=-1, keepdim=True))


@lru_cache(maxsize=64)
def _later(T: int, dtype: torch.dtype) -> Tensor:
    """What hides from each position those behind it."""
    return torch.full((T, T), -torch.inf, dtype=dtype).triu(1)


def _dropped(weights_MTT: Tensor, dropout: float) -> tuple[Tensor, float]:
    """The weights, some of them zeroed, and the factor that is then due."""
    if not dropout:
        return weights_MTT, 1.0
    keep_MTT, scale = draw_mask(weights_MTT.shape, dropout, weights_MTT.dtype)
    return keep_MTT.mul_(weights_MTT), scale


def _gradient(d_MTK: Tensor, kept: _Kept, scale: float) -> tuple[Tensor, Tensor]:
    """That of queries, keys and values; and the sum over each row of u * du, u being the weights that were used.

    The softmax's own is u * du - w * (sum of u * du), because du reaches a weight w by the factor u / w.
    """
    q_MTK, k_MTK, v_MTK = kept.qkv_3MTK.unbind()
    d_3MTK = torch.empty_like(kept.qkv_3MTK)
    d_q_MTK, d_k_MTK, d_v_MTK = d_3MTK.unbind()
    _scaled_bmm(kept.used_MTT.mT, d_MTK, scale, out=d_v_MTK)
    d_scores_MTT = _scaled_bmm(d_MTK, v_MTK.mT, scale).mul_(kept.used_MTT)
    along_MT1 = d_scores_MTT.sum(dim=-1, keepdim=True)
    d_scores_MTT.addcmul_(kept.weights_MTT, along_MT1, value=-1)
    root = q_MTK.shape[2] ** -0.5
    _scaled_bmm(d_scores_MTT, k_MTK, root, out=d_q_MTK)
    _scaled_bmm(d_scores_MTT.mT, q_MTK, root, out=d_k_MTK)
    return d_3MTK, along_MT1


def _scaled_bmm(one: Tensor, other: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    return torch.baddbmm(zero(one.dtype), one, other, beta=0, alpha=scale, out=out)
