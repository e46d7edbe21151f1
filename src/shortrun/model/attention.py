"""Causal self-attention, with the variants that a recipe can switch on.

Shapes: B rows, T positions, D d_model, H heads, K = D / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortrun import recipe


class CausalSelfAttention(nn.Module):
    """Each position attends to itself and to what stands before it in its row (with `isolate_titles`, in its title)."""

    def __init__(self, settings: recipe.Model, block_size: int) -> None:
        super().__init__()
        D, H, K = settings.d_model, settings.n_head, settings.d_model // settings.n_head
        self.n_head = H
        self.dropout = settings.dropout
        self.qkv = nn.Linear(D, 3 * D, bias=settings.bias)
        self.proj = nn.Linear(D, D, bias=settings.bias)
        self.resid_drop = nn.Dropout(settings.dropout)
        self.rotary = Rotary(K, block_size, settings.rope_base) if settings.positions == "rotary" else None
        self.q_norm = nn.RMSNorm(K) if settings.qk_norm else None
        self.k_norm = nn.RMSNorm(K) if settings.qk_norm else None
        self.gate = nn.Linear(D, H, bias=settings.bias) if settings.output_gate else None

    def forward(self, x_BTD: Tensor, mask_B1TT: Tensor | None = None) -> Tensor:
        """`mask_B1TT`: which earlier positions each may see; None for all of its row."""
        B, T, D = x_BTD.shape
        q_BHTK, k_BHTK, v_BHTK = self.qkv(x_BTD).view(B, T, 3, self.n_head, D // self.n_head).permute(2, 0, 3, 1, 4)
        if self.q_norm and self.k_norm:
            q_BHTK, k_BHTK = self.q_norm(q_BHTK), self.k_norm(k_BHTK)
        if self.rotary:
            q_BHTK, k_BHTK = self.rotary(q_BHTK), self.rotary(k_BHTK)
        y_BHTK = F.scaled_dot_product_attention(
            q_BHTK,
            k_BHTK,
            v_BHTK,
            attn_mask=mask_B1TT,
            is_causal=mask_B1TT is None,
            dropout_p=self.dropout if self.training else 0.0,
        )
        if self.gate:
            y_BHTK = y_BHTK * torch.sigmoid(self.gate(x_BTD)).transpose(1, 2)[..., None]
        out_BTD: Tensor = self.resid_drop(self.proj(y_BHTK.transpose(1, 2).reshape(B, T, D)))
        return out_BTD


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

    def forward(self, x_BHTK: Tensor) -> Tensor:
        T = x_BHTK.shape[2]
        cos_TK, sin_TK = self.cos_TK[:T].to(x_BHTK.dtype), self.sin_TK[:T].to(x_BHTK.dtype)
        first, second = x_BHTK.chunk(2, dim=-1)
        return torch.cat([first * cos_TK - second * sin_TK, second * cos_TK + first * sin_TK], dim=-1)


def title_mask(x_BT: Tensor, eos: int) -> Tensor:
    """mask_B1TT: position i may see j <= i of the same title. A title begins with the `eos` before its first token."""
    title_BT = (x_BT == eos).cumsum(dim=1)
    same_BTT = title_BT[:, :, None] == title_BT[:, None, :]
    return same_BTT.tril()[:, None]
