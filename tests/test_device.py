"""Which precision a run trains in, and what this machine is said to be good for."""

from __future__ import annotations

import itertools
import platform
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from shortrun.model import device
from shortrun.model.device import choose_precision, cpu_features, product_rates
from shortrun.recipe import Recipe
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import load_trained
from shortrun.train.events import Event, Note
from shortrun.train.fit import resume, train
from tests.conftest import tiny_recipe

CPU = torch.device("cpu")


def let_products_run_at(float32: float, bfloat16: float, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(device, "product_rates", lambda _: {torch.float32: float32, torch.bfloat16: bfloat16})


@pytest.mark.parametrize(
    ("wish", "bfloat16", "chosen", "sentence"),
    [
        ("auto", 2600.0, torch.bfloat16, "bfloat16, because its products run at 2,600 GFLOP/s here and float32's at 2,000"),
        ("auto", 2599.0, torch.float32,
         "float32, because bfloat16 does not pay: its products run at 2,599 GFLOP/s here and float32's at 2,000"),
        ("bfloat16", 9000.0, torch.bfloat16,
         "bfloat16, because the recipe asks for it: its products run at 9,000 GFLOP/s here and float32's at 2,000"),
        ("bfloat16", 400.0, torch.bfloat16,
         "bfloat16, because the recipe asks for it: its products run at 400 GFLOP/s here and float32's at 2,000; float32 "
         "would be the better choice on this machine"),
    ],
    ids=["pays", "does not pay", "asked for", "asked for where it does not pay"],
)  # fmt: skip
def test_a_timed_product_decides_and_says_why(
    wish: str, bfloat16: float, chosen: torch.dtype, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_products_run_at(2000.0, bfloat16, monkeypatch)
    assert choose_precision(wish, CPU) == (chosen, sentence)


def test_float32_is_not_put_to_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: torch.device) -> None:
        raise AssertionError

    monkeypatch.setattr(device, "product_rates", never)
    assert choose_precision("float32", CPU) == (torch.float32, "float32, because the recipe asks for it")


def a_recipe(path: Path, precision: str) -> Recipe:
    return tiny_recipe(path, train={"precision": precision, "epochs": 1}, model={"d_model": 32})


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_trained(run).model.state_dict() for run in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_keeps_the_precision_that_it_began_with(
    tmp_path: Path, titles_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the manifest, and a machine that has become another does not move a bit of the rest."""
    notes: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    paying, not_paying = (100.0, 900.0), (100.0, 20.0)
    for first, later, name in ((paying, not_paying, "bfloat16"), (not_paying, paying, "float32")):
        recipe, begun, whole = a_recipe(titles_file, "auto"), tmp_path / f"{name} begun", tmp_path / name
        let_products_run_at(*first, monkeypatch)
        train(recipe, whole)
        train(recipe, begun, max_steps=5, on_event=note)
        assert any(text.startswith(f"Training computes in {name}, because ") for text in notes)
        let_products_run_at(*later, monkeypatch)
        notes.clear()
        resume(begun, on_event=note)
        assert f"Training computes in {name}, because the run began in it" in notes
        assert RunFolder.open(begun).manifest()["machine"]["precision"] == name
        assert same_weights(begun, whole)
        train(a_recipe(titles_file, name), tmp_path / f"{name} asked for")
        assert same_weights(tmp_path / f"{name} asked for", whole)
    assert not same_weights(tmp_path / "bfloat16", tmp_path / "float32")


def test_the_products_are_timed_quickly_and_leave_the_threads_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        began = time.thread_time()  # of this thread alone, in which the products run: others don't move it
        rates = product_rates(CPU)
        assert time.thread_time() - began < 0.25
        assert torch.get_num_threads() == 3
        assert rates.keys() == {torch.float32, torch.bfloat16}
        assert min(rates.values()) > 0.1, "GFLOP/s, which the slowest machine has"

        def fails(_: torch.Tensor) -> None:
            assert torch.get_num_threads() == 1
            raise RuntimeError("no product")

        monkeypatch.setattr(device, "_product_seconds", fails)
        with pytest.raises(RuntimeError, match="no product"):
            product_rates(CPU)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_rates_are_the_best_of_several_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two take turns; a disturbance of some of them is no matter."""
    taken: list[torch.dtype] = []

    def seconds(matrix: torch.Tensor) -> float:
        taken.append(matrix.dtype)
        quick = 0.5 if matrix.dtype == torch.bfloat16 else 1.0
        return quick if len(taken) in (3, 4) else 9.0

    monkeypatch.setattr(device, "_product_seconds", seconds)
    monkeypatch.setattr(device, "time", SimpleNamespace(perf_counter=itertools.count(step=0.01).__next__))
    rates = product_rates(CPU)
    assert taken[:4] == [torch.float32, torch.bfloat16] * 2
    operations = 2 * device.PROBE**3 / 1e9
    assert rates == {torch.float32: pytest.approx(operations), torch.bfloat16: pytest.approx(2 * operations)}


@pytest.mark.parametrize(
    ("flags", "beginning"),
    [
        ({"avx512f", "avx512_bf16", "amx_bf16"}, "AMX: bfloat16 products are several times as fast"),
        ({"avx512f", "avx512_bf16"}, "AVX-512 with BF16: bfloat16 products are faster"),
        ({"avx2", "avx512f"}, "AVX-512 without BF16: bfloat16 is emulated"),
        ({"avx2"}, "torch's "),
        (set(), "torch's "),
    ],
)
def test_what_a_cpu_has_is_said(flags: set[str], beginning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(device, "_cpu_flags", lambda: flags)
    assert cpu_features().startswith(beginning)
    assert "no BF16" in cpu_features() or "avx512f" in flags
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert cpu_features().startswith("arm64, torch's "), "x86's flags mean nothing elsewhere"
