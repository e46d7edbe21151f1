"""Operations on a CPU with the backward pass written out, because autograd's own goes over memory more often.

At 6 layers of 256 a float32 step on 2 cores took 0.96 s, and its matrix products alone 0.54: nearly all of the rest was
waiting for memory. On other devices and under torch.compile the same is said in torch's own operations.

Shapes: N positions of all rows, C those of a slice, D d_model, F width inside the MLP.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from shortrun.model.dropout import draw_mask, drop


def written_out(x: Tensor) -> bool:
    """Whether `x` is where these pay."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def add_dropped(x_ND: Tensor, y_ND: Tensor, p: float) -> Tensor:
    """`x + drop(y, p)`. May overwrite `y`, which a linear map gave out and does not need again."""
    if not p or not written_out(x_ND):
        return x_ND + drop(y_ND, p)
    out_ND: Tensor = _AddDropped.apply(x_ND, y_ND, p)  # type: ignore[no-untyped-call]
    return out_ND


def with_rms_norm(x_ND: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x`, and `x / rms(x) * weight` (Zhang & Sennrich 2019, arXiv 1910.07467) in autocast's type where that is on.

    Whoever goes on with `x` should take the one returned.
    """
    if not written_out(x_ND):
        return x_ND, F.rms_norm(x_ND, weight_D.shape, weight_D, eps)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x_ND.dtype
    both: tuple[Tensor, Tensor] = _RMSNorm.apply(x_ND, weight_D, eps, dtype)  # type: ignore[no-untyped-call]
    return both


def squared_relu_mlp(
    x_ND: Tensor, up_FD: Tensor, up_F: Tensor | None, down_DF: Tensor, down_D: Tensor | None
) -> Tensor:
    """Two linear maps with `relu(x) ** 2` between (So et al. 2021, arXiv 2109.08668)."""
    if not written_out(x_ND):
        return F.linear(F.relu(F.linear(x_ND, up_FD, up_F)).square(), down_DF, down_D)
    weights = (None if weight is None else weight.to(x_ND.dtype) for weight in (up_FD, up_F, down_DF, down_D))
    with torch.autocast("cpu", enabled=False):
        out_ND: Tensor = _SquaredReLUMLP.apply(x_ND, *weights)  # type: ignore[no-untyped-call]
    return out_ND


def scaled_product(one: Tensor, other: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """`one * other * scale` in one pass."""
    return torch.addcmul(zero(one.dtype), one, other, value=scale, out=out)


@cache
def zero(dtype: torch.dtype) -> Tensor:
    """What products are added to that are added to nothing."""
    return torch.zeros((), dtype=dtype)


class _AddDropped(torch.autograd.Function):
    """Writes into what it is given and what it keeps, because room that is not in the cache costs twice as much to write."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, y_ND: Tensor, p: float) -> Tensor:
        keep_ND, ctx.scale = draw_mask(y_ND.shape, p, y_ND.dtype)
        ctx.save_for_backward(keep_ND)
        if y_ND.dtype != x_ND.dtype:
            return torch.addcmul(x_ND, y_ND, keep_ND, value=ctx.scale)
        ctx.mark_dirty(y_ND)
        return torch.addcmul(x_ND, y_ND, keep_ND, value=ctx.scale, out=y_ND)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_ND: Tensor) -> tuple[Tensor | None, ...]:
        (keep_ND,) = ctx.saved_tensors
        return d_ND, scaled_product(d_ND.to(keep_ND.dtype), keep_ND, ctx.scale, out=keep_ND), None


class _RMSNorm(torch.autograd.Function):
    """Gives out its input too, so that both gradients of what goes on with it are added up here."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        length_N1 = torch.linalg.vector_norm(x_ND, dim=1, keepdim=True)
        scale_N1 = length_N1.square_().div_(x_ND.shape[1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x_ND, scale_N1, weight_D)
        return x_ND, torch.mul(x_ND, scale_N1).mul_(weight_D).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_x_ND: Tensor, d_ND: Tensor) -> tuple[Tensor | None, ...]:
        """LayerNorm's, as if the mean were 0, less the part that goes through the mean: scale * mean(d * weight)."""
        x_ND, scale_N1, weight_D = ctx.saved_tensors
        D, d_ND = len(weight_D), d_ND.to(x_ND.dtype)
        d_inside_ND, d_weight_D, _ = torch.ops.aten.native_layer_norm_backward(
            d_ND, x_ND, [D], torch.zeros_like(scale_N1), scale_N1, weight_D, None, [True, True, False]
        )
        through_mean_N1 = torch.mv(d_ND, weight_D)[:, None].mul_(scale_N1).div_(D)
        return d_inside_ND.add_(d_x_ND).add_(through_mean_N1), d_weight_D, None, None


class _SquaredReLUMLP(torch.autograd.Function):
    """One operation, so that what is as wide as F can be overwritten: x by relu(x), and the gradient of its square by its own."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, up_FD: Tensor, up_F: Tensor | None, down_DF: Tensor, down_D: Tensor | None
    ) -> Tensor:
        relu_NF = F.linear(x_ND, up_FD, up_F).clamp_min_(0)
        square_NF = relu_NF * relu_NF
        ctx.save_for_backward(x_ND, up_FD, down_DF, relu_NF, square_NF)
        return F.linear(square_NF, down_DF, down_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_ND: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, up_FD, down_DF, relu_NF, square_NF = ctx.saved_tensors
        d_NF = d_ND @ down_DF
        scaled_product(d_NF, relu_NF, 2.0, out=d_NF)
        d_up_F, d_down_D = (
            d.sum(0) if wanted else None for d, wanted in zip((d_NF, d_ND), ctx.needs_input_grad[2::2], strict=True)
        )
        return d_NF @ up_FD, d_NF.t() @ x_ND, d_up_F, d_ND.t() @ square_NF, d_down_D
