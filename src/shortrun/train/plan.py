"""What a recipe will take before anything is trained: parameters, memory, arithmetic and, roughly, time."""

from __future__ import annotations

import time
from math import ceil
from typing import Any

import torch

from shortrun.errors import UserError
from shortrun.model.device import choose_device, make_repeatable
from shortrun.model.make import make_model
from shortrun.recipe import Recipe
from shortrun.tokens.kinds import KINDS
from shortrun.train.memory import rows_at_once, step_bytes
from shortrun.train.step import passes_per_step

CHARACTERS_A_DOCUMENT = 54.9
"""On the titles of HN-100k, ends counted as 5."""
CPU_SHARE = 0.75
"""Of the matrix product's rate that a training step reaches (docs/performance.md)."""
GPU_TFLOPS, GPU_SHARE = 990, 0.3
"""Of a GPU that is not here: NVIDIA's figure for an H100 or H200 in bfloat16, and a share of it that was not measured."""


def plan(recipe: Recipe, gpus: int = 0) -> dict[str, Any]:
    """Estimates for a recipe on this machine's CPU, or on `gpus` GPUs; what `shortrun plan --json` prints.

    The number of tokens is estimated from the number of documents, so nothing is read. Raises UserError where the recipe
    takes all documents of its source, whose number nobody knows before.
    """
    if recipe.data.num_titles == "all":
        raise UserError('data.num_titles = "all" does not say how many documents there are: give a number to plan with')
    vocab_size, processes = recipe.tokenizer.vocab_size, max(gpus, 1)
    with torch.device("meta"):
        model = make_model(recipe, vocab_size, eos=1)
    documents = int(recipe.data.num_titles * (1 - recipe.data.val_frac)) - recipe.data.tuning_titles
    characters_a_token = KINDS[recipe.tokenizer.kind].characters_a_token(vocab_size)
    tokens = round(recipe.train.epochs * documents * CHARACTERS_A_DOCUMENT / characters_a_token)
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
