"""Sampling: new titles from a model, one token at a time.

Shapes: B titles at once, T tokens so far, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shortrun.model.gpt import GPT


@torch.no_grad()
def generate(
    model: GPT,
    prefix: list[int],
    *,
    count: int,
    eos: int,
    banned: list[int],
    temperature: float,
    seed: int,
    max_tokens: int,
) -> list[list[int]]:
    """Continues `eos + prefix` `count` times until each title's end, at most `max_tokens` tokens.

    temperature 1 samples from the model's own distribution, lower is bolder, 0 always takes the likeliest token.
    `banned` ids (padding, unknown) are never drawn. Returns each title's ids, prefix included, end not.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.tensor([[eos, *prefix]] * count, device=device)
    ended_B = torch.zeros(count, dtype=torch.bool, device=device)
    model.eval()
    for _ in range(max_tokens - len(prefix)):
        logits_BV = model(ids_BT[:, -model.block_size :])[:, -1].float()
        logits_BV[:, banned] = -torch.inf
        next_B = torch.where(ended_B, eos, _draw(logits_BV, temperature, generator))
        ids_BT = torch.cat([ids_BT, next_B[:, None]], dim=1)
        ended_B |= next_B == eos
        if bool(ended_B.all()):
            break
    return [_until_end(row[1 + len(prefix) :], prefix, eos) for row in ids_BT.tolist()]


def _draw(logits_BV: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    # from the maximum down and in float64, so that no temperature overflows; on the CPU: one generator for every device
    scaled_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)).double() / temperature
    probabilities_BV = torch.softmax(scaled_BV, dim=-1).cpu()
    return torch.multinomial(probabilities_BV, 1, generator=generator)[:, 0].to(logits_BV.device)


def _until_end(drawn: list[int], prefix: list[int], eos: int) -> list[int]:
    return prefix + (drawn[: drawn.index(eos)] if eos in drawn else drawn)
