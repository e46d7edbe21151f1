"""Parts of a run against what they must cost at least, in one process: evaluation, sampling, packing, the loss.

python benchmarks/inside.py NAME            one of the parts; prints a JSON list of rows, as `run.py` shows them
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shortrun.model.device import keep_freed_memory, make_repeatable
from shortrun.model.generate import generate
from shortrun.model.gpt import GPT
from shortrun.recipe import BatchesConfig, ModelConfig, TokenizerConfig
from shortrun.score.evaluate import ScoringSet, document_nats
from shortrun.text.documents import Documents
from shortrun.text.synthetic import sample_titles
from shortrun.tokens.batches import make_batches
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.kinds import make_tokenizer
from shortrun.train.objective import training_loss

VOCAB, BLOCK, TURNS = 16_000, 128, 5


def row(
    what: str, ours: Callable[[], Any], peer: Callable[[], Any], turns: int = TURNS, warm_up: int = 2
) -> dict[str, Any]:
    """Times both in turns; the ratio is the peer's seconds over ours."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(warm_up + turns):
        for taken, work in zip(seconds, (ours, peer), strict=True):
            start = time.perf_counter()
            work()
            if turn >= warm_up:
                taken.append(time.perf_counter() - start)
    ratios = [theirs / mine for mine, theirs in zip(*seconds, strict=True)]
    mine, theirs = (statistics.median(taken) for taken in seconds)
    return {
        "what": what, "ours": mine, "peer": theirs, "ratio": theirs / mine, "min": min(ratios), "max": max(ratios), "unit": "s",
    }  # fmt: skip


def a_model(vocab_size: int = VOCAB) -> GPT:
    torch.manual_seed(0)
    return GPT(ModelConfig(), vocab_size, BLOCK, eos=1).eval()


@torch.no_grad()
def evaluation() -> list[dict[str, Any]]:
    """`loss` of 5,000 titles against the forward pass of as many tokens in full rows, logits included (float32)."""
    titles = Documents.of(sample_titles(5000, 3))
    tokenizer = make_tokenizer(titles, TokenizerConfig(vocab_size=VOCAB))
    scoring, model = ScoringSet.of(titles, tokenizer), a_model(tokenizer.vocab_size)
    targets = len(scoring.encoded.ids_N)
    x_BT = torch.randint(3, tokenizer.vocab_size, (targets // BLOCK + 1, BLOCK))

    def forward() -> None:
        for rows in torch.split(x_BT, 16):
            model(rows)

    what = f"scoring 5,000 titles / forward pass of their {targets:,} tokens"
    return [row(what, lambda: document_nats(model, scoring.encoded), forward, turns=3, warm_up=1)]


@torch.no_grad()
def sampling() -> list[dict[str, Any]]:
    """64 titles of 40 tokens at the baseline's shape, with and without a cache of keys and values (float32)."""
    model, rows = a_model(), 64

    def uncached() -> None:
        ids_BT = torch.ones(rows, 1, dtype=torch.int64)
        for _ in range(40):
            logits_BV = model(ids_BT)[:, -1]
            logits_BV[:, :3] = -torch.inf
            ids_BT = torch.cat([ids_BT, logits_BV.argmax(dim=-1, keepdim=True)], dim=1)

    def cached() -> None:
        generate(model, [], count=rows, eos=1, banned=[0, 1, 2], temperature=0.0, seed=0, max_tokens=40)

    return [row("sampling 64 titles of 40 tokens with the cache / without", cached, uncached, turns=3, warm_up=1)]


def packing() -> list[dict[str, Any]]:
    """A batch of 64 x 128 targets, shuffled, of 100,000 titles, against a copy of the stream's next tokens."""
    rng = np.random.default_rng(0)
    encoded = [rng.integers(3, VOCAB, size=length).tolist() for length in rng.integers(4, 24, size=100_000)]
    documents, shape = EncodedDocuments.of(encoded, eos=1), BatchesConfig(block_size=BLOCK, batch_size=64)
    batches = make_batches(documents, shape, epochs=7, seed=0)
    stream = np.concatenate([np.array(ids) for ids in encoded])
    steps = iter(range(1, 10_000))

    def copy() -> None:
        start = 8192 * next(steps) % 1_000_000
        torch.from_numpy(stream[start : start + 8193].astype(np.int64))

    return [row("packing a shuffled batch / slicing a stream", lambda: batches.at(next(steps)), copy, turns=50)]


def loss() -> list[dict[str, Any]]:
    """The loss over logits, forward and backward, against cross_entropy over all logits; 8,192 targets, 16,000 tokens."""
    rows = []
    x_ND, head_VD = torch.randn(8192, 512, requires_grad=True), (0.02 * torch.randn(VOCAB, 512)).requires_grad_()
    y_N = torch.randint(VOCAB, (8192,))

    def run(objective: Callable[[], Tensor], bfloat16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            total = objective()
        total.backward()  # type: ignore[no-untyped-call]
        x_ND.grad = head_VD.grad = None

    for precision in ("bfloat16", "float32"):
        low = precision == "bfloat16"
        rows.append(
            row(
                f"loss over logits in {precision} / cross_entropy over all of them",
                lambda low=low: run(lambda: training_loss(x_ND, head_VD, y_N)[0], low),  # type: ignore[misc]
                lambda low=low: run(lambda: F.cross_entropy(F.linear(x_ND, head_VD), y_N, reduction="sum"), low),  # type: ignore[misc]
                turns=3,
                warm_up=1,
            )
        )
    return rows


PARTS = {"evaluation": evaluation, "sampling": sampling, "packing": packing, "loss": loss}

if __name__ == "__main__":
    keep_freed_memory()
    make_repeatable(None)
    print(json.dumps(PARTS[sys.argv[1]]()))
