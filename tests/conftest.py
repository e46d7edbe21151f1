"""What several tests share: tiny recipes and titles, and the material beside the project."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes on two cores; set before torch is imported

import atexit
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from shortrun.recipe import Recipe

if "SHORTRUN_CACHE" not in os.environ:  # one for all test processes, which are children of this one
    os.environ["SHORTRUN_CACHE"] = tempfile.mkdtemp(prefix="shortrun-tests-")
    atexit.register(shutil.rmtree, os.environ["SHORTRUN_CACHE"], ignore_errors=True)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project."""
    if not SHARED.is_dir():
        pytest.skip("the reference data in ../shared is not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def titles() -> list[str]:
    """400 short titles with some variety: scripts, emoji, the text of a special token, inner spaces."""
    rng = random.Random(7)
    words = (
        "Show HN Ask why Rust is fast and small λ models für Zürich 日本語 🚀 C++ <eos> GPT-4 (2014) releases".split()
    )
    made = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(397)]
    return [*made, "two  spaces", "<pad><unk>", "e\u0301 combining"]


@pytest.fixture
def titles_file(tmp_path: Path, titles: list[str]) -> Path:
    path = tmp_path / "titles.txt"
    path.write_text("\n".join(titles) + "\n", encoding="utf-8")
    return path


EVERY_MODEL = {
    "positions": "rotary", "norm": "rmsnorm", "bias": False, "mlp": "swiglu", "block": "parallel", "scale_embeddings": True,
    "tied_head": False, "init": "residual", "output_gate": True, "layer_scale": 0.1, "qk_norm": True, "word_dropout": 0.1,
}  # fmt: skip
"""A value of each of the model's switches that is not the default; they all work together."""


def tiny_values(path: Path | None, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Values of a recipe that trains in a second; `sections` go on top. Dropout is on, so that resuming must repeat it."""
    values: dict[str, dict[str, Any]] = {
        "data": {"path": [str(path)], "num_titles": 400} if path else {"source": "synthetic", "num_titles": 300},
        "tokenizer": {"vocab_size": 300},
        "batches": {"mode": "shuffled", "block_size": 16, "batch_size": 16},
        "model": {"n_layer": 1, "n_head": 2, "d_model": 16, "dropout": 0.2},
        "optim": {"name": "adamw", "lr": 3e-3},
        "train": {"epochs": 2, "evals_per_epoch": 2, "threads": 1, "device": "cpu"},
    }
    for section, fields in sections.items():
        values.setdefault(section, {}).update(fields)
    return values


def tiny_recipe(path: Path | None, **sections: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(tiny_values(path, **sections))
