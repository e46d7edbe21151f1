"""The GPT: GPT-2's shape as Mainrun's baseline has it, and the variants that a recipe can switch on.

By default: learned positions, pre-norm blocks of causal self-attention and a GELU MLP of four times the width, LayerNorm
with bias, a head tied to the token embedding. Parameter names are the baseline's, so its weights load as they are.

Shapes: B rows, T positions, D d_model, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortrun import recipe
from shortrun.model.attention import Cache, CausalSelfAttention, Titles
from shortrun.model.dropout import Dropout


class MLP(nn.Module):
    """Two linear maps with a GELU or a squared ReLU (So et al. 2021, arXiv 2109.08668) between, four times as wide inside."""

    def __init__(self, settings: recipe.Model) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(settings.d_model, 4 * settings.d_model, bias=settings.bias),
            nn.GELU() if settings.mlp == "gelu" else SquaredReLU(),
            nn.Linear(4 * settings.d_model, settings.d_model, bias=settings.bias),
            Dropout(settings.dropout),
        )

    @property
    def to_stream(self) -> nn.Linear:
        """The map that writes to the residual stream."""
        linear: nn.Linear = self.net[2]  # type: ignore[assignment]
        return linear

    def forward(self, x_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = self.net(x_BTD)
        return out_BTD


class SquaredReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class SwiGLU(nn.Module):
    """SiLU(gate) * value, 8/3 times as wide inside, to the next multiple of 8 (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, settings: recipe.Model) -> None:
        super().__init__()
        width = -(-settings.d_model * 8 // 3 // 8) * 8
        self.gate_value = nn.Linear(settings.d_model, 2 * width, bias=settings.bias)
        self.to_stream = nn.Linear(width, settings.d_model, bias=settings.bias)
        self.drop = Dropout(settings.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, value = self.gate_value(x_BTD).chunk(2, dim=-1)
        out_BTD: Tensor = self.drop(self.to_stream(F.silu(gate) * value))
        return out_BTD


class LayerScale(nn.Module):
    """A learned factor for each channel (Touvron et al. 2021, arXiv 2103.17239)."""

    def __init__(self, d_model: int, initial: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((d_model,), initial))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD * self.factor


class Block(nn.Module):
    """Attention and MLP, each on the normalised stream and added to it: one after the other, or side by side."""

    def __init__(self, settings: recipe.Model, block_size: int) -> None:
        super().__init__()
        self.parallel = settings.block == "parallel"
        self.ln1 = make_norm(settings)
        self.attn = CausalSelfAttention(settings, block_size)
        self.ln2 = nn.Identity() if self.parallel else make_norm(settings)
        self.mlp: MLP | SwiGLU = SwiGLU(settings) if settings.mlp == "swiglu" else MLP(settings)
        self.scale1 = _layer_scale(settings)
        self.scale2 = _layer_scale(settings)

    def forward(self, x_BTD: Tensor, titles: Titles | None, cache: Cache | None = None) -> Tensor:
        normed_BTD = self.ln1(x_BTD)
        attended_BTD = x_BTD + self.scale1(self.attn(normed_BTD, titles, cache))
        seen_BTD = normed_BTD if self.parallel else self.ln2(attended_BTD)
        out_BTD: Tensor = attended_BTD + self.scale2(self.mlp(seen_BTD))
        return out_BTD


def make_norm(settings: recipe.Model) -> nn.Module:
    """LayerNorm, or RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467)."""
    if settings.norm == "rmsnorm":
        return nn.RMSNorm(settings.d_model, eps=1e-5)
    return nn.LayerNorm(settings.d_model, bias=settings.bias)


def _layer_scale(settings: recipe.Model) -> nn.Module:
    return nn.Identity() if settings.layer_scale is None else LayerScale(settings.d_model, settings.layer_scale)


class GPT(nn.Module):
    """Token ids to logits. Weights are drawn from torch's global generator: seed it first."""

    def __init__(self, settings: recipe.Model, vocab_size: int, block_size: int, eos: int) -> None:
        super().__init__()
        self.block_size, self.d_model = block_size, settings.d_model
        self.eos, self.isolate_titles, self.word_dropout = eos, settings.isolate_titles, settings.word_dropout
        self.embedding_scale = settings.d_model**-0.5 if settings.scale_embeddings else 1.0
        self.token_emb = nn.Embedding(vocab_size, settings.d_model)
        learned = settings.positions == "learned"
        self.pos_emb = nn.Parameter(torch.zeros(1, block_size, settings.d_model)) if learned else None
        self.drop = Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings, block_size) for _ in range(settings.n_layer))
        self.ln_f = make_norm(settings)
        self.head = None if settings.tied_head else nn.Linear(settings.d_model, vocab_size, bias=False)
        self.apply(self._init_weights)
        if settings.init == "residual":
            self._shrink_what_writes_to_the_stream()

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        """Linear and embedding weights N(0, 0.02), biases 0, positions 0, norms 1: the baseline's."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @torch.no_grad()
    def _shrink_what_writes_to_the_stream(self) -> None:
        """GPT-2's residual initialisation: 2 n_layer parts add to the stream, each starts at 1 / sqrt(2 n_layer)."""
        for block in self.blocks:
            assert isinstance(block, Block)
            for linear in (block.attn.proj, block.mlp.to_stream):
                linear.weight.mul_((2 * len(self.blocks)) ** -0.5)

    @property
    def head_VD(self) -> Tensor:  # noqa: N802
        """The head's weights: the logits are the last hidden states times these."""
        return (self.head or self.token_emb).weight

    def forward(self, x_BT: Tensor) -> Tensor:
        """Logits_BTV of the token after each position. T may be at most block_size."""
        return F.linear(self.hidden(x_BT), self.head_VD)

    def hidden(self, x_BT: Tensor, caches: list[Cache] | None = None) -> Tensor:
        """The normalised last hidden state hidden_BTD of each position, from which the head makes logits.

        With `caches`, one for each block, `x_BT` goes on from what they hold: first a prompt, then a token at a time, all
        of one title.
        """
        start = caches[0].length if caches else 0
        x_BTD = self.token_emb(x_BT) * self.embedding_scale
        if self.training and self.word_dropout:
            dropped_BT = (torch.rand(x_BT.shape, device=x_BT.device) < self.word_dropout) & (x_BT != self.eos)
            x_BTD = x_BTD.masked_fill(dropped_BT[..., None], 0.0)
        if self.pos_emb is not None:
            x_BTD = x_BTD + self.pos_emb[:, start : start + x_BT.shape[1]]
        x_BTD = self.drop(x_BTD)
        titles = Titles(x_BT, self.eos) if self.isolate_titles and start == 0 else None
        for layer, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, titles, caches[layer] if caches else None)
        hidden_BTD: Tensor = self.ln_f(x_BTD)
        return hidden_BTD

    def count_parameters(self) -> int:
        """Trained numbers; a tied head shares the embedding's and is not counted again."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self) -> int:
        """Floating-point operations of one forward and backward pass, per token: 6 for each parameter, and
        12 * layers * T * D for attention over a full row (Kaplan et al. 2020, section 2.1)."""
        return 6 * self.count_parameters() + 12 * len(self.blocks) * self.block_size * self.d_model
