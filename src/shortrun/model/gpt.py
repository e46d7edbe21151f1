"""The GPT: GPT-2's shape as Mainrun's baseline has it, and the variants that a recipe can switch on.

By default: learned positions, pre-norm blocks of causal self-attention and a GELU MLP of four times the width, LayerNorm
with bias, a head tied to the token embedding. Parameter names are the baseline's, so its weights load as they are.

Shapes: B rows, T positions, N positions of all rows, D d_model, V vocabulary, E width of the token embeddings.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortrun.model.attention import CausalSelfAttention, LayerCache
from shortrun.model.dropout import Dropout
from shortrun.model.kernels import add_dropped, with_rms_norm
from shortrun.model.language_model import Cache, Caches, LanguageModel, logits_from
from shortrun.model.layer_scale import LayerScale
from shortrun.model.layout import Layout
from shortrun.model.mlp import KINDS, SwiGLU
from shortrun.recipe import ModelConfig
from shortrun.tokens.rows import Rows


class Stream(NamedTuple):
    """The residual stream between two parts of a model."""

    x_ND: Tensor
    seen_ND: Tensor
    """The same, normalised, which is what the next part works on."""

    @classmethod
    def through(cls, norm: nn.Module, x_ND: Tensor, y_ND: Tensor | None = None, dropout: float = 0.0) -> Stream:
        """Adds what a part gave out, some of it dropped."""
        if y_ND is not None:
            x_ND = add_dropped(x_ND, y_ND, dropout)
        if isinstance(norm, nn.RMSNorm):
            assert norm.eps is not None
            return cls(*with_rms_norm(x_ND, norm.weight, norm.eps))
        return cls(x_ND, norm(x_ND))


class Block(nn.Module):
    """Attention and MLP, each on the normalised stream and added to it: one after the other, or side by side."""

    def __init__(self, config: ModelConfig, block_size: int) -> None:
        super().__init__()
        self.parallel, self.dropout = config.block == "parallel", config.dropout
        self.ln1 = make_norm(config)
        self.attn = CausalSelfAttention(config, block_size)
        self.ln2 = nn.Identity() if self.parallel else make_norm(config)
        self.mlp = KINDS[config.mlp].make(config)
        self.scale1 = _layer_scale(config)
        self.scale2 = _layer_scale(config)

    def forward(self, stream: Stream, follows: nn.Module, layout: Layout, cache: LayerCache | None = None) -> Stream:
        """`follows` is the norm that the next part sees the stream through."""
        dropout = self.dropout if self.training else 0.0
        attended_ND = self.attn(stream.seen_ND, layout, cache, self.scale1)
        if self.parallel:
            stream = Stream(add_dropped(stream.x_ND, attended_ND, dropout), stream.seen_ND)
        else:
            stream = Stream.through(self.ln2, stream.x_ND, attended_ND, dropout)
        return Stream.through(follows, stream.x_ND, self.mlp(stream.seen_ND, self.scale2), dropout)


def make_norm(config: ModelConfig) -> nn.Module:
    """LayerNorm, or RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467)."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.d_model, eps=1e-5)
    return nn.LayerNorm(config.d_model, bias=config.bias)


def _layer_scale(config: ModelConfig) -> LayerScale | None:
    return None if config.layer_scale is None else LayerScale(config.d_model, config.layer_scale)


class GPT(LanguageModel):
    """Token ids to logits. Weights are drawn from torch's global generator: seed it first."""

    def __init__(self, config: ModelConfig, vocab_size: int, block_size: int, eos: int) -> None:
        super().__init__()
        self.block_size, self.vocab_size, self.d_model = block_size, vocab_size, config.d_model
        self.eos, self.word_dropout, self.word_replacement = eos, config.word_dropout, config.word_replacement
        self.embedding_scale = config.d_model**-0.5 if config.scale_embeddings else 1.0
        width = config.embedding_width or config.d_model
        self.token_emb = nn.Embedding(vocab_size, width)
        # factorised (Lan et al. 2020, arXiv 1909.11942), without a bias, so that a tied head is the same map the other way
        self.emb_up = nn.Linear(width, config.d_model, bias=False) if config.embedding_width else None
        learned = config.positions == "learned"
        self.pos_emb = nn.Parameter(torch.zeros(1, block_size, config.d_model)) if learned else None
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, block_size) for _ in range(config.n_layer))
        self.ln_f = make_norm(config)
        self.head = None if config.tied_head else nn.Linear(config.d_model, vocab_size, bias=False)
        self.apply(self._init_weights)
        if self.emb_up is not None:  # what goes into the stream then has the spread that a whole table gives it
            nn.init.normal_(self.emb_up.weight, std=width**-0.5)
        if config.init == "residual":
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
    def head_VD(self) -> Tensor:
        """The head's weights: the logits are the last hidden states times these. [V, E] where factorised embeddings are tied."""
        return (self.head or self.token_emb).weight

    @property
    def table_VD(self) -> Tensor:
        """Each token's vector as it enters the stream, but for its scale: factorised embeddings are multiplied out."""
        return self.token_emb.weight if self.emb_up is None else self.token_emb.weight @ self.emb_up.weight.t()

    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:
        hidden_BTE = self._through(x_BT.flatten(), Layout.full(*x_BT.shape), cache).view(*x_BT.shape, -1)
        if cache is not None:
            hidden_BTE = hidden_BTE[:, -1:]
        return logits_from(self, hidden_BTE.flatten(0, 1)).view(*hidden_BTE.shape[:2], -1)

    def new_cache(self) -> Caches:
        return Caches([LayerCache() for _ in self.blocks])

    def hidden(self, rows: Rows) -> Tensor:
        """The normalised last hidden state hidden_ND of each position, from which the head makes logits.

        hidden_NE where factorised embeddings are tied: the head goes through their factor.
        """
        return self._through(rows.x_N, Layout.of(rows.lengths_B, rows.x_N.device))

    def _through(self, x_N: Tensor, layout: Layout, cache: Cache | None = None) -> Tensor:
        """With a `cache`, the rows go on from what it holds: first a prompt, then a token at a time, of one document each."""
        layers = cache.parts if isinstance(cache, Caches) else [None] * len(self.blocks)
        if self.training and self.word_replacement:
            x_N = self._some_replaced(x_N)
        x_ND = self.token_emb(x_N)
        if self.emb_up is not None:
            x_ND = self.emb_up(x_ND).to(x_ND.dtype)  # the stream is float32, whatever products are computed in
        x_ND = x_ND * self.embedding_scale
        if self.training and self.word_dropout:
            dropped_N = (torch.rand(x_N.shape, device=x_N.device) < self.word_dropout) & (x_N != self.eos)
            x_ND = x_ND.masked_fill(dropped_N[:, None], 0.0)
        if self.pos_emb is not None:
            x_ND = x_ND + self.pos_emb[0, layout.places(x_N.device) + (cache.length if cache else 0)]
        x_ND = self.drop(x_ND)
        blocks = cast("list[Block]", list(self.blocks))
        stream = Stream.through(blocks[0].ln1, x_ND)
        norms = [*(block.ln1 for block in blocks[1:]), self.ln_f]
        for block, follows, layer in zip(blocks, norms, layers, strict=True):
            stream = block(stream, follows, layout, layer)
        if self.emb_up is not None and self.head is None:
            return F.linear(stream.seen_ND, self.emb_up.weight.t())
        return stream.seen_ND

    def _some_replaced(self, x_N: Tensor) -> Tensor:
        """Tokens with `word_replacement` of them, but for ends, drawn anew from all entries but the end."""
        others_N = torch.randint(self.vocab_size - 1, x_N.shape, device=x_N.device)
        others_N = others_N + (others_N >= self.eos)
        replaced_N = (torch.rand(x_N.shape, device=x_N.device) < self.word_replacement) & (x_N != self.eos)
        return torch.where(replaced_N, others_N, x_N)

    def flops_per_token(self, row_length: float) -> float:
        """6 for each weight of a linear map or the head: a multiplication and an addition, forward and twice backward.

        Attention adds 12 * layers * row_length * D for its two products (Chowdhery et al. 2022, arXiv 2204.02311, appendix
        B). Looking an embedding up costs no product.
        """
        linear = sum(module.weight.numel() for module in self.modules() if isinstance(module, nn.Linear))
        if self.head is None:
            linear += self.token_emb.weight.numel()
            if self.emb_up is not None:  # on the way out once more
                linear += self.emb_up.weight.numel()
        return 6 * linear + 12 * len(self.blocks) * row_length * self.d_model


def block_matrices(model: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """The linear maps inside a model's blocks, but for gates, with how many matrices each stacks along its rows.

    Query, key and value are one map of three matrices, SwiGLU's gate and value one of two.
    """
    found: list[tuple[nn.Linear, int]] = []
    for block in model.modules():
        if isinstance(block, Block):
            found += [(block.attn.qkv, 3), (block.attn.proj, 1)]
            if isinstance(block.mlp, SwiGLU):
                found += [(block.mlp.gate_value, 2), (block.mlp.to_stream, 1)]
            else:
                found += [(block.mlp.to_inner, 1), (block.mlp.to_stream, 1)]
    return [(cast("nn.Parameter", linear.weight), count) for linear, count in found]
