"""What the documentation quotes is what benchmarks/results.json holds, and the scripts still run. (Speed itself is no test.)"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from shortrun.recipe_file import load_recipe
from tests.conftest import ROOT
from tests.test_tracking import event_files

SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def script(name: str) -> Any:
    """A script of benchmarks/ as a module; what it does when it is run stays undone."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def results() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((ROOT / "benchmarks" / "results.json").read_text())["rows"]
    return rows


def test_the_page_quotes_the_measured_table() -> None:
    table = script("run").markdown(results())
    assert table.count("|") > 100
    assert table in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_the_chart_shows_the_measured_rows(tmp_path: Path) -> None:
    script("chart").draw(results(), tmp_path / "growth.svg")
    drawn, shown = ((folder / "growth.svg").read_text() for folder in (tmp_path, ROOT / "docs"))
    assert rows_of(drawn) == rows_of(shown), "draw it again: python benchmarks/chart.py"


def rows_of(drawing: str) -> str:
    found = re.search(r"of ([0-9a-f]{16})<", drawing)
    assert found
    return found[1]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_fits_the_package(name: str) -> None:
    assert script(name).__doc__


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_our_contestant_takes_steps(optimizer: str) -> None:
    shape = {"n_layer": 1, "n_head": 2, "d_model": 16, "block_size": 8, "batch_size": 4, "vocab_size": 300}
    switches = {"dropout": 0.1, "precision": "bfloat16", "optimizer": optimizer, "rdrop": 1.0}
    options = Namespace(**shape, **switches, device="cpu", compile=False, mode="full", modern=False)
    step, facts = script("contestants").ours(options)
    assert facts["rows"] == 4
    assert math.isfinite(facts["flops"])
    first, targets = step()
    assert first == pytest.approx(math.log(300), rel=0.05)
    assert targets == 32
    assert step()[0] != first


def test_mini_gpt_is_measured_in_the_recipes_shape() -> None:
    recipe = load_recipe("mini-gpt")
    sections = {"block_size": recipe.batches, "batch_size": recipe.batches, "vocab_size": recipe.tokenizer}
    for name, value in script("run").MINI.items():
        field = name.replace("-", "_")
        assert getattr(sections.get(field, recipe.model), field) == value


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_ours_and_the_plain_implementation_learn_from_the_same_batches(precision: str) -> None:
    shape = {"n_layer": 1, "n_head": 2, "d_model": 16, "block_size": 8, "batch_size": 4, "vocab_size": 300}
    switches = {"dropout": 0.0, "precision": precision, "optimizer": "adamw", "rdrop": 0.0}
    options = Namespace(**shape, **switches, device="cpu", compile=False, mode="full", modern=False)
    contestants = script("contestants")
    steps, parameters = [], []
    for name in ("ours", "plain"):
        step, facts = contestants.CONTESTANTS[name](options)
        steps.append([step() for _ in range(3)])
        parameters.append(facts["parameters"])
    assert parameters[0] == parameters[1]
    for (loss, targets), (plain_loss, plain_targets) in zip(*steps, strict=True):
        assert targets == plain_targets == 32
        assert loss == pytest.approx(plain_loss, abs=0.1)


@pytest.mark.parametrize("mode", ["documents", "shuffled"])
def test_the_floor_repeats_the_products_of_a_step(mode: str) -> None:
    shape = {"n_layer": 2, "n_head": 2, "d_model": 16, "block_size": 64, "batch_size": 4, "vocab_size": 300}
    switches = {"dropout": 0.0, "precision": "float32", "optimizer": "muon", "rdrop": 0.0}
    options = Namespace(**shape, **switches, device="cpu", compile=False, mode=mode, modern=True)
    contestants = script("contestants")
    _, ours = contestants.ours(options)
    replay, floor = contestants.floor(options)
    loss, targets = replay()
    assert loss == 0
    assert 0.8 * 256 < targets <= 256
    # Newton-Schulz, and attention over whole squares of padded groups, come on top of a step's formula
    assert 0.9 * ours["flops"] < floor["flops"] < 4 * ours["flops"]


def test_what_tracking_takes_is_timed_beside_real_steps(tmp_path: Path) -> None:
    shape = {"n_layer": 1, "n_head": 2, "d_model": 16, "block_size": 8, "batch_size": 4, "vocab_size": 300}
    switches = {"dropout": 0.1, "precision": "float32", "optimizer": "adamw", "rdrop": 0.0}
    step, _ = script("contestants").ours(
        Namespace(**shape, **switches, device="cpu", compile=False, mode="full", modern=False)
    )
    tracking = script("tracking")
    steps, writes = tracking.writing(step, 3, tmp_path / "run")
    written = event_files(tmp_path / "run").Scalars("Train/Loss")
    assert [point.step for point in written] == [1, 2, 3, 4, 5]
    writer, sampler = tracking.rows("float32", steps, writes, [1.0, 2.0, 3.0])
    assert writer["ours"] > writer["peer"] == sorted(steps)[1]
    assert 0 < writer["share"] <= writer["most"]
    assert "of a step, at most" in script("run").cells(writer)[-1]
    assert sampler["ours"] == 2


def test_the_batches_of_a_growing_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path))
    growth = script("corpus_growth")
    found = growth.measured(growth.a_corpus(2000, tmp_path))
    assert found["titles"] == 2000
    assert found["tokens"] > 6 * 2000
