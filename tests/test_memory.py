"""Memory limits, torch.compile and the plan: what they change, and what they must not."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from shortrun.errors import UserError
from shortrun.model.datastore import Datastore
from shortrun.model.gpt import GPT
from shortrun.optim.optimizers import make_optimizer
from shortrun.recipe import Recipe
from shortrun.recipe_file import load_recipe
from shortrun.runs.result import Result
from shortrun.tokens.batch import RowBatch
from shortrun.train.events import Event
from shortrun.train.fit import train
from shortrun.train.memory import rows_at_once
from shortrun.train.objective import Objective
from shortrun.train.plan import CPU_SHARE, TARGETS, loss_seconds, plan
from shortrun.train.step import TrainingStep
from tests.conftest import notes, run_command, tiny_recipe
from tests.test_techniques import BLOCK, a_batch, a_gpt, a_recipe

pytestmark = pytest.mark.slow


def gradients(model: GPT, recipe: Recipe, batch: RowBatch, rows: int) -> tuple[float, list[Tensor]]:
    """The loss of a step that takes so many rows at once, and the gradients that it leaves."""
    optimizer = make_optimizer(model, recipe.optim)
    take = TrainingStep(Objective(model, recipe.train), model, optimizer, recipe, positions=rows * BLOCK)
    loss = take(batch, 0.0, (0, 1)).loss
    return loss, [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"rdrop": 2.0, "label_smoothing": 0.1}])
def test_the_micro_batches_gradients_add_up_to_the_batchs(settings: dict[str, Any], rows: int) -> None:
    """The last row of the batch is mostly padding: a mean of the micro-batches' means would be another gradient."""
    recipe, batch = a_recipe(train=settings, optim={"grad_clip": 1e9}), a_batch()
    assert len(batch.micro_batches(rows * BLOCK)) > 1
    whole_loss, whole = gradients(a_gpt(), recipe, batch, 4)
    parts_loss, parts = gradients(a_gpt(), recipe, batch, rows)
    assert parts_loss == pytest.approx(whole_loss, rel=1e-6)
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-6 * float(one.abs().max()) + 1e-9)


def test_less_memory_means_fewer_rows_at_once() -> None:
    recipe = load_recipe("baseline")
    model = GPT(recipe.model, 16_000, 128, eos=1)

    def rows(limit: float | None, device: str = "cpu") -> int:
        limited = recipe.model_copy(update={"train": recipe.train.model_copy(update={"memory_limit": limit})})
        return rows_at_once(model, limited, torch.float32, device, processes=1)[0]

    assert rows(None, "cuda") == rows(64.0, "cuda") == 64
    assert rows(None) == rows(64.0) == 16, "2,048 tokens at once on a CPU"
    for device in ("cpu", "cuda"):
        taken = [rows(limit, device) for limit in (64.0, 1.6, 1.3, 1.1)]
        assert sorted(taken, reverse=True) == taken
        assert len(set(taken)) == 4
    with pytest.raises(UserError, match=r"too little for one row: it takes about 0\.9\d GB"):
        rows(0.1)


def test_the_plan_knows_the_limit_and_the_processes() -> None:
    limited = load_recipe("baseline", {"train": {"memory_limit": 1.3}})
    assert plan(limited).rows_at_once < plan(load_recipe("baseline")).rows_at_once == 16
    assert plan(limited).memory_bytes["total"] <= 1.3e9


def test_a_limited_run_learns_the_same(titles_file: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model": {"dropout": 0.0}}
    whole = train(tiny_recipe(titles_file, **settings), tmp_path / "whole")
    events: list[Event] = []
    limited = tiny_recipe(titles_file, **settings, train={"epochs": 2, "memory_limit": 0.3512})
    parts = train(limited, tmp_path / "parts", on_event=events.append)
    assert "micro-batches of at most" in notes(events)
    assert loss_of(parts) == pytest.approx(loss_of(whole), abs=1e-5)


def loss_of(result: Result) -> float:
    return result.evaluation.loss.loss


def refusing(*_: object, **__: object) -> Callable[..., Tensor]:
    def call(*_: object) -> Tensor:
        raise RuntimeError("no working C++ compiler\nand more that nobody wants to read")

    return call


def test_auto_goes_on_without_torch_compile_and_says_why(
    titles_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", refusing)
    plain = train(tiny_recipe(titles_file), tmp_path / "plain", max_steps=3)
    events: list[Event] = []
    recipe = tiny_recipe(titles_file, train={"compile": "auto"})
    auto = train(recipe, tmp_path / "auto", max_steps=3, on_event=events.append)
    sentence = "torch.compile can't here, so training goes on without it: no working C++ compiler"
    assert sentence in notes(events).splitlines(), "one line of it"
    assert loss_of(auto) == loss_of(plain), "trying it leaves no trace, not even in dropout"
    with pytest.raises(UserError, match=r'train\.compile = "on", but torch\.compile can\'t: no working'):
        train(tiny_recipe(titles_file, train={"compile": "on"}), tmp_path / "on")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_model_learns_the_same(titles_file: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model": {"dropout": 0.0, "positions": "rotary", "norm": "rmsnorm", "mlp": "swiglu"}}
    plain = train(tiny_recipe(titles_file, **settings), tmp_path / "plain", max_steps=4)
    compiled = train(tiny_recipe(titles_file, **settings, train={"compile": "on"}), tmp_path / "compiled", max_steps=4)
    assert loss_of(compiled) == pytest.approx(loss_of(plain), abs=1e-4)


def test_the_plan_counts_what_a_run_then_takes() -> None:
    done = run_command("plan", "baseline", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["parameters"] == 27_172_864
    assert found["tokens"] == pytest.approx(7 * 1_133_101, rel=0.02)  # what HN-100k has
    model = GPT(load_recipe("baseline").model, 16_000, 128, eos=1)
    assert found["flops"] == found["tokens"] * model.flops_per_token(128)
    assert plan(load_recipe("asam-mid")).passes_per_step == 2
    assert plan(load_recipe("asam-mid")).tokens == pytest.approx(10_149_888, rel=0.02)
    one, four = (plan(load_recipe("modern"), gpus).memory_bytes["activations"] for gpus in (1, 4))
    assert one == 4 * four
    done = run_command("plan", "modern", "--gpus", "2")
    assert done.returncode == 0
    assert "each of 2 GPUs" in done.stdout
    assert "assumed" in done.stdout
    assert "adds up to" in done.stdout


def test_the_plan_of_a_file_counts_it(titles_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(titles_file)
    found, result = plan(recipe), train(recipe, tmp_path / "run")
    assert (found.documents, found.tokens_from) == (360, "counted in the data")
    assert found.parameters == pytest.approx(result.budget.parameters, rel=0.05)
    assert run_command("plan", "baseline", "--data.path", tmp_path / "none.txt").returncode == 2


PLAN = importlib.import_module("shortrun.train.plan")  # shortrun.train itself is the function


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_plan_adds_the_time_of_the_loss_to_that_of_the_rest(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("baseline", {"train": {"precision": precision}})
    asked = []

    def loss(vocabulary: int, width: int, dtype: torch.dtype, threads: int) -> float:  # noqa: ARG001
        asked.append((vocabulary, width, dtype))
        return 1e-4

    monkeypatch.setattr(PLAN, "product_rate", lambda *_: 1e12)
    monkeypatch.setattr(PLAN, "loss_seconds", loss)
    found, dtype = plan(recipe), getattr(torch, precision)
    assert asked == [(16_000, 512, dtype)]
    rest = GPT(recipe.model, 16_000, 128, eos=1).flops_per_token(128) - 6 * 16_000 * 512
    assert found.seconds == pytest.approx(found.tokens * (1e-4 + rest / (1e12 * CPU_SHARE[dtype])), rel=1e-9)
    assert found.flops / found.flops_per_second == found.seconds
    assert found.flops_per_second_from.endswith("and the loss over 16,000 logits, both measured just now")


def test_what_is_timed_is_the_loss_with_both_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which three turns take 4, 1 and 9 seconds, and by the products that torch counts."""
    ticks = iter([0.0, 4.0, 4.0, 5.0, 5.0, 14.0])
    monkeypatch.setattr(PLAN, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    loss_seconds.cache_clear()
    with FlopCounterMode(display=False) as counter:
        assert loss_seconds(300, 16, torch.bfloat16, 1) == 1.0 / TARGETS
    assert counter.get_total_flops() == 3 * TARGETS * 6 * 300 * 16
    loss_seconds.cache_clear()  # the clock was not a real one


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("source", ["hackernews", "file"])
def test_the_plan_adds_the_time_that_a_datastore_takes(
    source: str, members: int, titles_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each context that is scored is compared with each that was trained on, for two losses, after a pass forward over the
    latter; by each member."""
    path = str(titles_file) if source == "file" else ()
    data = {"source": source, "path": path, "num_titles": "all", "tuning_titles": 0, "val_frac": 0.2}
    sections: dict[str, dict[str, Any]] = {"data": data, "model": {"members": members}}
    recipe = load_recipe("best-quick", sections)
    widths = []

    def recall(vocabulary: int, width: int, *_: object) -> float:
        widths.append((vocabulary, width))
        return 1e-9

    monkeypatch.setattr(PLAN, "product_rate", lambda *_: 1e12)
    monkeypatch.setattr(PLAN, "recall_seconds", recall)
    found, without = plan(recipe), plan(load_recipe("best-quick", {**sections, "datastore": {"weight": 0.0}}))
    contexts = found.tokens / 2
    forward = contexts * found.flops / found.tokens / 3 / found.flops_per_second
    assert found.datastore_seconds == pytest.approx(
        members * 2 * contexts * 0.25 * contexts * 1e-9 + forward, rel=0.1 if source == "file" else 1e-6
    )
    assert found.seconds == found.flops / found.flops_per_second + found.datastore_seconds
    assert without.datastore_seconds == plan(recipe, gpus=1).datastore_seconds == 0
    wide = plan(load_recipe("best-quick", {**sections, "datastore": {"width": 65_536}}))
    assert wide.memory_bytes["datastore"] < 3 * found.memory_bytes["datastore"], "no more than there are hidden numbers"
    assert widths == [(8_000, 128), (8_000, 257)]


def test_a_plan_asks_as_often_as_a_run_does(titles_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, recalled = [], Datastore.recalled

    def counted(self: Datastore, hidden_CD: torch.Tensor) -> torch.Tensor:
        asked.append(len(hidden_CD))
        return recalled(self, hidden_CD)

    monkeypatch.setattr(Datastore, "recalled", counted)
    recipe = tiny_recipe(titles_file, datastore={"weight": 0.3, "width": 8}, data={"tuning_titles": 0})
    result = train(recipe, tmp_path / "run")
    both = result.evaluation.loss.targets + result.evaluation.official.targets_scored
    drawn = sum(asked) - both
    assert 0 <= drawn <= 5 * 80, "besides the documents that an evaluation draws"


@pytest.mark.parametrize("vocabulary", [300, 200_000])
def test_what_is_timed_of_a_datastore_is_one_question(vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 4.0, 4.0, 5.0, 5.0, 14.0])
    monkeypatch.setattr(PLAN, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    PLAN.recall_seconds.cache_clear()
    with FlopCounterMode(display=False) as counter:
        assert PLAN.recall_seconds(vocabulary, 16, 100, torch.float32, 1) == 1.0 / 2**15 / 512
    assert counter.get_total_flops() >= 3 * 2 * 2**15 * 512 * 16
    PLAN.recall_seconds.cache_clear()
