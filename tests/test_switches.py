"""Every switch of a recipe changes what is trained; what must not change it does not.

A field of the recipe that stands in none of the tables here fails a test, so a new switch can't be without one.

Shapes: T positions, K channels of a head.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shortrun.model import attention
from shortrun.model.attention import CausalSelfAttention
from shortrun.model.gpt import GPT
from shortrun.model.layout import Layout
from shortrun.model.make import make_model
from shortrun.optim.muon import Muon, orthogonalise
from shortrun.optim.optimizers import make_optimizer
from shortrun.optim.schedules import applied_shrink, decay_scale, lr_scale
from shortrun.recipe import GPT2_VOCABULARY, WITHOUT_EFFECT, ModelConfig, OptimConfig, Recipe, ScheduleConfig
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder
from shortrun.text.corpus import load_corpus
from shortrun.tokens.kinds import tokenizer_for
from shortrun.train.fit import train
from tests.conftest import gpt2_files, tiny_values

EOS, VOCAB, BLOCK = 1, 40, 12
SECTIONS = ("model", "optim", "schedule", "train", "batches", "tokenizer", "datastore")


class Switch(NamedTuple):
    """How a field is put to the test."""

    values: tuple[Any, ...]
    """Values other than the tiny recipe's. Of a field that names kinds, all but the tiny recipe's."""
    given: Mapping[str, Any] = MappingProxyType({})
    """What else must be set, with and without, so that the field is read."""
    changes: Literal["losses", "lr", "scores", "ids"] = "losses"
    """What must differ: training losses after the first step, learning rates, the losses scored at the end (and only
    those), or token ids."""


MUON = {"optim.name": "muon"}
SWITCHES = {
    "model.n_layer": Switch((2,)),
    "model.n_head": Switch((4,)),
    "model.d_model": Switch((24,)),
    "model.embedding_width": Switch((8,)),
    "model.dropout": Switch((0.3,)),
    "model.word_dropout": Switch((0.2,)),
    "model.word_replacement": Switch((0.2,)),
    "model.positions": Switch(("rotary",)),
    "model.rope_base": Switch((10.0,), {"model.positions": "rotary"}),
    "model.norm": Switch(("rmsnorm",)),
    "model.bias": Switch((False,)),
    "model.mlp": Switch(("swiglu", "relu2")),
    "model.block": Switch(("parallel",)),
    "model.scale_embeddings": Switch((True,)),
    "model.tied_head": Switch((False,)),
    "model.init": Switch(("residual",)),
    "model.output_gate": Switch((True,)),
    "model.layer_scale": Switch((0.1,)),
    "model.qk_norm": Switch((True,)),
    "model.members": Switch((2,)),
    "optim.name": Switch(("sgd", "muon", "lion", "soap")),
    "optim.lr": Switch((1e-3,)),
    "optim.embedding_lr_factor": Switch((0.3,)),
    "optim.head_lr_factor": Switch((0.3,), {"model.tied_head": False}),
    "optim.gain_lr_factor": Switch((30.0,)),
    "optim.betas": Switch(((0.8, 0.95), (0.9, 0.99))),
    "optim.weight_decay": Switch((0.5,)),
    "optim.decay": Switch(("matrices",), {"optim.weight_decay": 0.5}),
    "optim.muon_lr": Switch((2e-2,), MUON),
    "optim.muon_momentum": Switch((0.5,), MUON),
    "optim.muon_weight_decay": Switch((0.9,), MUON),
    "optim.grad_clip": Switch((0.05,), {"optim.name": "sgd"}),
    "optim.sharpness": Switch(("sam", "asam")),
    "optim.rho": Switch((0.5,), {"optim.sharpness": "asam"}),
    "schedule.name": Switch(("constant", "linear", "restarts", "wsd"), {"schedule.cycles": 2}, "lr"),
    "schedule.warmup": Switch((2, 0.5), {}, "lr"),
    "schedule.min_lr": Switch((1e-3,), {}, "lr"),
    "schedule.weight_decay": Switch(("linear", "cosine"), {"optim.weight_decay": 0.5}),
    "schedule.decay_frac": Switch((0.6,), {"schedule.name": "wsd"}, "lr"),
    "schedule.cycles": Switch((2,), {"schedule.name": "restarts"}, "lr"),
    "train.epochs": Switch((3,), {}, "lr"),
    "train.seed": Switch((7,)),
    "train.precision": Switch(("bfloat16",)),
    "train.label_smoothing": Switch((0.1,)),
    "train.rdrop": Switch((1.0,)),
    "train.rdrop_from": Switch((0.2,), {"train.rdrop": 1.0}),
    "train.ema": Switch((0.9,), {}, "scores"),
    "datastore.weight": Switch((0.3,), {}, "scores"),
    "datastore.sharpness": Switch((5.0,), {"datastore.weight": 0.3}, "scores"),
    "datastore.width": Switch((4,), {"datastore.weight": 0.3}, "scores"),
    "train.from_data": Switch((("batches.batch_size",),)),
    "batches.mode": Switch(("stream", "documents")),
    "batches.block_size": Switch((12,)),
    "batches.batch_size": Switch((12,)),
    "tokenizer.kind": Switch(("unigram", "character", "gpt2"), {"tokenizer.vocab_size": 400}, "ids"),
    "tokenizer.case": Switch(("factored",), {}, "ids"),
    "tokenizer.vocab_size": Switch((400,), {}, "ids"),
    "tokenizer.fit_on": Switch(("train+validation",), {"tokenizer.vocab_size": 400}, "ids"),
    "tokenizer.byte_alphabet": Switch(("seen",), {}, "ids"),
    "tokenizer.whole_pieces": Switch((("Show HN",),), {}, "ids"),
}

NO_ARITHMETIC: dict[str, tuple[Any, ...]] = {
    "train.evals_per_epoch": (3,),
    "train.checkpoint_every": (1,),
    "train.log_every": (1,),
    "train.memory_limit": (),
    "train.device": (),
    "train.threads": (),
    "train.compile": (),
    "tokenizer.path": (),
}
"""Fields that change no arithmetic, with values under which a run keeps its bits.

Those without a value may change roundings: they say on what, by how many threads and in how many parts a step is computed.
tokenizer.path says where GPT-2's files lie.
"""

CHOICES_THAT_ARE_OTHERS = {"train.precision": {"auto"}}
"""Values that stand for one of the others, which one depends on the machine."""


def values_of(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values of a tiny recipe of a few steps, with settings ("section.field") on top."""
    values = tiny_values(None, data={"num_titles": 60}, train={"epochs": 1, "evals_per_epoch": 1})
    for place, value in settings.items():
        section, _, field = place.partition(".")
        values.setdefault(section, {})[field] = value
    return values


def recipe_of(settings: Mapping[str, Any]) -> Recipe:
    return Recipe.model_validate(values_of(settings))


def trained(settings: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """A whole run: what the log says of its steps, and the loss after the last."""
    scores = train(recipe_of(settings), run).as_dict()
    steps = [event for event in RunFolder.open(run).metrics() if event["event"] == "training_step"]
    return {
        "losses": [step["loss"] for step in steps],
        "lr": [step["lr"] for step in steps],
        "scores": scores["loss"],
    }


def ids(settings: Mapping[str, Any]) -> list[list[int]]:
    """Of the training documents; enough of them for a vocabulary of pieces."""
    recipe = recipe_of({**settings, "data.num_titles": 1000})
    corpus = load_corpus(recipe.data)
    return list(tokenizer_for(corpus, recipe.tokenizer).encode_each(corpus.split("train")))


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run without a switch, made once for each set of other settings."""
    made: dict[str, dict[str, Any]] = {}

    def run(settings: Mapping[str, Any]) -> dict[str, Any]:
        key = repr(sorted(settings.items()))
        if key not in made:
            made[key] = trained(settings, tmp_path_factory.mktemp("without") / "run")
        return made[key]

    return run


def fields() -> dict[str, Any]:
    """Every field of the sections at hand, "section.field", with its type."""
    return {
        f"{section}.{field}": about.annotation
        for section in SECTIONS
        for field, about in type(getattr(Recipe(), section)).model_fields.items()
    }


def test_every_field_of_the_recipe_is_in_one_table() -> None:
    assert not SWITCHES.keys() & NO_ARITHMETIC.keys()
    assert SWITCHES.keys() | NO_ARITHMETIC.keys() == fields().keys()


def test_a_field_that_names_kinds_is_tried_with_all_of_them() -> None:
    for place, switch in SWITCHES.items():
        kind = fields()[place]
        if get_origin(kind) is Literal:
            tiny = recipe_of(switch.given).value(place)
            named = set(get_args(kind)) - CHOICES_THAT_ARE_OTHERS.get(place, set())
            assert {tiny, *switch.values} == named, place


def test_what_has_no_effect_in_the_recipe_changes_no_arithmetic_here() -> None:
    """The fingerprint leaves such fields out, so two runs that differ in them alone count as the same."""
    inside = {place for place in WITHOUT_EFFECT if place.partition(".")[0] in SECTIONS}
    assert inside <= NO_ARITHMETIC.keys()


CASES = [(place, value) for place, switch in SWITCHES.items() for value in switch.values]


@pytest.mark.parametrize(("place", "value"), CASES, ids=lambda part: str(part).replace(" ", ""))
def test_a_switch_changes_what_is_trained(place: str, value: Any, without: Any, tmp_path: Path) -> None:
    switch = SWITCHES[place]
    assert value != recipe_of(switch.given).value(place)
    if value in ("lion", "soap"):
        pytest.importorskip("pytorch_optimizer")
    switched = {**switch.given, place: value}
    if value == "gpt2":
        switched |= {"tokenizer.path": gpt2_files(), "tokenizer.vocab_size": GPT2_VOCABULARY}
    assert place not in [field for field, _ in recipe_of(switched).unread()]
    if switch.changes == "ids":
        assert ids(switch.given) != ids(switched)
        return
    before, after = without(switch.given), trained(switched, tmp_path / "run")
    assert len(before["losses"]) >= 4
    if switch.changes == "losses":
        assert before["losses"][1:3] != after["losses"][1:3]
    else:
        assert before[switch.changes] != after[switch.changes]
    if switch.changes == "scores":
        assert before["losses"] == after["losses"]


@pytest.mark.parametrize(
    ("place", "value"), [(place, value) for place in NO_ARITHMETIC for value in NO_ARITHMETIC[place]]
)
def test_what_changes_no_arithmetic_keeps_the_bits(place: str, value: Any, without: Any, tmp_path: Path) -> None:
    assert value != recipe_of({}).value(place)
    assert trained({place: value}, tmp_path / "run") == without({})


SIZES = {f"model.{name}" for name in ("n_layer", "n_head", "d_model", "embedding_width", "members")}
NOT_IN_FORWARD = {f"model.{name}" for name in ("init", "dropout", "word_dropout", "word_replacement")}
IN_FORWARD = [case for case in CASES if case[0].startswith("model.") and case[0] not in SIZES | NOT_IN_FORWARD]


def a_gpt(settings: Mapping[str, Any]) -> GPT:
    switches = {place.removeprefix("model."): value for place, value in settings.items()}
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"n_layer": 2, "n_head": 2, "d_model": 16, "dropout": 0.0, **switches})
    return GPT(config, VOCAB, BLOCK, EOS).eval()


@torch.no_grad()
@pytest.mark.parametrize(("place", "value"), IN_FORWARD)
def test_a_switch_of_the_model_acts_on_the_same_weights(place: str, value: Any) -> None:
    """Apart from the initial weights, which one more parameter draws otherwise."""
    given = SWITCHES[place].given
    one, other = a_gpt(given), a_gpt({**given, place: value})
    for parameter in one.parameters():
        nn.init.normal_(parameter, std=0.4)
    other.load_state_dict(one.state_dict(), strict=False)
    ids_BT = torch.randint(2, VOCAB, (3, BLOCK))
    logits, switched = one(ids_BT), other(ids_BT)
    assert (logits - switched).abs().max() > 0.01 * logits.abs().max()


def test_replaced_tokens_are_any_but_an_end_and_only_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of them is, and the ends that there are stay; R-Drop's second pass replaces others."""
    model = a_gpt({"model.word_replacement": 0.3})
    seen: list[Tensor] = []
    look_up = type(model.token_emb).forward

    def watched(self: nn.Embedding, x_N: Tensor) -> Tensor:
        seen.append(x_N)
        return look_up(self, x_N)

    monkeypatch.setattr(type(model.token_emb), "forward", watched)
    ids_BT = torch.randint(2, VOCAB, (2000, BLOCK))
    ids_BT[:, ::4] = EOS
    model(ids_BT)
    assert torch.equal(seen[0], ids_BT.flatten())
    model.train()
    for _ in range(2):
        model(ids_BT)
    for found in seen[1:]:
        changed = (found != ids_BT.flatten()).view_as(ids_BT)
        assert not changed[:, ::4].any()
        inside = torch.ones(BLOCK, dtype=torch.bool)
        inside[::4] = False
        # a token is replaced by itself once in VOCAB - 1 times
        assert changed[:, inside].float().mean() == pytest.approx(0.3 * (1 - 1 / (VOCAB - 1)), abs=0.01)
        assert set(found.view_as(ids_BT)[changed].tolist()) == set(range(VOCAB)) - {EOS}
    assert not torch.equal(seen[1], seen[2])


def test_qk_norm_normalises_each_heads_queries_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Tensor] = []
    attend = attention.attend

    def watched(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, *more: Any) -> Tensor:
        taken.extend((q_BHTK, k_BHSK, v_BHSK))
        return attend(q_BHTK, k_BHSK, v_BHSK, *more)

    monkeypatch.setattr(attention, "attend", watched)
    monkeypatch.setattr(attention, "written_out", lambda _: False)
    layer: Any = CausalSelfAttention(ModelConfig(n_head=2, d_model=16, dropout=0.0, qk_norm=True), BLOCK)
    nn.init.constant_(layer.q_norm.weight, 3.0)
    x_ND = torch.randn(2 * BLOCK, 16)
    layer(x_ND, Layout.full(2, BLOCK))
    q, k, v = layer.qkv(x_ND).view(2, BLOCK, 3, 2, 8).permute(2, 0, 3, 1, 4)
    for found, raw, gain in zip(taken[:2], (q, k), (3.0, 1.0), strict=True):
        assert torch.allclose(found, gain * raw / raw.square().mean(dim=-1, keepdim=True).sqrt(), atol=1e-5)
    assert torch.equal(taken[2], v)


@pytest.mark.parametrize("base", [50.0, 10_000.0])
def test_rope_base_sets_the_angles(base: float) -> None:
    """Channel pair i of K/2 turns by t * base^(-2i / K) at position t, also where a cache holds those before it."""
    model: Any = a_gpt({"model.positions": "rotary", "model.rope_base": base, "model.n_head": 2})
    K = 8
    unit_TK = torch.zeros(BLOCK, K)
    unit_TK[:, : K // 2] = 1.0
    angles = torch.arange(BLOCK)[:, None] * base ** (-2 * torch.arange(K // 2) / K)
    for block in model.blocks:
        cos_sin = block.attn.rotary(unit_TK[None, None])[0, 0]
        assert torch.allclose(cos_sin, torch.cat([angles.cos(), angles.sin()], dim=1), atol=1e-5)
        assert torch.equal(block.attn.rotary(unit_TK[None, None, :1], start=7)[0, 0, 0], cos_sin[7])


def gradients(shape: torch.Size, count: int) -> list[Tensor]:
    torch.manual_seed(5)
    return [torch.randn(shape) for _ in range(count)]


def test_muons_settings_reach_its_matrices() -> None:
    """Three steps by hand: Nesterov momentum, orthogonalised, and decay by its own rate; both scaled by the schedule."""
    lr, momentum, decay = 0.03, 0.7, 0.4
    config = OptimConfig(name="muon", lr=1.0, muon_lr=lr, muon_momentum=momentum, muon_weight_decay=decay)
    model: Any = a_gpt({})
    optimizer, weight = make_optimizer(model, config), model.blocks[0].attn.proj.weight
    expected, buffer = weight.detach().clone(), torch.zeros_like(weight)
    for gradient in gradients(weight.shape, 3):
        weight.grad = gradient.clone()
        optimizer.step(0.5, 0.25)
        buffer = momentum * buffer + (1 - momentum) * gradient
        ahead = momentum * buffer + (1 - momentum) * gradient
        update = orthogonalise(ahead[None].clone(), steps=5)[0]
        expected = expected * (1 - 0.5 * lr * 0.25 * decay) - 0.5 * lr * update
    assert isinstance(optimizer.parts[0], Muon)
    assert torch.allclose(weight, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_adamws_settings_reach_what_it_takes_care_of(name: Literal["adamw", "muon"]) -> None:
    """Three steps by hand, with bias correction and decoupled decay (Loshchilov & Hutter 2019, algorithm 2)."""
    lr, betas, decay = 0.02, (0.6, 0.8), 0.3
    config = OptimConfig(name=name, lr=lr, betas=betas, weight_decay=decay, muon_lr=1.0, muon_weight_decay=0.0)
    model = a_gpt({})
    optimizer, weight = make_optimizer(model, config), model.token_emb.weight
    expected, first, second = weight.detach().clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    for step, gradient in enumerate(gradients(weight.shape, 3), start=1):
        weight.grad = gradient.clone()
        optimizer.step(0.5, 0.25)
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient.square()
        direction = first / (1 - betas[0] ** step) / ((second / (1 - betas[1] ** step)).sqrt() + 1e-8)
        expected = expected * (1 - 0.5 * lr * 0.25 * decay) - 0.5 * lr * direction
    assert torch.allclose(weight, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [True, False])
def test_each_group_has_its_learning_rate(name: Literal["adamw", "muon"], tied: bool) -> None:
    """Every parameter is in one group, at the rate of what it is, and the schedule scales all of them."""
    model = a_gpt({"model.tied_head": tied, "model.output_gate": True, "model.layer_scale": 0.1, "model.qk_norm": True})
    config = OptimConfig(
        name=name, lr=0.01, muon_lr=0.03, embedding_lr_factor=2, head_lr_factor=3, gain_lr_factor=5, decay="matrices"
    )
    optimizer = make_optimizer(model, config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.5)
    rates = {names[id(one)]: group["lr"] for group in optimizer.groups() for one in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.groups()) == len(rates) == len(names)
    for place, rate in rates.items():
        if place in ("token_emb.weight", "pos_emb"):
            expected = 0.02
        elif place == "head.weight":
            expected = 0.03
        elif any(part in place for part in ("bias", "ln", "norm", "scale", "gate")):
            expected = 0.05
        else:
            expected = 0.03 if name == "muon" else 0.01
        assert rate == pytest.approx(0.5 * expected), place


@pytest.mark.parametrize("falls", ["constant", "linear"])
def test_the_applied_shrink_is_what_weights_lose_without_gradients(falls: Literal["constant", "linear"]) -> None:
    config = OptimConfig(name="muon", lr=0.01, weight_decay=0.3, muon_lr=0.02, muon_weight_decay=0.5)
    schedule = ScheduleConfig(name="wsd", warmup=20, min_lr=1e-3, weight_decay=falls)
    model: Any = a_gpt({})
    before = copy.deepcopy(model)
    optimizer = make_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for step in range(1, 201):
        optimizer.step(lr_scale(step, 200, schedule, config.lr), decay_scale(step, 200, schedule))
    shrink = applied_shrink(config, schedule, 200)
    assert 0.1 < shrink["others"] < shrink["matrices"] < 4
    for name, weight, was in (
        ("matrices", model.blocks[0].attn.proj.weight, before.blocks[0].attn.proj.weight),
        ("others", model.token_emb.weight, before.token_emb.weight),
    ):
        assert float((weight / was).log().mean().detach()) == pytest.approx(-shrink[name], rel=0.01)
    assert applied_shrink(OptimConfig(lr=1e-3, weight_decay=0.1), ScheduleConfig(name="constant"), 1000) == {
        "weights": pytest.approx(0.1)
    }


def test_sgd_adds_its_decay_to_the_gradient() -> None:
    model = a_gpt({})
    weight = model.token_emb.weight
    before, (gradient,) = weight.detach().clone(), gradients(weight.shape, 1)
    weight.grad = gradient.clone()
    make_optimizer(model, OptimConfig(name="sgd", lr=0.2, weight_decay=0.3)).step(0.5)
    assert torch.allclose(weight, before - 0.5 * 0.2 * (gradient + 0.3 * before), atol=1e-6)


def after_a_step(settings: Mapping[str, Any], run: Path) -> Tensor:
    """All weights after one step, in one vector."""
    train(recipe_of(settings), run, max_steps=1)
    checkpoint, _ = newest_checkpoint(RunFolder.open(run))
    assert checkpoint is not None
    weights = load_file(checkpoint.path / "model.safetensors")
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def test_a_clipped_update_is_that_of_the_gradient_scaled_to_the_norm(tmp_path: Path) -> None:
    """SGD at a rate of 1: the weights move by the gradient, and by a gradient of the largest norm where it is longer."""
    plain = {"optim.name": "sgd", "optim.lr": 1.0, "schedule.name": "constant"}
    recipe = recipe_of(plain)
    tokenizer = tokenizer_for(load_corpus(recipe.data), recipe.tokenizer)
    torch.manual_seed(recipe.train.seed)
    initial = make_model(recipe, tokenizer.vocab_size, tokenizer.eos).state_dict()
    before = torch.cat([initial[name].flatten() for name in sorted(initial)])
    gradient = before - after_a_step({**plain, "optim.grad_clip": 1e6}, tmp_path / "whole")
    norm = gradient.norm().item()
    (step,) = [e for e in RunFolder.open(tmp_path / "whole").metrics() if e["event"] == "training_step"]
    assert step["grad_norm"] == pytest.approx(norm, rel=1e-4)
    clip = norm / 10
    clipped = before - after_a_step({**plain, "optim.grad_clip": clip}, tmp_path / "clipped")
    assert torch.allclose(clipped, gradient * clip / norm, atol=1e-6)
    assert clipped.norm().item() == pytest.approx(clip, rel=1e-3)
    left_alone = before - after_a_step({**plain, "optim.grad_clip": 10 * norm}, tmp_path / "left")
    assert torch.equal(left_alone, gradient), "a shorter gradient stays as it is"
