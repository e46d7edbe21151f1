"""What a recipe will take before anything is trained: parameters, memory, arithmetic and, roughly, time."""

from __future__ import annotations

import time
from math import ceil
from typing import Any

import torch

from shortrun.errors import UserError
from shortrun.model.gpt import GPT
from shortrun.recipe import Recipe
from shortrun.train.budget import rows_at_once, step_bytes
from shortrun.train.device import choose_device, make_repeatable
from shortrun.train.step import passes_per_step

TOKENS_A_TITLE, THEIR_VOCABULARY, EXPONENT = 12.6, 16_000, -0.18
"""On the titles of HN-100k: 12.6 tokens with 16,000 entries, 14.1 with 8,000 and 16.1 with 4,000, which this power fits."""
CHARACTERS_A_TITLE, GPT2_TOKENS_A_TITLE = 51, 12.5
"""On the same titles, ends included."""
CPU_SHARE = 0.75
"""Of the matrix product's rate that a training step reaches (docs/performance.md)."""
GPU_TFLOPS, GPU_SHARE = 990, 0.3
"""Of a GPU that is not here: NVIDIA's figure for an H100 or H200 in bfloat16, and a share of it that was not measured."""


def plan(recipe: Recipe, gpus: int = 0) -> dict[str, Any]:
    """Estimates for a recipe on this machine's CPU, or on `gpus` GPUs; what `shortrun plan --json` prints.

    The number of tokens is estimated from the number of titles, so nothing is read. Raises UserError where the recipe
    takes all titles of its source, whose number nobody knows before.
    """
    if recipe.data.num_titles == "all":
        raise UserError('data.num_titles = "all" does not say how many titles there are: give a number to plan with')
    vocab_size, processes = recipe.tokenizer.vocab_size, max(gpus, 1)
    with torch.device("meta"):
        model = GPT(recipe.model, vocab_size, recipe.batches.block_size, eos=1)
    titles = int(recipe.data.num_titles * (1 - recipe.data.val_frac)) - recipe.data.tuning_titles
    law = TOKENS_A_TITLE * (vocab_size / THEIR_VOCABULARY) ** EXPONENT
    a_title = {"character": CHARACTERS_A_TITLE, "gpt2": GPT2_TOKENS_A_TITLE}.get(recipe.tokenizer.kind, law)
    tokens = round(recipe.train.epochs * titles * a_title)
    flops = tokens * passes_per_step(recipe) * model.flops_per_token()
    rate, why = _rate(recipe, gpus)
    parameters = model.count_parameters()
    rows = rows_at_once(model, recipe, "cuda" if gpus else "cpu", processes)[0]
    memory = step_bytes(parameters, vocab_size, recipe, rows)
    return {
        "parameters": parameters,
        "steps": ceil(tokens / (recipe.batches.batch_size * recipe.batches.block_size)),
        "tokens": tokens,
        "passes_per_step": passes_per_step(recipe),
        "flops": flops,
        "gpus": gpus,
        "rows_at_once": rows,
        "memory_bytes": {**memory, "total": sum(memory.values())},
        "flops_per_second": rate,
        "flops_per_second_from": why,
        "seconds": flops / rate,
    }


def _rate(recipe: Recipe, gpus: int) -> tuple[float, str]:
    """Floating-point operations a second that training may reach, and where the number comes from."""
    dtype = torch.bfloat16 if recipe.train.precision == "bfloat16" else torch.float32
    if gpus and not torch.cuda.is_available():
        rate = gpus * GPU_TFLOPS * 1e12 * GPU_SHARE
        return rate, f"assumed: {GPU_SHARE:.0%} of {GPU_TFLOPS} TFLOP/s a GPU; none is here to measure"
    device, _ = choose_device("cuda" if gpus else "cpu")
    make_repeatable(recipe.train.threads)
    rate = _product_rate(device, dtype) * (gpus * GPU_SHARE if gpus else CPU_SHARE)
    share = f"{GPU_SHARE:.0%}, assumed," if gpus else f"{CPU_SHARE:.0%}"
    return rate, f"{share} of the {recipe.train.precision} matrix product measured just now"


def _product_rate(device: torch.device, dtype: torch.dtype) -> float:
    side = 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the result
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
