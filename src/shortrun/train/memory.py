"""How much memory a step takes, about; and how many rows of a batch to take at once.

The numbers of `activation_bytes` are counted from what the layers keep for the backward pass, and checked against peaks
measured by `benchmarks/run.py --only growth` (docs/performance.md says how far off they are).

Shapes: B rows, T positions, D d_model, H heads, V vocabulary, L layers.
"""

from __future__ import annotations

from math import ceil

import torch

from shortrun.errors import UserError
from shortrun.model.language_model import LanguageModel
from shortrun.model.mlp import KINDS
from shortrun.optim.optimizers import OPTIMIZERS
from shortrun.recipe import Recipe
from shortrun.score.cross_entropy import targets_at_once
from shortrun.score.evaluate import TOKENS_AT_ONCE
from shortrun.train.objective import copies_at_once

PROCESS = 350_000_000
"""Bytes of a process that has loaded torch and does nothing."""
SLACK = 1.2
"""What the allocator takes above what is asked for: peaks measured at the baseline's shape, over the sum of the tensors."""
NO_MEMORY = ("can't allocate memory", "bad_alloc", "could not create a primitive", "could not create a memory")
"""What torch's allocator, C++ and oneDNN say where memory is short."""


def out_of_memory(error: BaseException) -> bool:
    """Whether this is what torch or Python raise where memory is short; torch has no type of its own for a CPU's."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in NO_MEMORY)
    )


def state_bytes(parameters: int, recipe: Recipe) -> int:
    """Weights, gradients, what the optimizer remembers, and the copies that SAM and the moving average need."""
    numbers = 2 + OPTIMIZERS[recipe.optim.name].remembered
    numbers += (recipe.optim.sharpness != "none") + (recipe.train.ema > 0)
    numbers += 2  # a micro-batch's gradients before they are added, bfloat16 copies, and whatever else comes and goes
    return int(4 * numbers * parameters)


def activation_bytes(recipe: Recipe, dtype: torch.dtype) -> int:
    """What one row leaves in memory until its backward pass has been."""
    model, T = recipe.model, recipe.batches.block_size
    size = dtype.itemsize
    dropped = 2 if model.dropout else 0
    channels = (8 + KINDS[model.mlp].kept + dropped) * size + 12  # the stream and the norms are float32
    scores = model.n_head * T * size * (3 if model.dropout else 1)
    layers = model.n_layer * (channels * model.d_model + scores)
    narrow = (
        4 * (model.embedding_width or 0) * (2 if model.tied_head else 1)
    )  # before the map, and behind it in a tied head
    return int(SLACK * copies_at_once(recipe.train) * T * (layers + narrow))


def loss_bytes(recipe: Recipe, vocab_size: int) -> int:
    """The logits that are there at once, their gradient, and with R-Drop what the divergence makes of them."""
    rows = recipe.batches.batch_size * recipe.batches.block_size
    return (8 if recipe.train.rdrop else 3) * 4 * min(targets_at_once(vocab_size), rows) * vocab_size


def step_bytes(parameters: int, vocab_size: int, recipe: Recipe, dtype: torch.dtype, rows: int) -> dict[str, int]:
    """What a step that takes `rows` rows at once holds in each process, by part; it adds up to the estimate."""
    return {
        "process": PROCESS,
        "state": state_bytes(parameters, recipe),
        "activations": rows * activation_bytes(recipe, dtype),
        "logits": loss_bytes(recipe, vocab_size),
    }


def rows_at_once(
    model: LanguageModel, recipe: Recipe, dtype: torch.dtype, device: str, processes: int
) -> tuple[int, list[str]]:
    """How many rows of its share of a batch a process takes at once, and what a person should know about it.

    All of them on a GPU and TOKENS_AT_ONCE' worth on a CPU, unless `train.memory_limit` asks for fewer. Raises UserError where
    even one row does not fit.
    """
    share = ceil(recipe.batches.batch_size / processes)
    wanted = share
    if device == "cpu":
        wanted = max(1, min(share, TOKENS_AT_ONCE // (recipe.batches.block_size * copies_at_once(recipe.train))))
    limit = recipe.train.memory_limit
    if limit is None:
        return _equal_micro_batches(share, wanted), []
    without_rows = sum(step_bytes(model.count_parameters(), model.vocab_size, recipe, dtype, 0).values())
    fitting = int((limit * 1e9 - without_rows) // activation_bytes(recipe, dtype))
    if fitting < 1:
        least = (without_rows + activation_bytes(recipe, dtype)) / 1e9
        raise UserError(f"train.memory_limit = {limit:g} GB is too little for one row: it takes about {least:.2f} GB")
    if fitting >= wanted:
        return _equal_micro_batches(share, wanted), []
    rows = _equal_micro_batches(share, fitting)
    return rows, [
        f"Each batch is taken in {ceil(share / rows)} micro-batches of at most {rows} rows, to stay within {limit:g} GB"
    ]


def _equal_micro_batches(share: int, most: int) -> int:
    """Rows of each of the fewest equal micro-batches of `share` rows that have at most `most`."""
    return ceil(share / ceil(share / most))
