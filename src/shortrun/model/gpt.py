"""The GPT: GPT-2's shape, as Mainrun's baseline has it.

Learned positions, pre-norm blocks of causal self-attention and a GELU MLP of four times the width, LayerNorm with bias,
a head tied to the token embedding. Parameter names are the baseline's, so its weights load as they are.

Shapes: B rows, T positions, D d_model, H heads, K = D / H, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortrun import recipe


class CausalSelfAttention(nn.Module):
    """Each position attends to itself and to what stands before it in its row."""

    def __init__(self, settings: recipe.Model) -> None:
        super().__init__()
        self.n_head = settings.n_head
        self.dropout = settings.dropout
        self.qkv = nn.Linear(settings.d_model, 3 * settings.d_model)
        self.proj = nn.Linear(settings.d_model, settings.d_model)
        self.resid_drop = nn.Dropout(settings.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q_BHTK, k_BHTK, v_BHTK = self.qkv(x_BTD).view(B, T, 3, self.n_head, D // self.n_head).permute(2, 0, 3, 1, 4)
        y_BHTK = F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, is_causal=True, dropout_p=self.dropout if self.training else 0.0
        )
        out_BTD: Tensor = self.resid_drop(self.proj(y_BHTK.transpose(1, 2).reshape(B, T, D)))
        return out_BTD


class MLP(nn.Module):
    """Two linear maps with a GELU between, four times as wide inside."""

    def __init__(self, settings: recipe.Model) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(settings.d_model, 4 * settings.d_model),
            nn.GELU(),
            nn.Linear(4 * settings.d_model, settings.d_model),
            nn.Dropout(settings.dropout),
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = self.net(x_BTD)
        return out_BTD


class Block(nn.Module):
    """Attention, then MLP, each on the normalised stream and added to it."""

    def __init__(self, settings: recipe.Model) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(settings.d_model)
        self.attn = CausalSelfAttention(settings)
        self.ln2 = nn.LayerNorm(settings.d_model)
        self.mlp = MLP(settings)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attn(self.ln1(x_BTD))
        out_BTD: Tensor = x_BTD + self.mlp(self.ln2(x_BTD))
        return out_BTD


class GPT(nn.Module):
    """Token ids to logits. Weights are drawn from torch's global generator: seed it first."""

    def __init__(self, settings: recipe.Model, vocab_size: int, block_size: int) -> None:
        super().__init__()
        self.block_size = block_size
        self.token_emb = nn.Embedding(vocab_size, settings.d_model)
        self.pos_emb = nn.Parameter(torch.zeros(1, block_size, settings.d_model))
        self.drop = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.n_layer))
        self.ln_f = nn.LayerNorm(settings.d_model)
        self.apply(self._init_weights)

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        """Linear and embedding weights N(0, 0.02), biases 0, positions 0, norms 1: the baseline's."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def forward(self, x_BT: Tensor) -> Tensor:
        """Logits_BTV of the token after each position. T may be at most block_size."""
        x_BTD = self.drop(self.token_emb(x_BT) + self.pos_emb[:, : x_BT.shape[1]])
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return F.linear(self.ln_f(x_BTD), self.token_emb.weight)

    def count_parameters(self) -> int:
        """Trained numbers; the head shares the embedding's and is not counted again."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self) -> int:
        """Floating-point operations of one forward and backward pass, per token: 6 for each parameter, and
        12 * layers * T * D for attention over a full row (Kaplan et al. 2020, section 2.1)."""
        return 6 * self.count_parameters() + 12 * len(self.blocks) * self.block_size * self.ln_f.normalized_shape[0]
