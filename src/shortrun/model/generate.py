"""Sampling: new documents from a model, all at once, one token at a time.

Each step computes the newest token of each document alone, because a cache remembers those before it.

Shapes: N documents, B of them not ended, T tokens that the model has yet to see, V vocabulary, S steps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from shortrun.model.language_model import Cache, LanguageModel


@torch.no_grad()
def generate(
    model: LanguageModel,
    prefix: list[int],
    *,
    count: int,
    eos: int,
    banned: list[int],
    temperature: float,
    seed: int,
    max_tokens: int,
    first: int = 0,
) -> list[list[int]]:
    """Continues `eos + prefix` `count` times until each document's end, at most `max_tokens` tokens.

    temperature 1 samples from the model's own distribution, lower is bolder, 0 always takes the likeliest token.
    `banned` ids (padding, unknown) are never drawn. Returns each document's ids, prefix included, end not.

    The n-th document is decided by the model, the prefix, the seed (0 or more) and n, which begins at `first`: how many
    others are drawn beside it moves its logits by rounding alone.
    """
    device = next(model.parameters()).device
    steps = max(max_tokens - len(prefix), 0)
    uniform_NS = torch.from_numpy(
        np.stack([np.random.default_rng([seed, n]).random(steps) for n in range(first, first + count)])
    )
    documents = [list(prefix) for _ in range(count)]
    going_B = torch.arange(count)
    x_BT = torch.tensor([[eos, *prefix]] * count)
    cache: Cache | None = model.new_cache()
    model.eval()
    for step in range(steps):
        if 1 + len(prefix) + step > model.block_size:  # the window slides: every token has a new position
            cache = None
            x_BT = torch.tensor([[eos, *documents[n]][-model.block_size :] for n in going_B.tolist()])
        logits_BV = model(x_BT.to(device), cache)[:, -1].float().cpu()
        logits_BV[:, banned] = -torch.inf
        next_B = _draw(logits_BV, temperature, uniform_NS[going_B, step])
        on_B = next_B != eos
        if not on_B.all():
            next_B, going_B = next_B[on_B], going_B[on_B]
            if cache is not None:
                cache.keep(on_B.to(device))
        if not len(going_B):
            break
        for n, token in zip(going_B.tolist(), next_B.tolist(), strict=True):
            documents[n].append(token)
        x_BT = next_B[:, None]
    return documents


def _draw(logits_BV: Tensor, temperature: float, uniform_B: Tensor) -> Tensor:
    """The token at which the cumulative probability passes `uniform_B`, from [0, 1)."""
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    # from the maximum down and in float64, so that no temperature overflows
    scaled_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)).double() / temperature
    passed_BV = scaled_BV.exp().cumsum(dim=-1)
    return torch.searchsorted(passed_BV, uniform_B[:, None] * passed_BV[:, -1:], right=True)[:, 0]
