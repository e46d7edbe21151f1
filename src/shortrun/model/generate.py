"""Sampling: new documents from a model, all at once, one token at a time.

Each step computes the newest token of each document alone, because a cache remembers those before it.

Shapes: N documents, B of them not ended, T tokens that the model has yet to see, V vocabulary, S steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shortrun.errors import UserError
from shortrun.model.language_model import Cache, LanguageModel


@dataclass(frozen=True)
class Draw:
    """How the next token is drawn from the model's distribution."""

    temperature: float = 1.0
    """1 is the model's own distribution, lower is bolder, 0 always takes the likeliest token."""
    top_k: int | None = None
    """Only the so many likeliest tokens are drawn; None for all."""
    top_p: float = 1.0
    """Only the fewest likeliest tokens that together have this probability are drawn; above 0, 1 for all."""


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
    top_k: int | None = None,
    top_p: float = 1.0,
) -> list[list[int]]:
    """Continues `eos + prefix` `count` times until each document's end, at most `max_tokens` tokens.

    temperature, top_k, top_p: see `Draw`. `banned` ids (padding, unknown) are never drawn. Returns each document's ids, prefix included, end not.

    The n-th document is decided by the model, the prefix, the seed (0 or more) and n, which begins at `first`: how many
    others are drawn beside it moves its logits by rounding alone.
    """
    draw, last = Draw(temperature, top_k, top_p), max_tokens
    steps = generate_steps(
        model, prefix, count=count, eos=eos, banned=banned, draw=draw, seed=seed, max_tokens=last, first=first
    )
    ended = {n: ids for step in steps for n, ids in step}
    return [ended[n] for n in range(first, first + count)]


@torch.no_grad()
def generate_steps(
    model: LanguageModel,
    prefix: list[int],
    *,
    count: int,
    eos: int,
    banned: list[int],
    draw: Draw,
    seed: int,
    max_tokens: int,
    first: int = 0,
) -> Iterator[list[tuple[int, list[int]]]]:
    """The same as `generate`, a token of all documents at a time: each step gives the documents that it has ended.

    They come as pairs of n and ids, n from `first` on.
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
        if not logits_BV.isfinite().all():
            raise UserError("The model's logits are no numbers, so that nothing can be drawn from them")
        logits_BV[:, banned] = -torch.inf
        next_B = _draw(logits_BV, draw, uniform_NS[going_B, step])
        on_B = next_B != eos
        ended = [(first + n, documents[n]) for n in going_B[~on_B].tolist()]
        if ended:
            next_B, going_B = next_B[on_B], going_B[on_B]
            if cache is not None:
                cache.keep(on_B.to(device))
        for n, token in zip(going_B.tolist(), next_B.tolist(), strict=True):
            documents[n].append(token)
        yield ended
        if not len(going_B):
            return
        x_BT = next_B[:, None]
    yield [(first + n, documents[n]) for n in going_B.tolist()]


def _draw(logits_BV: Tensor, draw: Draw, uniform_B: Tensor) -> Tensor:
    """The token at which the cumulative probability passes `uniform_B`, from [0, 1)."""
    if draw.temperature == 0:
        return logits_BV.argmax(dim=-1)
    # from the maximum down and in float64, so that no temperature overflows
    scaled_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)).double() / draw.temperature
    passed_BV = _weights(scaled_BV, draw).cumsum(dim=-1)
    return torch.searchsorted(passed_BV, uniform_B[:, None] * passed_BV[:, -1:], right=True)[:, 0]


def _weights(scaled_BV: Tensor, draw: Draw) -> Tensor:
    """exp of the logits of the tokens that may be drawn, 0 for the others. Of equally likely ones, those of lower ids stay.

    Tokens are put in order by their logits, because exp makes near ones equal.
    """
    weights_BV = scaled_BV.exp()
    V = weights_BV.shape[-1]
    k = min(draw.top_k or V, V)
    if k == V and draw.top_p == 1:
        return weights_BV
    order_BV = scaled_BV.argsort(dim=-1, descending=True, stable=True)
    sorted_BV = weights_BV.gather(-1, order_BV)
    sorted_BV[:, k:] = 0
    if draw.top_p < 1:
        before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
        sorted_BV[before_BV >= draw.top_p * sorted_BV.sum(dim=-1, keepdim=True)] = 0
    return torch.zeros_like(weights_BV).scatter(-1, order_BV, sorted_BV)
