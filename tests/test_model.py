"""The GPT: causal, the right size, and drawn from the seed."""

from __future__ import annotations

import importlib.util
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from shortrun.model.generate import generate
from shortrun.model.gpt import GPT
from shortrun.optim.optimizers import make_optimizer
from shortrun.recipe import ModelConfig, Recipe
from shortrun.tokens.batch import RowBatch
from shortrun.train.fit import train
from shortrun.train.objective import Objective
from shortrun.train.step import TrainingStep
from tests.conftest import ROOT, tiny_recipe

SMALL = ModelConfig(n_layer=2, n_head=2, d_model=16, dropout=0.1)


def a_gpt(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(SMALL, vocab_size=30, block_size=10, eos=1).eval()


def test_a_token_never_changes_the_logits_before_it() -> None:
    model, x = a_gpt(), torch.randint(0, 30, (2, 10))
    changed = x.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 30
    before, after = model(x), model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_rows_do_not_see_each_other() -> None:
    model, x = a_gpt(), torch.randint(0, 30, (2, 10))
    assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-6)


def test_initial_weights_are_the_baselines() -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=2, n_head=4, d_model=128), vocab_size=500, block_size=32, eos=1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name == "pos_emb":
            assert parameter.abs().max() == 0, name
        elif "ln" in name:
            assert (parameter == 1).all(), name
        else:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.03), name


def test_the_seed_decides_the_weights() -> None:
    one, same, other = a_gpt(1), a_gpt(1), a_gpt(2)
    assert torch.equal(one.token_emb.weight, same.token_emb.weight)
    assert not torch.equal(one.token_emb.weight, other.token_emb.weight)


def sample(model: GPT, **changes: object) -> list[list[int]]:
    settings = {"count": 6, "eos": 1, "banned": [0, 2], "temperature": 1.0, "seed": 3, "max_tokens": 25} | changes
    return generate(model, [5, 6], **settings)  # type: ignore[arg-type]


def test_sampling_repeats_by_seed_and_keeps_the_prefix() -> None:
    model = a_gpt()
    assert sample(model) == sample(model)
    assert sample(model) != sample(model, seed=4)
    assert all(document[:2] == [5, 6] for document in sample(model))
    assert not any({0, 1, 2} & set(document) for document in sample(model))
    assert max(len(document) for document in sample(model)) <= 25


def test_sampling_draws_from_the_models_distribution() -> None:
    """The first token after the prefix occurs as often as the model says, to four standard errors."""
    model, count = a_gpt(), 4000
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # far from uniform
        logits = model(torch.tensor([[1, 5, 6]]))[0, -1]
    logits[[0, 2]] = -torch.inf
    probabilities = torch.softmax(logits, -1)
    drawn = sample(model, count=count, max_tokens=3)
    frequencies = torch.bincount(
        torch.tensor([document[2] if len(document) > 2 else 1 for document in drawn]), minlength=30
    )
    error = (probabilities * (1 - probabilities) / count).sqrt()
    assert ((frequencies / count - probabilities).abs() <= 4 * error + 1e-9).all()
    assert sample(model, temperature=0.0, count=1, max_tokens=3)[0][2:] in ([int(probabilities.argmax())], [])


def test_fifty_steps_are_those_of_a_plain_implementation() -> None:
    """Against the benchmark's textbook GPT (unfused attention, all logits, torch's AdamW), from the same weights."""
    spec = importlib.util.spec_from_file_location("contestants", ROOT / "benchmarks" / "contestants.py")
    assert spec is not None
    assert spec.loader is not None
    contestants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(contestants)
    shape = {"n_layer": 2, "n_head": 2, "d_model": 32, "block_size": 24, "batch_size": 8, "vocab_size": 300}
    options = Namespace(**shape, dropout=0.0, precision="float32", device="cpu", isolate=False)
    torch.manual_seed(0)
    theirs = contestants.PlainGPT(options)
    recipe = Recipe.model_validate(
        {"model": {"n_layer": 2, "n_head": 2, "d_model": 32, "dropout": 0.0}, "optim": {"lr": 1e-3}}
    )
    ours = GPT(recipe.model, 300, 24, eos=1)
    ours.load_state_dict(
        {
            name.replace(".mlp.", ".mlp.net."): w
            for name, w in theirs.state_dict().items()
            if "tril" not in name and "head" not in name
        }
    )
    take = TrainingStep(Objective(ours, recipe.train), ours, make_optimizer(ours, recipe.optim), recipe)
    plain_step, batches = contestants.usual_step(theirs, theirs, options), contestants.batches(options)
    for step in range(50):
        x, y = batches()
        found = take(RowBatch(x, y, y.numel(), None), 1.0, (0, step)).loss  # type: ignore[arg-type]
        assert found == pytest.approx(plain_step()[0], abs=1e-5), step


def factorised(**settings: Any) -> GPT:
    torch.manual_seed(0)
    config = {"n_layer": 1, "n_head": 4, "d_model": 64, "embedding_width": 16, "dropout": 0.0, **settings}
    return GPT(ModelConfig.model_validate(config), vocab_size=500, block_size=10, eos=1).eval()


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_factorised_embeddings_are_those_of_their_product(tied: bool) -> None:
    """A whole table that holds the product, and as the head if it is tied, gives the same logits."""
    one = factorised(tied_head=tied)
    other = GPT(
        ModelConfig(n_layer=1, n_head=4, d_model=64, dropout=0.0, tied_head=tied), vocab_size=500, block_size=10, eos=1
    ).eval()
    other.load_state_dict(one.state_dict() | {"token_emb.weight": one.table_VD}, strict=False)
    x = torch.randint(0, 500, (3, 10))
    assert torch.allclose(one(x), other(x), atol=1e-5)
    assert one.head_VD.shape == ((500, 16) if tied else (500, 64))


def test_factorised_embeddings_begin_with_the_spread_of_a_whole_table() -> None:
    for width in (8, 16, 32):
        assert float(factorised(embedding_width=width).table_VD.detach().std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("tied", [True, False])
def test_factorised_embeddings_train_in_bfloat16(tied: bool, tmp_path: Path) -> None:
    """The stream behind their map is float32, as without it, which the backward pass of a norm relies on."""
    model = {"embedding_width": 8, "tied_head": tied, "norm": "rmsnorm", "positions": "rotary"}
    losses = [
        train(tiny_recipe(None, model=model, train={"precision": precision}), tmp_path / precision, max_steps=3)
        for precision in ("float32", "bfloat16")
    ]
    one, other = (each.evaluation.loss.loss for each in losses)
    assert one != other
    assert one == pytest.approx(other, rel=0.01)


def test_factorised_embeddings_save_what_they_leave_out() -> None:
    V, E, D = 500, 16, 64
    for tied in (True, False):
        saved = factorised(embedding_width=None, tied_head=tied).count_parameters()
        saved -= factorised(tied_head=tied).count_parameters()
        assert saved == V * D - V * E - E * D
