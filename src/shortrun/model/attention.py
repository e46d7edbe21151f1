"""Causal self-attention, with the variants that a recipe can switch on.

Shapes: N positions of all rows, B rows of a group, T positions of each, D d_model, H heads, K = D / H, M = B * H; S positions that are seen, T unless a cache holds
more.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortrun.model.dropout import Dropout, drop
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
        self.resid_drop = Dropout(config.dropout)
        self.rotary = Rotary(K, block_size, config.rope_base) if config.positions == "rotary" else None
        self.q_norm = nn.RMSNorm(K) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(K) if config.qk_norm else None
        self.gate = nn.Linear(D, H, bias=config.bias) if config.output_gate else None

    def forward(self, x_ND: Tensor, layout: Layout, cache: LayerCache | None = None) -> Tensor:
        """`x_ND` are all positions of the rows of `layout`; with a `cache` they follow what it holds, and join it."""
        qkv_N3D = self.qkv(x_ND)
        parts = [group.unpad(self._attended(group.pad(qkv_N3D), cache)) for group in layout.groups]
        y_ND = torch.cat(parts) if len(parts) > 1 else parts[0]
        if self.gate:
            N, H = len(y_ND), self.n_head
            y_ND = (y_ND.view(N, H, -1) * torch.sigmoid(self.gate(x_ND))[..., None]).flatten(1)
        out_ND: Tensor = self.resid_drop(self.proj(y_ND))
        return out_ND

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
        return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, is_causal=T > 1, dropout_p=dropout)
    S = k_BHSK.shape[2]
    bias_TS = torch.full((T, S), -torch.inf, dtype=q_BHTK.dtype).triu(S - T + 1)
    q_MTK, k_MSK, v_MSK = (x.flatten(0, 1) for x in (q_BHTK, k_BHSK, v_BHSK))
    scores_MTS = torch.baddbmm(bias_TS, q_MTK, k_MSK.transpose(1, 2), alpha=K**-0.5)
    weights_MTS = drop(torch.softmax(scores_MTS, dim=-1), dropout)
    return torch.bmm(weights_MTS, v_MSK).view(B, H, T, K)


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
