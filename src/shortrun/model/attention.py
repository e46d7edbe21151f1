"""Causal self-attention, with the variants that a recipe can switch on.

Shapes: B rows, T positions, D d_model, H heads, K = D / H; S positions that are seen, T unless a cache
holds more; where titles are isolated, C pieces of W positions a row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortrun.model.dropout import Dropout, drop
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
    """Each position attends to itself and to what stands before it in its row (with `isolate_titles`, in its title)."""

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

    def forward(self, x_BTD: Tensor, titles: Titles | None = None, cache: LayerCache | None = None) -> Tensor:
        """`titles`: attention stays inside each; None: inside each row. `x_BTD` follows what the `cache` holds, and joins
        it."""
        B, T, D = x_BTD.shape
        q_BHTK, k_BHTK, v_BHTK = self.qkv(x_BTD).view(B, T, 3, self.n_head, D // self.n_head).permute(2, 0, 3, 1, 4)
        if self.q_norm and self.k_norm:
            q_BHTK, k_BHTK = self.q_norm(q_BHTK), self.k_norm(k_BHTK)
        if self.rotary:
            start = cache.length if cache else 0
            q_BHTK, k_BHTK = self.rotary(q_BHTK, start), self.rotary(k_BHTK, start)
        k_BHSK, v_BHSK = cache.append(k_BHTK, v_BHTK) if cache else (k_BHTK, v_BHTK)
        y_BHTK = attend(q_BHTK, k_BHSK, v_BHSK, titles, self.dropout if self.training else 0.0)
        if self.gate:
            y_BHTK = y_BHTK * torch.sigmoid(self.gate(x_BTD)).transpose(1, 2)[..., None]
        out_BTD: Tensor = self.resid_drop(self.proj(y_BHTK.transpose(1, 2).reshape(B, T, D)))
        return out_BTD


class Titles:
    """Which title each position of some rows is in: attention stays inside. A title begins with the `eos` before it.

    width: a power of two that no title is longer than, if rows cut into pieces so wide save half of the scores or more (on a
    CPU); mask: what each position sees, of the piece before its own and its own, BCWS, S = 2 W; else of its row, BTT.
    """

    def __init__(self, x_BT: Tensor, eos: int) -> None:
        self.title_BT = (x_BT == eos).cumsum(dim=1)
        self.width = None if x_BT.device.type != "cpu" or torch.compiler.is_compiling() else self._narrow()
        self.mask = self.same_BTT() if self.width is None else self._near_BCWS(self.width)

    def same_BTT(self) -> Tensor:  # noqa: N802
        """Position i may see j <= i of the same title."""
        return (self.title_BT[:, :, None] == self.title_BT[:, None, :]).tril()

    def _narrow(self) -> int | None:
        T = self.title_BT.shape[1]
        begins_BT = F.pad(self.title_BT.diff(dim=1), (1, 0)) * torch.arange(T)
        longest = int((torch.arange(T) - begins_BT.cummax(dim=1).values).max()) + 1
        width = max(16, 1 << (longest - 1).bit_length())
        return width if T % width == 0 and 4 * width <= T else None

    def _near_BCWS(self, W: int) -> Tensor:  # noqa: N802
        title_BCW = self.title_BT.view(len(self.title_BT), -1, W)
        seen_BCS = torch.cat([F.pad(title_BCW[:, :-1], (0, 0, 1, 0), value=-1), title_BCW], dim=2)
        seen: Tensor = title_BCW[..., None] == seen_BCS[:, :, None]
        return seen.tril(W)


def attend(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, titles: Titles | None, dropout: float) -> Tensor:
    """Weighted means of the values, by scaled dot product: each position's over itself and what stands before it, in its
    row or in its title. T is S, or 1: the last position, which sees all. Dropout acts on the weights.

    On a CPU the product is written out: torch's own kernel took 3.8 times as long in bfloat16 for rows of 128, where
    the scores are small, and draws its dropout slowly (docs/performance.md). Where titles are isolated and short, a piece
    of a row is only held against itself and the piece before it.
    """
    B, H, T, K = q_BHTK.shape
    if q_BHTK.device.type != "cpu" or torch.compiler.is_compiling():
        mask = titles.mask[:, None] if titles else None
        return F.scaled_dot_product_attention(
            q_BHTK, k_BHSK, v_BHSK, attn_mask=mask, is_causal=mask is None and T > 1, dropout_p=dropout
        )
    S = k_BHSK.shape[2]
    mask = titles.mask if titles else torch.ones(T, S, dtype=torch.bool).tril(S - T)
    bias = torch.zeros_like(mask, dtype=q_BHTK.dtype).masked_fill_(~mask, -torch.inf)
    if titles and titles.width:
        W = titles.width
        q, k, v = (x.reshape(B, H, -1, W, K) for x in (q_BHTK, k_BHSK, v_BHSK))
        k, v = (torch.cat([F.pad(x[:, :, :-1], (0, 0, 0, 0, 1, 0)), x], dim=3) for x in (k, v))
        q_NTK, k_NSK, v_NSK = (x.flatten(0, 2) for x in (q, k, v))
    else:
        q_NTK, k_NSK, v_NSK = (x.flatten(0, 1) for x in (q_BHTK, k_BHSK, v_BHSK))
    if titles:
        bias = bias[:, None].expand(B, H, *bias.shape[1:]).reshape(len(q_NTK), *bias.shape[-2:])
    scores_NTS = torch.baddbmm(bias, q_NTK, k_NSK.transpose(1, 2), alpha=K**-0.5)
    weights_NTS = drop(torch.softmax(scores_NTS, dim=-1), dropout)
    return torch.bmm(weights_NTS, v_NSK).reshape(B, H, T, K)


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
