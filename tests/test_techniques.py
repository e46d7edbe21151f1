"""Each technique does what its paper says, and every switch trains and resumes."""

from __future__ import annotations

import copy
import math
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from shortrun.errors import UserError
from shortrun.model.attention import CausalSelfAttention, Rotary
from shortrun.model.dropout import Dropout, drop
from shortrun.model.gpt import GPT, Stream
from shortrun.model.layout import GROUP, Layout, cuts
from shortrun.optim.muon import Muon
from shortrun.optim.optimizers import make_optimizer
from shortrun.optim.schedules import decay_scale, lr_scale
from shortrun.recipe import ModelConfig, OptimConfig, Recipe, ScheduleConfig
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder
from shortrun.tokens.batch import RowBatch
from shortrun.tokens.rows import Rows
from shortrun.train.fit import resume, train
from shortrun.train.objective import Objective
from shortrun.train.plan import plan
from shortrun.train.step import TrainingStep, passes_of
from tests.conftest import assert_same_end, tiny_recipe

pytestmark = pytest.mark.slow

EOS, VOCAB, BLOCK = 1, 40, 12
EVERY_MODEL = {
    "positions": "rotary", "norm": "rmsnorm", "bias": False, "mlp": "swiglu", "block": "parallel", "scale_embeddings": True,
    "tied_head": False, "init": "residual", "output_gate": True, "layer_scale": 0.1, "qk_norm": True, "word_dropout": 0.1,
    "embedding_width": 8, "word_replacement": 0.1,
}  # fmt: skip


def a_gpt(**switches: Any) -> GPT:
    torch.manual_seed(0)
    settings = {"n_layer": 2, "n_head": 2, "d_model": 16, "dropout": 0.0} | switches
    model = GPT(ModelConfig.model_validate(settings), VOCAB, BLOCK, EOS)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.mark.parametrize(
    ("settings", "vocab", "block", "parameters"),
    [
        ({}, 16_000, 128, 27_172_864),
        ({"n_head": 6, "d_model": 384}, 4_000, 64, 12_208_128),
        ({"n_layer": 4, "n_head": 3, "d_model": 192}, 4_000, 64, 2_560_128),
        ({"n_layer": 2, "n_head": 4, "d_model": 128}, 50_257, 64, 6_837_888),
        ({"n_layer": 2, "n_head": 4, "d_model": 128, "tied_head": False}, 50_257, 64, 13_270_784),
    ],
)
def test_the_reports_parameter_counts(settings: dict[str, int], vocab: int, block: int, parameters: int) -> None:
    assert GPT(ModelConfig.model_validate(settings), vocab, block, EOS).count_parameters() == parameters


def plainly(attention: CausalSelfAttention, x_ND: Tensor, lengths: list[int]) -> Tensor:
    """softmax(q k^T / sqrt(K)) v in einsums, over all positions of all rows, under the mask of who may see whom."""
    N, H = len(x_ND), attention.n_head
    q, k, v = attention.qkv(x_ND).view(N, 3, H, -1).unbind(1)
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    allowed = (row[:, None] == row[None, :]).tril()
    scores = torch.einsum("ihk,jhk->hij", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    mixed: Tensor = attention.proj(torch.einsum("hij,jhk->ihk", weights, v).reshape(N, -1))
    return mixed


@pytest.mark.parametrize("lengths", [[BLOCK] * 3, [5, 9, BLOCK], [1, 1, 8]])
def test_attention_is_the_plain_softmax(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of its ways, the product written out and torch's kernel."""
    torch.manual_seed(0)
    attention = CausalSelfAttention(ModelConfig(n_layer=1, n_head=2, d_model=16, dropout=0.0), BLOCK).double()
    x_ND = torch.randn(sum(lengths), 16, dtype=torch.float64)
    layout = Layout.of(np.array(lengths), x_ND.device)
    expected = plainly(attention, x_ND, lengths)
    assert torch.allclose(attention(x_ND, layout), expected, atol=1e-12)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # then, and off the CPU, it is torch's kernel
    assert torch.allclose(attention(x_ND, layout), expected, atol=1e-12)


@given(lengths=st.lists(st.integers(1, 33), min_size=1, max_size=60), sort=st.booleans())
def test_attention_in_groups_is_attention_under_the_mask(lengths: list[int], sort: bool) -> None:
    """Rows of any length, padded by groups or not: outputs and gradients."""
    lengths = sorted(lengths) if sort else lengths
    torch.manual_seed(0)
    attention = CausalSelfAttention(ModelConfig(n_layer=1, n_head=2, d_model=8, dropout=0.0), 33).double()
    x_ND = torch.randn(sum(lengths), 8, dtype=torch.float64, requires_grad=True)
    found, expected = attention(x_ND, Layout.of(np.array(lengths), x_ND.device)), plainly(attention, x_ND, lengths)
    assert torch.allclose(found, expected, atol=1e-12)
    weights, inputs = torch.randn_like(found), (x_ND, attention.qkv.weight)
    gradients = (torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


@given(st.lists(st.tuples(st.integers(1, 33), st.integers(1, 20)), min_size=1, max_size=8))
def test_groups_cost_the_least_there_can_be(runs: list[tuple[int, int]]) -> None:
    """Padding and GROUP for each group, against every way to cut where the length changes."""
    lengths = np.array([length for length, count in runs for _ in range(count)])
    changes = [int(place) + 1 for place in np.flatnonzero(np.diff(lengths))]

    def cost(pieces: list[tuple[int, int]]) -> int:
        return sum(GROUP + int((lengths[first:stop].max() - lengths[first:stop]).sum()) for first, stop in pieces)

    ways = [
        list(pairwise([0, *chosen, len(lengths)]))
        for number in range(len(changes) + 1)
        for chosen in combinations(changes, number)
    ]
    found = cuts(lengths)
    assert found in ways, "every row is in one group"
    assert cost(found) == min(map(cost, ways))


def test_rows_never_see_each_other() -> None:
    """Changing one leaves the hidden states of all others as they were, bit for bit, in training mode with dropout too."""
    ids = torch.tensor([EOS, 5, 6, EOS, 7, 8, 9, EOS, 5, 5, 6, 7])
    changed = ids.clone()
    changed[4:7] = torch.tensor([20, 21, 22])  # the second of three rows
    others = [0, 1, 2, 3, 7, 8, 9, 10, 11]
    for positions in ("rotary", "learned"):
        for dropout in (0.0, 0.5):
            model = a_gpt(positions=positions, dropout=dropout).train(dropout > 0)
            outputs = []
            for row in (ids, changed):
                torch.manual_seed(3)
                outputs.append(model.hidden(Rows(row, row, np.array([3, 4, 5]))))
            assert torch.equal(outputs[0][others], outputs[1][others])
            assert not torch.allclose(outputs[0][4:7], outputs[1][4:7])
        alone = a_gpt(positions=positions)
        together = alone.hidden(Rows(ids, ids, np.array([3, 4, 5]))) @ alone.head_VD.T
        one_by_one = [alone(piece[None])[0] for piece in torch.split(ids, [3, 4, 5])]
        assert torch.allclose(together, torch.cat(one_by_one), atol=1e-4)
        in_one_row = a_gpt(positions=positions)
        assert not torch.allclose(in_one_row(ids[None])[:, 8:], in_one_row(changed[None])[:, 8:])


@pytest.mark.parametrize("p", [0.0603, 0.5, 0.99])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 999, requires_grad=True)
    y = drop(x, p)
    kept, largest = y != 0, y.max().item()
    error = 5 * math.sqrt(p * (1 - p) / x.numel())
    assert float(kept.double().mean()) == pytest.approx(1 - p, abs=error)
    assert float(kept[:, :7].double().mean()) == pytest.approx(1 - p, abs=error * 12), "in every column"
    assert {round(scale, 4) for scale in y[kept].tolist()} == {round(largest, 4)}
    assert largest == pytest.approx(1 / (1 - p), rel=2**-16 / (1 - p))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y.detach()), "the same elements are dropped on the way back"
    torch.manual_seed(0)
    again, other = drop(x, p), drop(x, p)
    assert torch.equal(again, y)
    assert not torch.equal(other, y)
    assert torch.equal(Dropout(p).eval()(x), x)
    assert drop(x, 0.0) is x


def test_attention_dropout_drops_weights() -> None:
    attention = CausalSelfAttention(ModelConfig(n_layer=1, n_head=2, d_model=16, dropout=0.5), BLOCK).train()
    attention.resid_drop = Dropout(0.0)
    x, layout = torch.randn(BLOCK, 16), Layout.full(1, BLOCK)
    assert not torch.allclose(attention(x, layout), attention(x, layout))
    assert torch.equal(attention.eval()(x, layout), attention(x, layout))


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    rotary = Rotary(head_dim=8, block_size=20, base=100.0)
    q, k = torch.randn(8), torch.randn(8)
    turned_q, turned_k = (rotary(x.expand(1, 1, 20, 8))[0, 0] for x in (q, k))
    scores = turned_q @ turned_k.T
    for distance in range(5):
        along = torch.diagonal(scores, -distance)
        assert torch.allclose(along, along[:1].expand_as(along), atol=1e-4)
    assert torch.allclose(turned_q.norm(dim=-1), q.norm().expand(20), atol=1e-5)
    assert torch.allclose(turned_q[0], q)


def test_parts_of_a_block() -> None:
    x, rows = torch.randn(2 * BLOCK, 16), Layout.full(2, BLOCK)
    block: Any = a_gpt(block="parallel").blocks[0]
    out = block(Stream.through(block.ln1, x), nn.Identity(), rows).x_ND
    assert torch.allclose(out, x + block.attn(block.ln1(x), rows) + block.mlp(block.ln1(x)), atol=1e-6)
    block = a_gpt(layer_scale=0.1).blocks[0]
    nn.init.zeros_(block.scale1.factor)
    nn.init.zeros_(block.scale2.factor)
    assert torch.equal(block(Stream.through(block.ln1, x), nn.Identity(), rows).x_ND, x)
    mlp: Any = a_gpt(mlp="swiglu").blocks[0].mlp
    gate, value = mlp.gate_value(x).chunk(2, -1)
    assert gate.shape[-1] == 48  # 8/3 of 16, up to a multiple of 8
    assert torch.allclose(mlp(x), mlp.to_stream(gate * torch.sigmoid(gate) * value), atol=1e-6)
    mlp = a_gpt(mlp="relu2").blocks[0].mlp
    assert torch.allclose(mlp(x), mlp.net[2](torch.relu(mlp.net[0](x)) ** 2), atol=1e-5)
    attention: Any = a_gpt(output_gate=True).blocks[0].attn
    nn.init.zeros_(attention.gate.weight)
    nn.init.constant_(attention.gate.bias, -100.0)
    assert torch.allclose(attention(x, rows), attention.proj.bias.expand(2 * BLOCK, 16), atol=1e-5)


def test_switches_of_the_ends() -> None:
    x = torch.randint(2, VOCAB, (2, BLOCK))
    assert a_gpt(scale_embeddings=True).embedding_scale == 0.25
    untied = a_gpt(tied_head=False)
    assert untied.count_parameters() - a_gpt().count_parameters() == VOCAB * 16
    bare = a_gpt(bias=False)
    assert not [name for name, _ in bare.named_parameters() if name.endswith("bias")]
    assert "pos_emb" not in dict(a_gpt(positions="rotary").named_parameters())
    torch.manual_seed(0)
    settings = ModelConfig(n_layer=8, n_head=4, d_model=128, init="residual")
    deep: Any = GPT(settings, VOCAB, BLOCK, EOS)
    assert float(deep.blocks[3].mlp.to_stream.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.03)
    assert float(deep.blocks[3].attn.qkv.weight.detach().std()) == pytest.approx(0.02, rel=0.03)
    forgetful = a_gpt(word_dropout=0.99, positions="rotary")
    assert torch.equal(forgetful(x), forgetful(x)), "words are only dropped in training"
    ends = torch.full((2, BLOCK), EOS)
    assert torch.equal(forgetful.train()(ends), forgetful.eval()(ends)), "ends are never dropped"
    assert not torch.allclose(forgetful.train()(x), forgetful.eval()(x))


def a_recipe(**sections: dict[str, Any]) -> Recipe:
    return Recipe.model_validate({"data": {"source": "synthetic"}, "model": {"n_head": 2, "d_model": 16}, **sections})


def a_batch() -> RowBatch:
    torch.manual_seed(9)
    x, y = torch.randint(2, VOCAB, (4, BLOCK)), torch.randint(2, VOCAB, (4, BLOCK))
    y[3, 5:] = -100
    return RowBatch(x, y, int((y != -100).sum()), np.zeros(0, dtype=np.int64))


def a_step(model: GPT, recipe: Recipe) -> TrainingStep:
    return TrainingStep(Objective(model, recipe.train), model, make_optimizer(model, recipe.optim), recipe)


def loss_at(model: GPT, batch: RowBatch) -> Tensor:
    return F.cross_entropy(model(batch.x_BT).flatten(0, 1), batch.y_BT.flatten())


@pytest.mark.parametrize("kind", ["sam", "asam"])
def test_sam_steps_by_the_gradient_at_the_worst_nearby_point(kind: str) -> None:
    """Against a plain re-derivation with autograd, from the papers' formulas."""
    recipe = a_recipe(optim={"name": "sgd", "lr": 0.1, "sharpness": kind, "rho": 0.3, "grad_clip": 1e9})
    model, batch = a_gpt().double(), a_batch()
    expected = copy.deepcopy(model)
    weights = list(expected.parameters())
    gradients = torch.autograd.grad(loss_at(expected, batch), weights)
    scales = [w.detach().abs() + 0.01 if kind == "asam" else torch.ones_like(w) for w in weights]
    norm = torch.cat([(s * g).flatten() for s, g in zip(scales, gradients, strict=True)]).norm()
    nearby = copy.deepcopy(expected)
    with torch.no_grad():
        for w, s, g in zip(nearby.parameters(), scales, gradients, strict=True):
            w.add_(0.3 * s**2 * g / norm)
    worst = torch.autograd.grad(loss_at(nearby, batch), list(nearby.parameters()))
    # float32 logits inside the step limit the agreement
    a_step(model, recipe)(batch, 1.0, (0, 1))
    for w, before, g in zip(model.parameters(), weights, worst, strict=True):
        assert torch.allclose(w, before - 0.1 * g, atol=1e-5)
    assert passes_of(recipe, 10, 10) == 20


def symmetric_divergence(one_NV: Tensor, other_NV: Tensor) -> Tensor:
    p, q = one_NV.softmax(-1), other_NV.softmax(-1)
    return ((p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)) / 2


def test_rdrop_pulls_two_dropped_passes_together() -> None:
    batch, gaps = a_batch(), []
    for weight in (0.0, 20.0):
        recipe = a_recipe(
            model={"n_head": 2, "d_model": 16, "dropout": 0.3}, train={"rdrop": weight}, optim={"lr": 3e-3}
        )
        model = a_gpt(dropout=0.3)
        take = a_step(model, recipe)
        for step in range(60):
            take(batch, 1.0, (0, step))
        with torch.no_grad():
            one, other = (model(batch.x_BT).flatten(0, 1) for _ in range(2))
        gaps.append(float(symmetric_divergence(one, other).sum()))
    assert gaps[1] < gaps[0] / 2
    assert passes_of(recipe, 10, 10) == 20


def test_rdrop_from_a_share_of_the_steps_on(titles_file: Path, tmp_path: Path) -> None:
    """Up to there a run is bit for bit the one without R-Drop, and each step takes one pass."""
    losses = []
    for name, settings in {"plain": {}, "late": {"rdrop": 2.0, "rdrop_from": 0.67}}.items():
        result = train(tiny_recipe(titles_file, train={"epochs": 1, **settings}), tmp_path / name)
        steps = [event for event in RunFolder.open(tmp_path / name).metrics() if event["event"] == "training_step"]
        losses.append([step["loss"] for step in steps])
    total, plain = result.budget.steps, round(0.67 * result.budget.steps)
    assert 3 < plain < total - 3
    first_apart = next(at for at, (one, other) in enumerate(zip(*losses, strict=True)) if one != other)
    assert first_apart == plain, "the first step with R-Drop drops other activations in its second pass"
    assert result.budget.passes == plain + 2 * (total - plain)
    assert plan(tiny_recipe(titles_file, train={"rdrop": 2.0, "rdrop_from": 0.5})).passes_per_step == pytest.approx(
        1.5, abs=0.02
    )


def test_label_smoothing_changes_the_gradient_and_not_the_reported_loss() -> None:
    results, weights = [], []
    for smoothing in (0.0, 0.2):
        recipe = a_recipe(train={"label_smoothing": smoothing}, optim={"name": "sgd", "lr": 0.1})
        model = a_gpt()
        results.append(a_step(model, recipe)(a_batch(), 1.0, (0, 1)).loss)
        weights.append(model.token_emb.weight.detach().clone())
    assert results[0] == results[1]
    assert not torch.equal(*weights)


def test_what_muon_adamw_and_decay_take_care_of() -> None:
    model = a_gpt(output_gate=True, qk_norm=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    muon, adamw = make_optimizer(model, OptimConfig(name="muon", decay="matrices", weight_decay=0.1)).parts
    by_muon = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert by_muon == {
        name
        for name in names.values()
        if name.endswith((".qkv.weight", ".proj.weight", ".net.0.weight", ".net.2.weight"))
    }
    decaying = {names[id(p)] for group in adamw.param_groups if group["weight_decay"] for p in group["params"]}
    assert decaying == {name for name in names.values() if name.endswith("gate.weight")}
    every = {names[id(p)] for part in (muon, adamw) for group in part.param_groups for p in group["params"]}
    assert every == set(names.values())
    assert [type(part) for part in (muon, adamw)] == [Muon, torch.optim.AdamW]
    (plain,) = make_optimizer(model, OptimConfig(name="adamw", weight_decay=0.1)).parts
    assert [group["weight_decay"] for group in plain.param_groups] == [0.1]


def rates(total: int = 100, **settings: Any) -> list[float]:
    schedule = ScheduleConfig.model_validate(settings)
    return [lr_scale(step, total, schedule, peak=1.0) for step in range(1, total + 1)]


def test_schedules() -> None:
    assert rates(name="constant") == [1.0] * 100
    assert rates(name="linear")[::25] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert rates(name="cosine", min_lr=0.2)[50] == pytest.approx(0.6)
    assert rates(name="cosine", warmup=10)[:11] == pytest.approx([0.1 * step for step in range(1, 11)] + [1.0])
    assert rates(name="cosine", warmup=0.1) == rates(name="cosine", warmup=10)
    restarts = rates(name="restarts", cycles=4)
    assert restarts[::25] == pytest.approx([1.0] * 4)
    assert restarts[:25] == pytest.approx(rates(total=25, name="cosine"))
    wsd = rates(name="wsd", warmup=0.1, decay_frac=0.2)
    assert wsd[9:81] == pytest.approx([1.0] * 72)
    assert wsd[90] == pytest.approx(1 - math.sqrt(0.5))
    for name in ("linear", "cosine", "wsd"):
        falling = rates(name=name)
        assert all(later <= earlier for earlier, later in pairwise(falling))
        assert 0 < falling[-1] < 0.15


def test_weight_decays_own_schedule() -> None:
    def decays(name: str) -> list[float]:
        schedule = ScheduleConfig.model_validate({"weight_decay": name})
        return [decay_scale(step, 100, schedule) for step in range(1, 101)]

    assert decays("constant") == [1.0] * 100
    assert decays("linear")[::25] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert decays("cosine")[50] == pytest.approx(0.5)
    model = a_gpt()
    optimizer = make_optimizer(model, OptimConfig(name="adamw", lr=0.5, weight_decay=0.4))
    before = model.token_emb.weight.detach().clone()
    model.token_emb.weight.grad = torch.zeros_like(before)
    optimizer.step(lr_scale=0.1, decay_scale=0.25)
    assert torch.allclose(model.token_emb.weight, before * (1 - 0.5 * 0.1 * 0.4 * 0.25))


def test_lion_steps_by_the_sign_of_its_momentum() -> None:
    pytest.importorskip("pytorch_optimizer")
    model = a_gpt()
    optimizer = make_optimizer(model, OptimConfig(name="lion", lr=0.5, betas=(0.9, 0.99), weight_decay=0.1))
    weight = model.token_emb.weight
    before, momentum = weight.detach().clone(), torch.zeros_like(weight)
    for _ in range(3):
        weight.grad = torch.randn_like(weight)
        before = before * (1 - 0.05 * 0.1) - 0.05 * torch.sign(0.9 * momentum + 0.1 * weight.grad)
        momentum = 0.99 * momentum + 0.01 * weight.grad
        optimizer.step(0.1)
    assert torch.allclose(weight, before, atol=1e-6)


def test_the_extra_optimizers_are_named_when_their_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(UserError, match=r"shortrun\[optimizers\]"):
        make_optimizer(a_gpt(), OptimConfig(name="lion"))


SWITCHES: dict[str, dict[str, dict[str, Any]]] = {
    **{f"model.{name}": {"model": {name: value}} for name, value in EVERY_MODEL.items()},
    "model.mlp=relu2": {"model": {"mlp": "relu2"}},
    "every model switch": {"model": EVERY_MODEL},
    "documents": {"batches": {"mode": "documents"}},
    "documents with rdrop": {"batches": {"mode": "documents"}, "train": {"rdrop": 2.0}, "model": {"word_dropout": 0.1}},
    "muon": {
        "optim": {"name": "muon", "decay": "matrices", "weight_decay": 0.1},
        "schedule": {"name": "wsd", "warmup": 3},
    },
    "members": {"model": {"members": 2}, "optim": {"name": "muon"}, "train": {"ema": 0.9}},
    "learning rates by group": {
        "optim": {"name": "muon", "embedding_lr_factor": 2.0, "head_lr_factor": 0.5, "gain_lr_factor": 3.0},
        "model": {"tied_head": False},
    },
    "sam": {"optim": {"sharpness": "sam"}},
    "asam": {"optim": {"sharpness": "asam", "rho": 0.5}},
    "asam with muon": {"optim": {"name": "muon", "sharpness": "asam", "rho": 0.5}},
    "rdrop": {"train": {"rdrop": 2.0}},
    "rdrop in the second half": {"train": {"rdrop": 2.0, "rdrop_from": 0.5}, "batches": {"mode": "documents"}},
    "label smoothing": {"train": {"label_smoothing": 0.1}},
    "ema": {"train": {"ema": 0.9}},
    "unigram": {"tokenizer": {"kind": "unigram", "vocab_size": 400}},
    "case factored out": {"tokenizer": {"kind": "unigram", "vocab_size": 400, "case": "factored"}},
    "characters": {"tokenizer": {"kind": "character", "vocab_size": 270}},
    "whole pieces": {"tokenizer": {"vocab_size": 300, "whole_pieces": ["GPT-4", "C++"]}},
    "lion": {"optim": {"name": "lion", "weight_decay": 0.1}, "schedule": {"weight_decay": "cosine"}},
    "soap": {"optim": {"name": "soap", "weight_decay": 0.1}, "schedule": {"weight_decay": "linear"}},
    "normalised": {"data": {"normalise": ["nfkc", "lowercase"]}},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_trains_and_resumes_bitwise(name: str, titles_file: Path, tmp_path: Path) -> None:
    if name in ("lion", "soap"):
        pytest.importorskip("pytorch_optimizer")
    recipe = tiny_recipe(titles_file, train={"epochs": 1, **SWITCHES[name].get("train", {})}, **{
        section: fields for section, fields in SWITCHES[name].items() if section != "train"
    })  # fmt: skip
    whole = train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "stopped", max_steps=4)
    resume(tmp_path / "stopped")
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")
    assert math.isfinite(whole.evaluation.loss.loss)
    assert whole.budget.passes == passes_of(recipe, whole.budget.steps, whole.budget.steps)


def test_the_average_of_the_weights_is_what_is_scored(titles_file: Path, tmp_path: Path) -> None:
    """With a decay of 0.9 over three steps, the model on disk is the average written out."""
    raw = []
    for steps in (1, 2, 3):
        train(tiny_recipe(titles_file), tmp_path / f"raw{steps}", max_steps=steps)
        checkpoint, _ = newest_checkpoint(RunFolder.open(tmp_path / f"raw{steps}"))
        assert checkpoint is not None
        raw.append(load_file(checkpoint.path / "model.safetensors")["token_emb.weight"])
    train(tiny_recipe(titles_file, train={"ema": 0.9}), tmp_path / "ema", max_steps=3)
    checkpoint, _ = newest_checkpoint(RunFolder.open(tmp_path / "ema"))
    assert checkpoint is not None
    expected = 0.9 * (0.9 * raw[0] + 0.1 * raw[1]) + 0.1 * raw[2]
    averaged = load_file(checkpoint.path / "model.safetensors")["token_emb.weight"]
    assert torch.allclose(averaged, expected, atol=1e-7)
    state = torch.load(checkpoint.path / "state.pt", weights_only=True)
    assert torch.equal(state["weights"]["token_emb.weight"], raw[2])
