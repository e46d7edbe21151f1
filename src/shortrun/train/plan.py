"""What a recipe will take before anything is trained: parameters, memory, arithmetic and, roughly, time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import ceil
from typing import Any

import torch

from shortrun.model.datastore import Datastore
from shortrun.model.device import choose_device, choose_precision, cpu_features, product_rate, repeatable
from shortrun.model.language_model import LanguageModel, LinearHead
from shortrun.model.make import model_without_weights
from shortrun.optim.schedules import applied_shrink
from shortrun.recipe import DataConfig, Recipe
from shortrun.text.corpus import load_corpus
from shortrun.tokens.kinds import KINDS
from shortrun.train.memory import rows_at_once, step_bytes
from shortrun.train.objective import training_loss
from shortrun.train.sizes import sized
from shortrun.train.step import passes_of

CHARACTERS_A_TITLE = 54.9
"""Of HN-100k, ends counted as 5."""
ROW = 16
"""Tokens of a document in a row of its own: HN-100k's titles, weighted by their length."""
CPU_SHARE = {torch.float32: 0.6, torch.bfloat16: 0.2}
"""Of the matrix product's rate that a step reaches on a CPU, but for its loss, which is measured: 0.39, 0.50 and 0.71 at 2 x 128,
6 x 256 and 6 x 512; with AMX 0.15, 0.16 and 0.29, because what is no product stays as slow (docs/log.md, L37)."""
GPU_TFLOPS, GPU_SHARE = 990, 0.3
"""Of a GPU that is not here: NVIDIA's figure for an H100 or H200 in bfloat16, and a share of it that was not measured."""
PRODUCT = 2048
"""Side of the matrices whose product stands for a training step's."""
TARGETS = 1024
"""Of the loss that is timed."""


@dataclass(frozen=True)
class Plan:
    """What `shortrun plan --json` prints."""

    parameters: int
    documents: int
    tokens: int
    tokens_from: str
    steps: int
    passes_per_step: float
    """On average over the run."""
    flops: float
    shrink: dict[str, float]
    """Sum of learning rate times weight decay over the run, of each group of parameters."""
    gpus: int
    rows_at_once: int
    precision: str
    precision_from: str
    cpu: str
    memory_bytes: dict[str, int]
    flops_per_second: float
    flops_per_second_from: str
    datastore_seconds: float
    """To fill the datastore and to ask it in the last evaluation; 0 without one, and on GPUs, where it was not measured."""
    seconds: float
    """All of it, but for evaluations without a datastore."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(recipe: Recipe, gpus: int = 0) -> Plan:
    """Estimates for a recipe on this machine's CPU, or on `gpus` GPUs.

    Files and synthetic documents are counted; those of the hub are taken to be as long as Hacker News titles, so that
    nothing is fetched. The number of tokens is estimated from the characters.
    """
    recipe, _ = sized(recipe)
    vocab_size, processes = recipe.tokenizer.vocab_size, max(gpus, 1)
    model = model_without_weights(recipe, vocab_size)
    documents, characters, counted = _training_text(recipe.data)
    tokens = round(recipe.train.epochs * characters / KINDS[recipe.tokenizer.kind].characters_a_token(vocab_size))
    row_length = ROW if recipe.batches.mode == "documents" else recipe.batches.block_size
    steps = ceil(tokens / (recipe.batches.batch_size * recipe.batches.block_size))
    passes_per_step = passes_of(recipe, steps, steps) / steps
    flops_a_token = model.flops_per_token(min(row_length, recipe.batches.block_size))
    flops = tokens * passes_per_step * flops_a_token
    dtype, why, rate, rate_from = _rate(recipe, gpus, model, flops_a_token)
    parameters = model.count_parameters()
    rows = rows_at_once(model, recipe, dtype, "cuda" if gpus else "cpu", processes)[0]
    memory = step_bytes(parameters, vocab_size, recipe, dtype, rows)
    datastore_seconds = 0.0
    if recipe.datastore.weight:
        contexts = round(tokens / recipe.train.epochs)
        entries = recipe.model.members * contexts
        learner = model.learners()[0]
        assert isinstance(learner, LinearHead)
        width = min(recipe.datastore.width, learner.head_VD.shape[1] + 1)  # a key's last column is no direction
        memory["datastore"] = entries * (width * dtype.itemsize + 4)
        if not gpus:
            asking = 2 * _scored_share(recipe.data) * contexts  # for both losses
            with repeatable(recipe.train.threads) as threads:
                each = recall_seconds(vocab_size, width, max(contexts // vocab_size, 1), dtype, threads)
            datastore_seconds = entries * (asking * each + flops_a_token / 3 / rate)
    return Plan(
        parameters=parameters,
        documents=documents,
        tokens=tokens,
        tokens_from=counted,
        steps=steps,
        passes_per_step=passes_per_step,
        flops=flops,
        shrink=applied_shrink(recipe.optim, recipe.schedule, steps),
        gpus=gpus,
        rows_at_once=rows,
        precision=str(dtype).removeprefix("torch."),
        precision_from=why,
        cpu=cpu_features(),
        memory_bytes={**memory, "total": sum(memory.values())},
        flops_per_second=rate,
        flops_per_second_from=rate_from,
        datastore_seconds=datastore_seconds,
        seconds=flops / rate + datastore_seconds,
    )


def _training_text(data: DataConfig) -> tuple[int, float, str]:
    """Documents to train on, their characters with their ends, and where the numbers come from."""
    if data.source == "hackernews":
        total = 100_000 if data.num_titles == "all" else data.num_titles
        documents = int(total * (1 - data.val_frac)) - data.tuning_titles
        assumed = f"{total:,} documents" if data.num_titles == "all" else "documents"
        return documents, documents * CHARACTERS_A_TITLE, f"assuming {assumed} as long as Hacker News titles"
    train = load_corpus(data).manifest["splits"]["train"]
    return train["documents"], train["characters"] + 5 * train["documents"], "counted in the data"


def _scored_share(data: DataConfig) -> float:
    """Characters of the documents that every evaluation scores, as a share of those that are trained on."""
    if data.source == "hackernews":
        total = 100_000 if data.num_titles == "all" else data.num_titles
        scored = int(total * data.val_frac) + data.tuning_titles
        return scored / (total - scored)
    splits = load_corpus(data).manifest["splits"]
    scored = sum(splits[split]["characters"] for split in ("validation", "tuning") if split in splits)
    return float(scored / splits["train"]["characters"])


def _rate(recipe: Recipe, gpus: int, model: LanguageModel, flops_a_token: float) -> tuple[torch.dtype, str, float, str]:
    """The type of products and why; floating-point operations a second that training may reach, and where they are from."""
    if gpus and not torch.cuda.is_available():
        rate = gpus * GPU_TFLOPS * 1e12 * GPU_SHARE
        why = f"assumed: {GPU_SHARE:.0%} of {GPU_TFLOPS} TFLOP/s a GPU; none is here to measure"
        wish = recipe.train.precision
        dtype = torch.float32 if wish == "float32" else torch.bfloat16
        return dtype, f"the recipe asks for {wish}", rate, why
    device, _ = choose_device("cuda" if gpus else "cpu")
    with repeatable(recipe.train.threads) as threads:
        dtype, sentence = choose_precision(recipe.train.precision, device)
        name = str(dtype).removeprefix("torch.")
        product = product_rate(device, dtype, PRODUCT)
        if gpus:
            rate = product * gpus * GPU_SHARE
            return dtype, sentence, rate, f"{GPU_SHARE:.0%}, assumed, of the {name} matrix product measured just now"
        rate, said = product * CPU_SHARE[dtype], f"{CPU_SHARE[dtype]:.0%} of the {name} matrix product"
        if not isinstance(model, LinearHead):
            return dtype, sentence, rate, f"{said}, measured just now"
        vocabulary, width = model.head_VD.shape
        seconds = loss_seconds(vocabulary, width, dtype, threads)
    rate = flops_a_token / (seconds + (flops_a_token - 6 * vocabulary * width) / rate)
    return dtype, sentence, rate, f"{said}, and the loss over {vocabulary:,} logits, both measured just now"


@lru_cache(maxsize=64)
def loss_seconds(vocabulary: int, width: int, dtype: torch.dtype, threads: int) -> float:  # noqa: ARG001
    """Seconds of the loss and its gradients for each target on the CPU, the best of three.

    It is timed apart from the rest, because a large vocabulary over a small width computes far below the rate of square
    products: softmax and sums go over all logits, and products of 128 channels are as slow as the memory. `threads` only
    tells results apart.
    """
    hidden_ND, head_VD = torch.full((TARGETS, width), 0.01), torch.full((vocabulary, width), 0.01)
    targets_N = torch.zeros(TARGETS, dtype=torch.int64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        return _best_of_three(lambda: training_loss(hidden_ND, head_VD, targets_N)) / TARGETS


@lru_cache(maxsize=16)
def recall_seconds(vocabulary: int, width: int, a_token: int, dtype: torch.dtype, threads: int) -> float:  # noqa: ARG001
    """Seconds in which one context is compared with one entry of a datastore on the CPU, the best of three.

    a_token: how many entries a token has. `threads` only tells results apart.
    """
    entries, contexts = 2**15, 512
    keys_NW = torch.full((entries, width), width**-0.5, dtype=dtype)
    tokens_N = (torch.arange(entries) // a_token).clamp(max=vocabulary - 1).int()
    store = Datastore(torch.eye(width, width - 1), keys_NW, tokens_N, vocab_size=vocabulary, weight=0.5, sharpness=20.0)
    hidden_CD = torch.full((contexts, width), 1.0)
    with torch.no_grad():
        return _best_of_three(lambda: store.recalled(hidden_CD)) / entries / contexts


def _best_of_three(work: Callable[[], object]) -> float:
    """The fewest seconds it took."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
