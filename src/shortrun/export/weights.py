"""A GPT's weights under the names of transformers' classes, and the config.json that goes with them. All is float32.

What transformers does in another way is turned here: GPT-2's linear maps are stored the other way round, Llama's query, key
and value are three maps. Factorised embeddings are multiplied out, which leaves a tied head tied. Heads and rotated pairs lie alike: channel i is turned with channel i + K/2. LayerScale is part of
the map before it, as in our own forward pass.

Shapes: D d_model, V vocabulary, F width inside the MLP.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from shortrun.export.classes import GPT2
from shortrun.model.gpt import GPT, Block
from shortrun.model.layer_scale import scaled
from shortrun.model.mlp import MLP, SwiGLU
from shortrun.recipe import Recipe

ACTIVATIONS = {"gelu": "gelu", "relu2": "relu2"}
"""Ours as transformers calls them: `gelu` is the exact one, by the error function, and not GPT-2's approximation by tanh."""


def tensors_of(model: GPT, name: str) -> dict[str, Tensor]:
    """The weights of a class that holds the model's recipe."""
    with torch.no_grad():
        found = _gpt2(model) if name == GPT2 else _llama(model)
        return {key: tensor.detach().float().cpu().contiguous().clone() for key, tensor in found.items()}


def config_of(model: GPT, recipe: Recipe, name: str, ids: dict[str, int]) -> dict[str, Any]:
    """config.json; `ids` are those of special tokens under transformers' names."""
    tied = model.head is None and model.embedding_scale == 1.0
    common = {"architectures": [name], "vocab_size": model.vocab_size, "torch_dtype": "float32", "use_cache": True}
    common |= {"tie_word_embeddings": tied, "initializer_range": 0.02, **ids}
    settings, block = recipe.model, cast("Block", model.blocks[0])
    if name == GPT2:
        return common | {
            "model_type": "gpt2",
            "n_positions": model.block_size,
            "n_embd": settings.d_model,
            "n_layer": settings.n_layer,
            "n_head": settings.n_head,
            "n_inner": 4 * settings.d_model,
            "activation_function": ACTIVATIONS[settings.mlp],
            "layer_norm_epsilon": 1e-5,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), settings.dropout),
        }
    return common | {
        "model_type": "llama",
        "max_position_embeddings": model.block_size,
        "hidden_size": settings.d_model,
        "intermediate_size": block.mlp.to_stream.in_features,
        "num_hidden_layers": settings.n_layer,
        "num_attention_heads": settings.n_head,
        "num_key_value_heads": settings.n_head,
        "head_dim": settings.d_model // settings.n_head,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": settings.rope_base,
        "attention_bias": settings.bias,
        "mlp_bias": settings.bias,
        "attention_dropout": settings.dropout,
    }


def _gpt2(model: GPT) -> dict[str, Tensor]:
    assert model.pos_emb is not None
    found = {"transformer.wpe.weight": model.pos_emb[0], **_ends(model, "transformer.wte", "transformer.ln_f")}
    for n, block in enumerate(cast("list[Block]", list(model.blocks))):
        assert isinstance(block.mlp, MLP)
        at, attn, mlp = f"transformer.h.{n}", block.attn, block.mlp
        found |= _norm(f"{at}.ln_1", block.ln1) | _norm(f"{at}.ln_2", block.ln2)
        for name, (weight, bias) in {
            "attn.c_attn": (attn.qkv.weight, attn.qkv.bias),
            "attn.c_proj": (scaled(attn.proj.weight, block.scale1), scaled(attn.proj.bias, block.scale1)),
            "mlp.c_fc": (mlp.to_inner.weight, mlp.to_inner.bias),
            "mlp.c_proj": (scaled(mlp.to_stream.weight, block.scale2), scaled(mlp.to_stream.bias, block.scale2)),
        }.items():
            found[f"{at}.{name}.weight"] = weight.t()
            found[f"{at}.{name}.bias"] = weight.new_zeros(len(weight)) if bias is None else bias
    return found


def _llama(model: GPT) -> dict[str, Tensor]:
    found = _ends(model, "model.embed_tokens", "model.norm")
    for n, block in enumerate(cast("list[Block]", list(model.blocks))):
        assert isinstance(block.mlp, SwiGLU)
        at, attn, mlp = f"model.layers.{n}", block.attn, block.mlp
        found |= _norm(f"{at}.input_layernorm", block.ln1) | _norm(f"{at}.post_attention_layernorm", block.ln2)
        found |= _parts(
            at, ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], attn.qkv.weight, attn.qkv.bias
        )
        found |= _parts(at, ["mlp.gate_proj", "mlp.up_proj"], mlp.gate_value.weight, mlp.gate_value.bias)
        for name, linear, scale in (
            ("self_attn.o_proj", attn.proj, block.scale1),
            ("mlp.down_proj", mlp.to_stream, block.scale2),
        ):
            found |= _parts(at, [name], scaled(linear.weight, scale), scaled(linear.bias, scale))
    return found


def _ends(model: GPT, embeddings: str, norm: str) -> dict[str, Tensor]:
    """Embeddings, the last norm, and the head unless it is the embeddings."""
    table_VD = model.table_VD
    found = {f"{embeddings}.weight": table_VD * model.embedding_scale, **_norm(norm, model.ln_f)}
    if model.head is not None or model.embedding_scale != 1.0:
        found["lm_head.weight"] = table_VD if model.head is None else model.head.weight
    return found


def _norm(name: str, norm: nn.Module) -> dict[str, Tensor]:
    assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    found: dict[str, Tensor] = {f"{name}.weight": norm.weight}
    if isinstance(norm, nn.LayerNorm):
        bias: Tensor | None = norm.bias
        found[f"{name}.bias"] = torch.zeros_like(norm.weight) if bias is None else bias
    return found


def _parts(at: str, names: list[str], weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """Maps that are one of ours, stacked along its rows."""
    found = {f"{at}.{name}.weight": part for name, part in zip(names, weight.chunk(len(names)), strict=True)}
    if bias is not None:
        found |= {f"{at}.{name}.bias": part for name, part in zip(names, bias.chunk(len(names)), strict=True)}
    return found
