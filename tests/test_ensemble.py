"""`model.members`: each is trained as it would be alone, and the mean of their probabilities is what is scored.

Shapes: B rows, T positions, V vocabulary, C targets, K members.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from shortrun.model.ensemble import Ensemble
from shortrun.model.gpt import GPT
from shortrun.model.language_model import LanguageModel
from shortrun.model.make import make_model, model_without_weights
from shortrun.recipe import ModelConfig
from shortrun.runs.checkpoints import weights_sha256
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import load_trained
from shortrun.score import cross_entropy
from shortrun.score.cross_entropy import target_logits, token_nats
from shortrun.score.mixture import fitted_weights, mixture_weights
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import Rows
from shortrun.train.fit import train
from shortrun.view.architecture_figure import architecture_svg
from shortrun.view.parts import parameters_by_part
from tests.conftest import scores_of, tiny_recipe

EOS, VOCAB, BLOCK = 1, 40, 12


def a_gpt(block: int = BLOCK, **switches: Any) -> GPT:
    """Weights so large that members disagree."""
    config = ModelConfig.model_validate({"n_layer": 1, "n_head": 2, "d_model": 16, "dropout": 0.0, **switches})
    model = GPT(config, VOCAB, block, EOS)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.fixture
def ensemble() -> Ensemble:
    """Three members of different shapes and blocks, each of another weight."""
    torch.manual_seed(4)
    made = Ensemble([a_gpt(), a_gpt(BLOCK + 5, d_model=24, norm="rmsnorm"), a_gpt(positions="rotary", mlp="swiglu")])
    made.weigh([0.5, 0.2, 0.3])
    return made.eval()


def mean_probabilities(model: Ensemble, x_BT: Tensor) -> Tensor:
    """By hand, in float64."""
    weights = (0.5, 0.2, 0.3)
    each = (weight * member(x_BT).double().softmax(-1) for weight, member in zip(weights, model.each, strict=True))
    return torch.stack(list(each)).sum(0)


@torch.no_grad()
def test_its_logits_are_the_logarithms_of_the_weighted_mean_of_probabilities(ensemble: Ensemble) -> None:
    x_BT = torch.randint(2, VOCAB, (3, BLOCK))
    logits_BTV, expected_BTV = ensemble(x_BT), mean_probabilities(ensemble, x_BT)
    assert ensemble.block_size == BLOCK
    assert torch.allclose(logits_BTV.exp().double(), expected_BTV, rtol=1e-5, atol=1e-8)
    assert torch.allclose(logits_BTV.double().exp().sum(-1), torch.ones(3, BLOCK).double(), atol=1e-6)
    of_mean_logits = torch.stack([member(x_BT) for member in ensemble.each]).mean(0).softmax(-1)
    assert not torch.allclose(logits_BTV.exp(), of_mean_logits, atol=0.01)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [cross_entropy.CHUNK, 3 * VOCAB])
def test_scoring_takes_the_same_means_a_chunk_at_a_time(
    ensemble: Ensemble, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of any length, whose targets partly don't count; no more logits at a time than of any other model."""
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    x_N, lengths = torch.randint(2, VOCAB, (19,)), np.array([3, 5, 11])
    y_N = torch.randint(2, VOCAB, (19,))
    y_N[[1, 10]] = -100
    rows, counted_N = Rows(x_N, y_N, lengths), y_N != -100
    p_NV = torch.cat([mean_probabilities(ensemble, row[None])[0] for row in torch.split(x_N, lengths.tolist())])
    pieces = list(target_logits(ensemble, rows))
    assert max(len(targets_C) for _, targets_C in pieces) == (17 if chunk > 3 * VOCAB else 3)
    assert torch.equal(torch.cat([targets_C for _, targets_C in pieces]), y_N[counted_N])
    assert torch.allclose(torch.cat([logits_CV for logits_CV, _ in pieces]).double().exp(), p_NV[counted_N], atol=1e-6)
    expected_N = -p_NV.gather(1, y_N.clamp(min=0)[:, None])[:, 0].log()
    assert torch.allclose(token_nats(ensemble, rows), torch.where(counted_N, expected_N, 0.0), rtol=1e-5)


@torch.no_grad()
def test_its_cached_logits_are_the_uncached_ones(ensemble: Ensemble) -> None:
    x_BT, cache = torch.randint(2, VOCAB, (4, BLOCK)), ensemble.new_cache()
    for seen in range(5, BLOCK + 1):
        last_BV = ensemble(x_BT[:, cache.length : seen], cache)[:, -1]
        assert torch.allclose(last_BV, ensemble(x_BT[:, :seen])[:, -1], rtol=1e-4, atol=1e-5)
        if seen == 8:
            kept_B = torch.tensor([True, False, True, True])
            x_BT = x_BT[kept_B]
            cache.keep(kept_B)


def tiny_members(count: int, **model: Any) -> LanguageModel:
    recipe = tiny_recipe(None, model={"members": count, **model})
    torch.manual_seed(5)
    return make_model(recipe, VOCAB, EOS)


def test_each_member_draws_weights_of_its_own_whatever_others_there_are() -> None:
    one, three = tiny_members(1), tiny_members(3)
    assert isinstance(one, GPT)
    assert isinstance(three, Ensemble)
    found = [weights_sha256(member) for member in three.each]
    assert len(set(found)) == 3
    assert found[0] == weights_sha256(one)
    two = tiny_members(2)
    assert isinstance(two, Ensemble)
    assert found[:2] == [weights_sha256(member) for member in two.each]


WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "SGD at a worst point, clipped": {"optim": {"name": "sgd", "lr": 0.3, "sharpness": "asam", "grad_clip": 0.3}},
    "Muon, smoothing, an average": {
        "optim": {"name": "muon", "muon_lr": 1e-2},
        "train": {"label_smoothing": 0.1, "ema": 0.9},
    },
    "AdamW, documents, in parts": {"batches": {"mode": "documents"}, "train": {"memory_limit": 0.352}},
}


def logged(run: Path, key: str) -> list[float]:
    return [event[key] for event in RunFolder.open(run).metrics() if event["event"] == "training_step"]


@pytest.mark.parametrize("way", WAYS)
def test_each_is_trained_as_if_alone(way: str, tmp_path: Path) -> None:
    """Without dropout, whose random numbers are drawn one after the other, a run of either member alone gives its weights."""
    sections = {**WAYS[way], "data": {"num_titles": 100}}
    sections["train"] = {"epochs": 1, "evals_per_epoch": 1, **sections.get("train", {})}
    recipe = tiny_recipe(None, model={"dropout": 0.0, "members": 2}, **sections)
    scores = train(recipe, tmp_path / "both").as_dict()
    both, losses, norms = load_trained(tmp_path / "both").model, [], []
    assert isinstance(both, Ensemble)
    for number, member in enumerate(both.each):
        alone = tmp_path / f"alone-{number}"
        with pytest.MonkeyPatch.context() as patch:

            def the_nth(*arguments: Any, number: int = number) -> GPT:
                return [GPT(*arguments) for _ in range(number + 1)][-1]

            patch.setattr("shortrun.model.make.GPT", the_nth)
            train(recipe.changed("model", members=1), alone)
            expected = load_trained(alone).model.state_dict()
        for name, weight in member.state_dict().items():
            assert torch.allclose(weight, expected[name], rtol=1e-5, atol=1e-6), name
        losses.append(logged(alone, "loss"))
        norms.append(logged(alone, "grad_norm"))
        own = scores_of(alone)
    assert logged(tmp_path / "both", "loss") == pytest.approx(np.mean(losses, axis=0).tolist(), rel=1e-5)
    assert logged(tmp_path / "both", "grad_norm") == pytest.approx(np.mean(norms, axis=0).tolist(), rel=1e-4)
    for key in ("parameters", "passes", "flops"):
        assert scores[key] == 2 * own[key], key
    for key in ("steps", "tokens", "epochs"):
        assert scores[key] == own[key], key


def test_the_first_member_is_bit_for_bit_the_run_alone_with_dropout_too(tmp_path: Path) -> None:
    """The others' dropout is drawn after its own."""
    recipe = tiny_recipe(None, data={"num_titles": 100}, model={"word_dropout": 0.1}, train={"epochs": 1, "rdrop": 0.5})
    train(recipe, tmp_path / "alone")
    train(recipe.changed("model", members=2), tmp_path / "both")
    both = load_trained(tmp_path / "both").model
    assert isinstance(both, Ensemble)
    assert weights_sha256(both.each[0]) == weights_sha256(load_trained(tmp_path / "alone").model)


def test_parameters_and_figure_of_an_ensemble() -> None:
    recipe = tiny_recipe(None, model={"members": 3})
    model, alone = model_without_weights(recipe, 300), model_without_weights(tiny_recipe(None), 300)
    assert parameters_by_part(model) == {part: 3 * count for part, count in parameters_by_part(alone).items()}
    assert model.flops_per_token(10) == alone.flops_per_token(10), "of one member's pass"
    drawn = architecture_svg(recipe, model, "run")
    assert "The first of 3 members" in drawn
    assert f"{model.count_parameters():,} parameters" in drawn


@given(st.integers(0, 2**32), st.integers(2, 4))
def test_fitted_weights_have_the_least_nats(seed: int, members: int) -> None:
    """No other weights, drawn at random or at a corner, have fewer."""
    rng = np.random.default_rng(seed)
    nats_KN = rng.gamma(2.0, 1.5, size=(members, 60)) + rng.random((members, 1))
    weights_K = mixture_weights(nats_KN)
    assert weights_K.sum() == pytest.approx(1)
    assert (weights_K >= 0).all()

    def nats(weights: Any) -> float:
        return float(-np.log(np.asarray(weights) @ np.exp(-nats_KN)).sum())

    for other in [*rng.dirichlet(np.ones(members), size=50), *np.eye(members)]:
        assert nats(weights_K) <= nats(other) + 1e-6


@torch.no_grad()
def test_weights_are_fitted_on_tokens_as_they_are_scored(ensemble: Ensemble) -> None:
    """Documents that outgrow the block too. The member that wrote them all gets nearly all the weight."""
    torch.manual_seed(1)
    writer, documents = ensemble.each[1], []
    for length in (3, 4, 5, 6, 7, 30) * 8:
        ids = [EOS]
        for _ in range(length):
            p_V = writer(torch.tensor([ids[-writer.block_size :]]))[0, -1].softmax(-1)
            p_V[EOS] = 0
            ids.append(int(torch.multinomial(p_V, 1)))
        documents.append(ids[1:])
    encoded = EncodedDocuments.of(documents, EOS)
    weights_K = fitted_weights(ensemble, encoded)
    assert weights_K.sum() == pytest.approx(1)
    assert weights_K[1] > 0.8
    assert math.isclose(math.exp(ensemble.log_weight_K[0]), 0.5, rel_tol=1e-6), "the model is as it was"
