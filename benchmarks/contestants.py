"""One contestant of a benchmark, in a process of its own: it builds its model and then takes a step whenever it is told to.

    python benchmarks/contestants.py NAME --precision bfloat16 ...

Protocol, one JSON object a line: on standard output first {"ready": ...}, then, for every line that arrives on standard input,
{"seconds": ..., "loss": ..., "targets": ...}; at the end of the input {"peak_bytes": ...}. A process each, so that one's
allocator settings and memory don't help or hurt another; `run.py` lets only one of them work at a time.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Step = Callable[[], tuple[float, int]]
"""Takes one training step on the next batch; returns the loss before it, nats per token, and how many targets it had."""
TITLES = 20_000
"""Documents of a made-up corpus."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--n-layer", type=int, default=6)
    parser.add_argument("--n-head", type=int, default=8)
    parser.add_argument("--d-model", type=int, default=512)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--vocab-size", type=int, default=16_000)
    parser.add_argument("--optimizer", default="adamw", choices=["adamw", "muon"])
    parser.add_argument("--mode", default="full", choices=["full", "shuffled", "documents"], help="how rows are made")
    parser.add_argument(
        "--modern", action="store_true", help="rotary, RMSNorm, squared ReLU, gates, LayerScale, no biases"
    )
    parser.add_argument("--rdrop", type=float, default=0.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    step, facts = CONTESTANTS[options.name](options)
    print(json.dumps({"ready": facts}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss, targets = step()
        if options.device == "cuda":
            torch.cuda.synchronize()
        print(json.dumps({"seconds": time.perf_counter() - start, "loss": loss, "targets": targets}), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if options.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    print(json.dumps({"peak_bytes": peak}), flush=True)


def batches(options: argparse.Namespace) -> Callable[[], tuple[Tensor, Tensor]]:
    """Random tokens, the same ones for every contestant: rows of inputs and the targets one position on."""
    made = torch.Generator().manual_seed(0)

    def another() -> tuple[Tensor, Tensor]:
        ids = torch.randint(3, options.vocab_size, (options.batch_size, options.block_size + 1), generator=made)
        return ids[:, :-1].contiguous().to(options.device), ids[:, 1:].contiguous().to(options.device)

    return another


MODERN = {
    "positions": "rotary", "norm": "rmsnorm", "bias": False, "mlp": "relu2", "output_gate": True, "layer_scale": 0.1,
}  # fmt: skip
"""The shape that people train on two cores."""


def ours(options: argparse.Namespace) -> tuple[Step, dict[str, object]]:
    """shortrun's own step."""
    from shortrun.model.device import keep_freed_memory, make_repeatable
    from shortrun.model.make import make_model
    from shortrun.optim.optimizers import make_optimizer
    from shortrun.recipe import Recipe
    from shortrun.tokens.batch import Batch, RowBatch
    from shortrun.tokens.batches import make_batches
    from shortrun.tokens.encoded import EncodedDocuments
    from shortrun.train.compiled import compile_model
    from shortrun.train.memory import rows_at_once
    from shortrun.train.objective import Objective
    from shortrun.train.step import TrainingStep

    keep_freed_memory()
    make_repeatable(None)
    mode = "shuffled" if options.mode == "full" else options.mode
    recipe = Recipe.model_validate(
        {
            "batches": {"mode": mode, "block_size": options.block_size, "batch_size": options.batch_size},
            "model": {
                "n_layer": options.n_layer,
                "n_head": options.n_head,
                "d_model": options.d_model,
                "dropout": options.dropout,
                **(MODERN if options.modern else {}),
            },
            "optim": {"name": options.optimizer, "lr": 1e-3},
            "train": {"precision": options.precision, "rdrop": options.rdrop, "compile": "on"},
        }
    )
    dtype: torch.dtype = getattr(torch, options.precision)
    torch.manual_seed(0)
    model = make_model(recipe, options.vocab_size, eos=1).to(options.device)
    objective = Objective(model, recipe.train, dtype)
    rows, _ = rows_at_once(model, recipe, dtype, options.device, processes=1)
    if options.compile:
        compile_model(objective, recipe, torch.device(options.device), rows)
    optimizer = make_optimizer(model, recipe.optim, dtype)
    take = TrainingStep(objective, model, optimizer, recipe, positions=rows * options.block_size)
    another, count = batches(options), 0
    if options.mode != "full":
        titles = make_batches(EncodedDocuments.of(made_up_titles(options.vocab_size), eos=1), recipe.batches, 7, seed=0)

    def step() -> tuple[float, int]:
        nonlocal count
        count += 1
        if options.mode == "full":
            x, y = another()
            batch: Batch = RowBatch(x, y, y.numel(), np.zeros(0, dtype=np.int64))
        else:
            batch = titles.at(count)
        return take(batch, 1.0, (0, count)).loss, batch.targets

    return step, {
        "rows": rows,
        "parameters": model.count_parameters(),
        "flops": model.flops_per_token(options.block_size) * options.batch_size * options.block_size,
    }


def made_up_titles(vocab_size: int) -> list[list[int]]:
    """Random tokens; as many to a document as a Hacker News title has with a vocabulary of 8,000."""
    rng = np.random.default_rng(0)
    lengths = rng.normal(14.6, 4.6, TITLES).round().clip(3, 60).astype(int)
    return [rng.integers(3, vocab_size, size=length).tolist() for length in lengths]


class Products(TorchDispatchMode):
    """Remembers the matrix products that are computed under it."""

    KINDS = frozenset(f"aten::{name}" for name in ("mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_"))

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func._schema.name in self.KINDS:
            one, other = args[-2:]
            self.seen.append((stand_in(one), stand_in(other)))
        return func(*args, **(kwargs or {}))


def stand_in(x: Tensor) -> Tensor:
    """Random numbers that lie in memory as `x` does."""
    return torch.randn(x.untyped_storage().nbytes() // x.itemsize).to(x.dtype).as_strided(x.shape, x.stride())


def floor(options: argparse.Namespace) -> tuple[Step, dict[str, object]]:
    """The matrix products of one of our steps and nothing else: forward, backward, head and Newton-Schulz."""
    step, facts = ours(options)
    step()
    with Products() as products:
        _, targets = step()
    flop = sum(2 * one.numel() * other.shape[-1] for one, other in products.seen)

    def replay() -> tuple[float, int]:
        for one, other in products.seen:
            torch.matmul(one, other)
        return 0.0, targets

    return replay, {**facts, "products": len(products.seen), "flops": flop}


class PlainAttention(nn.Module):
    """Attention as textbooks write it."""

    def __init__(self, d_model: int, n_head: int, block_size: int, dropout: float) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv, self.proj = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.attn_drop, self.resid_drop = nn.Dropout(dropout), nn.Dropout(dropout)
        self.register_buffer("tril", torch.ones(block_size, block_size).tril())

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, D // self.n_head).transpose(1, 3).unbind(dim=2)
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(D // self.n_head)
        scores = scores.masked_fill(self.tril[:T, :T] == 0, float("-inf"))  # type: ignore[index]
        mixed = self.attn_drop(F.softmax(scores, dim=-1)) @ v
        out: Tensor = self.resid_drop(self.proj(mixed.transpose(1, 2).contiguous().view(B, T, D)))
        return out


class PlainBlock(nn.Module):
    def __init__(self, d_model: int, n_head: int, block_size: int, dropout: float) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attn = PlainAttention(d_model, n_head, block_size, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        out: Tensor = x + self.mlp(self.ln2(x))
        return out


class PlainGPT(nn.Module):
    """The same model as ours and Mainrun's baseline, the plain way: unfused attention, all logits at once."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.token_emb = nn.Embedding(options.vocab_size, options.d_model)
        self.pos_emb = nn.Parameter(torch.zeros(1, options.block_size, options.d_model))
        self.drop = nn.Dropout(options.dropout)
        self.blocks = nn.Sequential(
            *(
                PlainBlock(options.d_model, options.n_head, options.block_size, options.dropout)
                for _ in range(options.n_layer)
            )
        )
        self.ln_f = nn.LayerNorm(options.d_model)
        self.head = nn.Linear(options.d_model, options.vocab_size, bias=False)
        self.head.weight = self.token_emb.weight
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(self.token_emb(x) + self.pos_emb[:, : x.shape[1]])
        logits: Tensor = self.head(self.ln_f(self.blocks(hidden)))
        return logits


def usual_step(model: nn.Module, logits: Callable[[Tensor], Tensor], options: argparse.Namespace) -> Step:
    """The step that everybody writes: autocast, cross_entropy over all logits, clipping, AdamW."""
    model.to(options.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    another = batches(options)

    def step() -> tuple[float, int]:
        x, y = another()
        with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bfloat16"):
            out = logits(x)
            loss = F.cross_entropy(out.view(-1, out.shape[-1]), y.view(-1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item(), y.numel()

    return step


def plain(options: argparse.Namespace) -> tuple[Step, dict[str, object]]:
    torch.manual_seed(0)
    model = PlainGPT(options)
    return usual_step(model, model, options), {"parameters": sum(p.numel() for p in model.parameters())}


def transformers(options: argparse.Namespace) -> tuple[Step, dict[str, object]]:
    """GPT2LMHeadModel of Hugging Face's transformers, with its default attention."""
    import transformers as library

    torch.manual_seed(0)
    model = library.GPT2LMHeadModel(
        library.GPT2Config(
            vocab_size=options.vocab_size, n_positions=options.block_size, n_embd=options.d_model, n_layer=options.n_layer,
            n_head=options.n_head, resid_pdrop=options.dropout, embd_pdrop=options.dropout, attn_pdrop=options.dropout,
            use_cache=False,
        )
    )  # fmt: skip
    facts = {"parameters": model.num_parameters(), "version": library.__version__}
    return usual_step(model, lambda x: model(x).logits, options), facts


def litgpt(options: argparse.Namespace) -> tuple[Step, dict[str, object]]:
    """litgpt's GPT in GPT-2's shape: learned positions are not in it, so rotary ones; it has no dropout."""
    from importlib.metadata import version

    from litgpt import GPT, Config

    torch.manual_seed(0)
    config = Config(
        block_size=options.block_size, vocab_size=options.vocab_size, padded_vocab_size=options.vocab_size,
        n_layer=options.n_layer, n_head=options.n_head, n_embd=options.d_model, rotary_percentage=1.0, bias=True,
        norm_class_name="LayerNorm", mlp_class_name="GptNeoxMLP", parallel_residual=False, gelu_approximate="none",
    )  # fmt: skip
    model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    facts = {"parameters": sum(p.numel() for p in model.parameters()), "version": version("litgpt")}
    return usual_step(model, model, options), facts


def product(options: argparse.Namespace) -> tuple[Step, dict[str, object]]:
    """A 4096 x 4096 x 4096 matrix product: what the machine can do. Its "loss" is the rate in GFLOP/s."""
    side, times = 4096, 4 if options.device == "cpu" else 200
    dtype = torch.bfloat16 if options.precision == "bfloat16" else torch.float32
    a, b = (torch.randn(side, side, device=options.device).to(dtype) for _ in range(2))

    def step() -> tuple[float, int]:
        start = time.perf_counter()
        for _ in range(times):
            a @ b
        if options.device == "cuda":
            torch.cuda.synchronize()
        return times * 2 * side**3 / (time.perf_counter() - start) / 1e9, 0

    return step, {}


CONTESTANTS = {
    "ours": ours,
    "floor": floor,
    "plain": plain,
    "transformers": transformers,
    "litgpt": litgpt,
    "product": product,
}

if __name__ == "__main__":
    main()
