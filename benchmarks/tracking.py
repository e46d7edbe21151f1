"""What TensorBoard takes of training at the baseline's shape, in one process: a step, then what is written about it, in turns.

python benchmarks/tracking.py --precision bfloat16 --turns 5     prints a JSON list of rows, as `run.py` shows them
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from shortrun.model.generate import generate
from shortrun.model.language_model import LanguageModel
from shortrun.model.make import make_model
from shortrun.recipe import Recipe, TokenizerConfig
from shortrun.runs.folder import RunFolder
from shortrun.text.documents import Documents
from shortrun.text.synthetic import sample_titles
from shortrun.tokens.kinds import make_tokenizer
from shortrun.track.tracking import DOCUMENTS, Tracking, trackers
from shortrun.train.events import Begun, Event, Note, StepTaken
from shortrun.train.loop import SAMPLED_TOKENS

VOCAB, WARM_UP = 16_000, 2


def writing(step: Callable[[], tuple[float, int]], turns: int, run: Path) -> tuple[list[float], list[float]]:
    """Seconds of each step, and of what TensorBoard then does about it until all is on disk."""
    recipe = Recipe()
    tokenizer = make_tokenizer(Documents.of(sample_titles(200, 1)), TokenizerConfig(vocab_size=300))
    split = {"documents": 1, "characters": 1, "bytes": 1, "sha256": "", "duplicates_inside": 0}
    manifest = {
        "recipe": recipe.model_dump(mode="json"),
        "data": {"source": "file", "sha256": "", "splits": {"train": split, "validation": split}},
        "tokenizer": {"sha256": "", "vocab_size": 256, "train_tokens": 1, "validation_tokens": 1},
        "denominators": {"characters": 1, "bytes": 1},
        "fingerprint": "",
        "machine": {"device": "cpu", "threads": 1, "precision": "float32"},
    }
    folder = RunFolder.create(run, recipe, tokenizer, manifest)
    steps, writes = [], []
    with Tracking(trackers(["tensorboard"]), _complain) as tracking:
        tracking(Begun(0, WARM_UP + turns, 1, folder))
        for number in range(1, WARM_UP + turns + 1):
            start = time.perf_counter()
            loss, targets = step()
            taken = time.perf_counter()
            tracking(StepTaken(number, loss, 1e-3, 1.0, number * targets, targets / (taken - start), 0.0))
            written = time.perf_counter()
            if number > WARM_UP:
                steps.append(taken - start)
                writes.append(written - taken)
    return steps, writes


def _complain(event: Event) -> None:
    """A tracker that fails must not look like one that is quick."""
    if isinstance(event, Note):
        raise SystemExit(event.text)


def sampling(model: LanguageModel) -> float:
    """Seconds that the documents of an evaluation take at most: with these weights, hardly any ends by itself."""
    start = time.perf_counter()
    generate(
        model, [], count=DOCUMENTS, eos=1, banned=[0, 1, 2], temperature=1.0, seed=0, max_tokens=SAMPLED_TOKENS
    )  # fmt: skip
    return time.perf_counter() - start


def rows(precision: str, steps: list[float], writes: list[float], samples: list[float]) -> list[dict[str, Any]]:
    tracked = [step + write for step, write in zip(steps, writes, strict=True)]
    return [
        {
            **_against(f"step in {precision} with tensorboard / without", tracked, steps),
            "share": statistics.median(write / step for step, write in zip(steps, writes, strict=True)),
            "most": max(write / step for step, write in zip(steps, writes, strict=True)),
        },
        _against(
            f"sampling {DOCUMENTS} documents at an evaluation / a step in {precision}", samples, steps[: len(samples)]
        ),
    ]


def _against(what: str, ours: list[float], peer: list[float]) -> dict[str, Any]:
    ratios = [theirs / mine for mine, theirs in zip(ours, peer, strict=True)]
    mine, theirs = statistics.median(ours), statistics.median(peer)
    return {
        "what": what, "ours": mine, "peer": theirs, "ratio": theirs / mine, "min": min(ratios), "max": max(ratios), "unit": "s",
    }  # fmt: skip


def main() -> None:
    from contestants import ours  # beside this file

    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    shape = {"n_layer": 6, "n_head": 8, "d_model": 512, "block_size": 128, "batch_size": 64, "vocab_size": VOCAB}
    switches = {"dropout": 0.1, "optimizer": "adamw", "rdrop": 0.0, "compile": False, "mode": "full", "modern": False}
    step, _ = ours(argparse.Namespace(**shape, **switches, precision=options.precision, device=options.device))

    def waited() -> tuple[float, int]:
        taken = step()
        if options.device == "cuda":
            torch.cuda.synchronize()
        return taken

    with tempfile.TemporaryDirectory() as folder:
        steps, writes = writing(waited, options.turns, Path(folder) / "run")
    model = make_model(Recipe(), VOCAB, eos=1).to(options.device)
    sampling(model)
    print(json.dumps(rows(options.precision, steps, writes, [sampling(model) for _ in steps[:3]])))


if __name__ == "__main__":
    main()
