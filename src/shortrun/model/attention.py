"""Causal self-attention, with the variants that a recipe can switch on.

Shapes: N positions of all rows, B rows of a group, T positions of each, D d_model, H heads, K = D / H, M = B * H; S positions that are seen, T unless a cache holds
more.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortrun.model.dropout import drop
from shortrun.model.grouped import Settings, grouped_attention
from shortrun.model.kernels import written_out
from shortrun.model.layer_scale import LayerScale, WeightOrNone, scaled_linear
from shortrun.model.layout import Layout
from shortrun.recipe import ModelConfig


class LayerCache:
    """The keys and values of what one layer has seen, so that in sampling each new token costs one position alone."""

    def __init__(self) -> None:
        self.kv_2BHSK: Tensor | None = None

    @property
    def length(self) -> int:
        """S, the position of the token that comes next."""
        return 0 if self.kv_2BHSK is None else self.kv_2BHSK.shape[3]

    def append(self, k_BHTK: Tensor, v_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Takes in a prompt, or then one position at a time; gives back the keys and values of all, each BHSK."""
        new_2BHTK = torch.stack([k_BHTK, v_BHTK])
        if self.kv_2BHSK is not None:
            assert k_BHTK.shape[2] == 1, "attend() has no mask for several positions that follow others"
            new_2BHTK = torch.cat([self.kv_2BHSK, new_2BHTK], dim=3)
        self.kv_2BHSK = new_2BHTK
        return new_2BHTK[0], new_2BHTK[1]

    def keep(self, rows_B: Tensor) -> None:
        """Forgets the rows where `rows_B` is False."""
        if self.kv_2BHSK is not None:
            self.kv_2BHSK = self.kv_2BHSK[:, rows_B]


class CausalSelfAttention(nn.Module):
    """Each position attends to itself and to what stands before it in its row."""

    def __init__(self, config: ModelConfig, block_size: int) -> None:
        super().__init__()
        D, H, K = config.d_model, config.n_head, config.d_model // config.n_head
        self.n_head = H
        self.dropout = config.dropout
        self.qkv = nn.Linear(D, 3 * D, bias=config.bias)
        self.proj = nn.Linear(D, D, bias=config.bias)
        self.rotary = Rotary(K, block_size, config.rope_base) if config.positions == "rotary" else None
        self.q_norm = nn.RMSNorm(K) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(K) if config.qk_norm else None
        self.gate = nn.Linear(D, H, bias=config.bias) if config.output_gate else None

    def forward(
        self, x_ND: Tensor, layout: Layout, cache: LayerCache | None = None, scale: LayerScale | None = None
    ) -> Tensor:
        """`x_ND` are all positions of the rows of `layout`; with a `cache` they follow what it holds, and join it."""
        gate_NH = self.gate(x_ND) if self.gate else None
        if cache is None and written_out(x_ND):
            y_ND = self._grouped(x_ND, gate_NH, layout)
        else:
            qkv_N3D = self.qkv(x_ND)
            parts = [group.unpad(self._attended(group.pad(qkv_N3D), cache)) for group in layout.groups]
            y_ND = torch.cat(parts) if len(parts) > 1 else parts[0]
            if gate_NH is not None:
                N, H = gate_NH.shape
                y_ND = (y_ND.view(N, H, -1) * torch.sigmoid(gate_NH)[..., None]).flatten(1)
        return scaled_linear(self.proj, scale, y_ND)

    def _grouped(self, x_ND: Tensor, gate_NH: Tensor | None, layout: Layout) -> Tensor:
        if self.rotary:
            weight, bias = self._pairs_together(self.qkv.weight), self._pairs_together(self.qkv.bias)
            turn_TC = torch.complex(self.rotary.cos_TK, self.rotary.sin_TK)
            qkv_N3D = F.linear(x_ND, weight, bias)
        else:
            qkv_N3D, turn_TC = self.qkv(x_ND), None
        if self.q_norm and self.k_norm:
            q_NHK, k_NHK, v_NHK = qkv_N3D.view(len(qkv_N3D), 3, self.n_head, -1).unbind(1)
            qk_NHK = [self._normed(self.q_norm, q_NHK), self._normed(self.k_norm, k_NHK)]
            qkv_N3D = torch.stack([*qk_NHK, v_NHK], dim=1).flatten(1)
        with torch.autocast(x_ND.device.type, enabled=False):
            dropout = self.dropout if self.training else 0.0
            return grouped_attention(qkv_N3D, gate_NH, Settings(layout, self.n_head, turn_TC, dropout))

    def _pairs_together(self, weight: WeightOrNone) -> WeightOrNone:
        """The rows of query and key so that a pair of channels that is turned lies side by side."""
        if weight is None:
            return weight
        D = len(weight) // 3
        qk, v = weight[: 2 * D], weight[2 * D :]
        return torch.cat([_side_by_side(qk.view(2 * self.n_head, D // self.n_head, -1)).flatten(0, 1).view_as(qk), v])

    def _normed(self, norm: nn.RMSNorm, x_NHK: Tensor) -> Tensor:
        weight: Tensor = norm.weight if self.rotary is None else _side_by_side(norm.weight[None])[0]
        return F.rms_norm(x_NHK, weight.shape, weight, norm.eps)

    def _attended(self, qkv_BTD: Tensor, cache: LayerCache | None) -> Tensor:
        """What each position of some rows of equal length takes from those before it, BTD."""
        B, T, _ = qkv_BTD.shape
        q_BHTK, k_BHTK, v_BHTK = qkv_BTD.view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        if self.q_norm and self.k_norm:
            q_BHTK, k_BHTK = self.q_norm(q_BHTK), self.k_norm(k_BHTK)
        if self.rotary:
            start = cache.length if cache else 0
            q_BHTK, k_BHTK = self.rotary(q_BHTK, start), self.rotary(k_BHTK, start)
        k_BHSK, v_BHSK = cache.append(k_BHTK, v_BHTK) if cache else (k_BHTK, v_BHTK)
        y_BHTK = attend(q_BHTK, k_BHSK, v_BHSK, self.dropout if self.training else 0.0)
        return y_BHTK.transpose(1, 2).reshape(B, T, -1)


def attend(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, dropout: float) -> Tensor:
    """Weighted means of the values, by scaled dot product: each position's over itself and what stands before it in its row.

    T is S, or 1: the last position, which sees all. Dropout acts on the weights. On a CPU the product is written out,
    because torch's own kernel took 3.8 times as long in bfloat16 for rows of 128, where the scores are small, and draws its
    dropout slowly (docs/performance.md).
    """
    B, H, T, K = q_BHTK.shape
    if q_BHTK.device.type != "cpu" or torch.compiler.is_compiling():
        causal = bool(T > 1)  # where the model is exported, T is a symbol and T > 1 no bool
        return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, is_causal=causal, dropout_p=dropout)
    S = k_BHSK.shape[2]
    bias_TS = torch.full((T, S), -torch.inf, dtype=q_BHTK.dtype).triu(S - T + 1)
    q_MTK, k_MSK, v_MSK = (x.flatten(0, 1) for x in (q_BHTK, k_BHSK, v_BHSK))
    scores_MTS = torch.baddbmm(bias_TS, q_MTK, k_MSK.transpose(1, 2), alpha=K**-0.5)
    weights_MTS = drop(torch.softmax(scores_MTS, dim=-1), dropout)
    return torch.bmm(weights_MTS, v_MSK).view(B, H, T, K)


def _side_by_side(x_HK: Tensor) -> Tensor:
    """Channel i + K/2 next to channel i, along the second axis."""
    H, K = x_HK.shape[:2]
    return x_HK.reshape(H, 2, K // 2, -1).transpose(1, 2).reshape(x_HK.shape)


class Rotary(nn.Module):
    """Rotates channel pairs (i, i + K/2) by an angle that grows with the position (Su et al. 2021, arXiv 2104.09864)."""

    def __init__(self, head_dim: int, block_size: int, base: float) -> None:
        super().__init__()
        frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angles_TK = torch.outer(torch.arange(block_size, dtype=torch.float64), frequencies)
        self.register_buffer("cos_TK", angles_TK.cos().float(), persistent=False)
        self.register_buffer("sin_TK", angles_TK.sin().float(), persistent=False)
        self.cos_TK: Tensor
        self.sin_TK: Tensor

    def forward(self, x_BHTK: Tensor, start: int = 0) -> Tensor:
        """The first of the T positions is the `start`-th of its row."""
        end = start + x_BHTK.shape[2]
        cos_TK, sin_TK = self.cos_TK[start:end].to(x_BHTK.dtype), self.sin_TK[start:end].to(x_BHTK.dtype)
        first, second = x_BHTK.chunk(2, dim=-1)
        return torch.cat([first * cos_TK - second * sin_TK, second * cos_TK + first * sin_TK], dim=-1)
