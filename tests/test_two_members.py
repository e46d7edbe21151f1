"""A model that is no GPT trains, scores, samples, stops and goes on, with a change in the model room alone.

Here it is two GPTs whose probabilities are averaged. It has no linear head, and a cache of caches.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from shortrun.cli import commands
from shortrun.model.generate import generate
from shortrun.model.gpt import GPT
from shortrun.model.language_model import Cache, Caches, LanguageModel
from shortrun.optim.muon import Muon
from shortrun.optim.optimizers import make_optimizer
from shortrun.recipe import ModelConfig
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import Trained, load_trained
from shortrun.text.corpus import load_corpus
from shortrun.tokens.batches import make_batches
from shortrun.train.fit import resume, train
from shortrun.train.prepare import prepare
from shortrun.view.evaluate import evaluate_run
from tests.conftest import tiny_recipe

KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "muon, smoothing, R-Drop": {
        "batches": {"mode": "documents"},
        "optim": {"name": "muon", "lr": 1e-2},
        "train": {"label_smoothing": 0.1, "rdrop": 1.0},
    },
    "average of the weights": {"optim": {"lr": 1e-2}, "train": {"ema": 0.9}},
}


class TwoMembers(LanguageModel):
    """Takes the mean of two GPTs' probabilities; each has initial weights of its own."""

    def __init__(self, config: ModelConfig, vocab_size: int, block_size: int, eos: int) -> None:
        super().__init__()
        self.vocab_size, self.block_size = vocab_size, block_size
        self.one, self.other = (GPT(config, vocab_size, block_size, eos) for _ in range(2))

    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:
        first, second = cache.parts if isinstance(cache, Caches) else (None, None)
        logits_2BTV = torch.stack([self.one(x_BT, first), self.other(x_BT, second)])
        return logits_2BTV.log_softmax(dim=-1).logsumexp(dim=0) - math.log(2)

    def new_cache(self) -> Caches:
        return Caches([self.one.new_cache(), self.other.new_cache()])

    def flops_per_token(self, row_length: float) -> float:
        return self.one.flops_per_token(row_length) + self.other.flops_per_token(row_length)


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, titles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An uninterrupted run of two members; `make_model` makes them as long as the run is used."""
    folder = tmp_path_factory.mktemp("two")
    file = folder / "titles.txt"
    file.write_text("\n".join(titles) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shortrun.model.make.GPT", TwoMembers)
        train(tiny_recipe(file, **KINDS[request.param]), folder / "run")
        yield folder / "run"


@pytest.fixture
def trained(run: Path) -> Trained:
    return load_trained(run)


@pytest.fixture
def model(trained: Trained) -> TwoMembers:
    assert isinstance(trained.model, TwoMembers)
    return trained.model


def state_of(run: Path) -> dict[str, Tensor]:
    """Every tensor of the newest checkpoint: scored weights, optimizer, counts, and weights beside an average."""
    checkpoint, damaged = newest_checkpoint(RunFolder.open(run))
    assert checkpoint is not None
    assert not damaged
    state = torch.load(checkpoint.path / "state.pt", weights_only=True)
    return {**load_file(checkpoint.path / "model.safetensors"), **dict(tensors(state))}


def tensors(tree: Any, name: str = "state") -> list[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        return [(name, tree)]
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else []
    return [found for key, branch in branches for found in tensors(branch, f"{name}.{key}")]


def steps_of(run: Path) -> list[dict[str, Any]]:
    """What the log says of steps and evaluations, without the time that they took."""
    clock = {"timestamp", "elapsed_time"}
    events = [
        event for event in RunFolder.open(run).metrics() if event["event"] in ("training_step", "validation_step")
    ]
    return [{key: value for key, value in event.items() if key not in clock} for event in events]


def test_it_learns(run: Path, model: TwoMembers) -> None:
    losses = [event["document_loss"] for event in steps_of(run) if event["event"] == "validation_step"]
    assert losses[-1] < 0.9 * losses[0]
    one, other = (dict(member.named_parameters()) for member in (model.one, model.other))
    assert not any(torch.equal(one[name], other[name]) for name in one), "neither is the other's copy"


def test_it_is_stopped_and_goes_on_bitwise(run: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    total = steps_of(run)[-1]["max_steps"]
    train(RunFolder.open(run).recipe(), stopped, max_steps=1)
    for step in (total // 2 + 1, None):
        resume(stopped, max_steps=step)
    expected, found = state_of(run), state_of(stopped)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert steps_of(run) == steps_of(stopped)
    assert np.array_equal(RunFolder.open(run).nats().nats_D, RunFolder.open(stopped).nats().nats_D)


def nats_of(probabilities: Tensor) -> float:
    return -probabilities.log().sum().item()


@torch.no_grad()
def test_its_loss_is_that_of_its_members_mean_probability(run: Path, trained: Trained, model: TwoMembers) -> None:
    """Each validation document by hand; the mean of the members' logits, or one of them alone, would give other nats."""
    tokenizer = trained.tokenizer
    documents = load_corpus(trained.recipe.data).split("validation")
    scored, others = [], []
    for document, nats in zip(documents, RunFolder.open(run).nats().nats_D, strict=True):
        ids = [tokenizer.eos, *tokenizer.encode(document), tokenizer.eos]
        if len(ids) - 1 > model.block_size:  # scored in windows
            continue
        x_BT, y_T1 = torch.tensor([ids[:-1]]), torch.tensor(ids[1:])[:, None]
        one_TV, other_TV = (member(x_BT)[0].double() for member in model.children())
        one, other, between = (
            logits_TV.softmax(dim=-1).gather(1, y_T1) for logits_TV in (one_TV, other_TV, (one_TV + other_TV) / 2)
        )
        assert nats_of((one + other) / 2) == pytest.approx(nats, rel=1e-5)
        scored.append(nats)
        others.append([nats_of(wrong) for wrong in (one, other, between)])
    assert len(scored) >= 20
    assert (np.abs(np.array(others) / np.array(scored)[:, None] - 1) > 1e-4).mean() > 0.9


@torch.no_grad()
def test_its_cached_logits_are_the_uncached_ones(model: TwoMembers) -> None:
    """After prompts of one token and of more, and after rows have been dropped."""
    T = model.block_size
    for prompt in (1, 5):
        ids_BT, cache = torch.randint(3, model.vocab_size, (6, T)), model.new_cache()
        for seen in range(prompt, T + 1):
            logits_BV = model(ids_BT[:, cache.length : seen], cache)[:, -1]
            assert cache.length == seen
            assert torch.allclose(logits_BV, model(ids_BT[:, :seen])[:, -1], rtol=1e-5, atol=1e-5)
            if seen in (7, 9):
                kept_B = torch.arange(len(ids_BT)) % 3 != 1
                ids_BT = ids_BT[kept_B]
                cache.keep(kept_B)


@torch.no_grad()
def test_its_documents_are_those_of_whole_rows(trained: Trained, model: TwoMembers) -> None:
    """Sampled with its caches, and token by token from the last block of tokens anew."""
    tokenizer = trained.tokenizer
    banned = [token for token in (tokenizer.pad, tokenizer.unk) if token is not None]
    prefix = tokenizer.encode("Show HN")
    most = len(prefix) + 2 * model.block_size
    found = generate(model, prefix, count=6, eos=tokenizer.eos, banned=banned, temperature=1.0, seed=3, max_tokens=most)
    for number, document in enumerate(found):
        ids, uniforms = [tokenizer.eos, *prefix], np.random.default_rng([3, number])
        while len(ids) <= most:
            logits_V = model(torch.tensor([ids[-model.block_size :]]))[0, -1].double()
            logits_V[banned] = -torch.inf
            token = int((logits_V.softmax(dim=-1).cumsum(dim=-1).numpy() <= uniforms.random()).sum())
            if token == tokenizer.eos:
                break
            ids.append(token)
        assert document == ids[1:]
    assert len({tuple(document) for document in found}) > 3


def test_it_is_read_back_and_evaluated_to_the_same_loss(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = RunFolder.open(run).scores()
    assert scores is not None
    assert evaluate_run(run).newest.loss.loss == scores["loss"]
    assert commands.run(["eval", str(run), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert {key: evaluated[key] for key in ("loss", "official_loss", "coverage")} == {
        key: scores[key] for key in ("loss", "official_loss", "coverage")
    }
    assert commands.run(["sample", str(run), "--n", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["documents"]) == 2


def test_its_cost_is_that_of_both_members(run: Path, trained: Trained, model: TwoMembers) -> None:
    recipe, scores, one = trained.recipe, RunFolder.open(run).scores(), model.one
    assert scores is not None
    assert scores["parameters"] == 2 * one.count_parameters()
    batches = make_batches(prepare(recipe).train, recipe.batches, recipe.train.epochs, recipe.train.seed)
    passes = scores["passes"] / scores["steps"]
    assert scores["flops"] == pytest.approx(2 * scores["tokens"] * passes * one.flops_per_token(batches.row_length))


def test_muon_takes_both_members_matrices(trained: Trained, model: TwoMembers) -> None:
    optim = trained.recipe.optim.model_copy(update={"name": "muon"})
    muon, adamw = make_optimizer(model, optim).parts
    assert isinstance(muon, Muon)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    taken = {names[id(parameter)] for group in muon.param_groups for parameter in group["params"]}
    inside = ("attn.qkv", "attn.proj", "mlp.net.0", "mlp.net.2")
    layers = range(trained.recipe.model.n_layer)
    assert taken == {
        f"{member}.blocks.{layer}.{linear}.weight"
        for member in ("one", "other")
        for layer in layers
        for linear in inside
    }
    left = {names[id(parameter)] for group in adamw.param_groups for parameter in group["params"]}
    assert left == set(names.values()) - taken
