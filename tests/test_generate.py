"""Sampling with cached keys and values gives what the whole row, computed anew for each token, would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shortrun.model.generate import Draw, _draw, _weights, generate, generate_steps
from shortrun.model.gpt import GPT
from shortrun.recipe import ModelConfig
from tests.conftest import EVERY_MODEL

EOS, VOCAB, BLOCK = 1, 24, 12
BANNED = [0, 2]
UNTIED = {"tied_head": False}  # else an untrained model says its last token again and again
SWITCHES = [{}, *({name: value} for name, value in EVERY_MODEL.items()), {"mlp": "relu2"}, EVERY_MODEL]


def a_gpt(**switches: Any) -> GPT:
    torch.manual_seed(1)
    settings = {"n_layer": 2, "n_head": 2, "d_model": 16, "dropout": 0.1} | switches
    model = GPT(ModelConfig.model_validate(settings), VOCAB, BLOCK, EOS)
    for parameter in model.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)
    return model.eval()


def documents(model: GPT, prefix: list[int], **changes: Any) -> list[list[int]]:
    settings = {"count": 8, "temperature": 1.0, "seed": 3, "max_tokens": len(prefix) + 2 * BLOCK} | changes
    return generate(model, prefix, eos=EOS, banned=BANNED, **settings)


@torch.no_grad()
def naive_document(model: GPT, prefix: list[int], n: int, *, temperature: float, seed: int = 3) -> list[int]:
    """The n-th document, every token from the last BLOCK tokens anew."""
    ids, uniforms = [EOS, *prefix], np.random.default_rng([seed, n])
    for _ in range(2 * BLOCK):
        logits = model(torch.tensor([ids[-BLOCK:]]))[0, -1]
        logits[BANNED] = -torch.inf
        token = int(logits.argmax())
        if temperature:
            passed = torch.softmax(logits.double() / temperature, -1).cumsum(-1).numpy()
            token = int((passed <= uniforms.random()).sum())
        if token == EOS:
            break
        ids.append(token)
    return ids[1:]


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: " ".join(switches) if len(switches) < 2 else "all")
@pytest.mark.parametrize("kernel", [False, True])
@torch.no_grad()
def test_cached_logits_are_the_uncached_ones(
    switches: dict[str, Any], kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After prompts of one token and of more, and after rows have been dropped; in both of attention's ways."""
    if kernel:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    model = a_gpt(**switches)
    for prompt in (1, 5):
        ids = torch.randint(2, VOCAB, (6, BLOCK))
        ids[:, 0] = EOS
        cache = model.new_cache()
        for seen in range(prompt, BLOCK + 1):
            logits_B1V = model(ids[:, cache.length : seen], cache)
            assert logits_B1V.shape[1] == 1
            logits = logits_B1V[:, -1]
            assert cache.length == seen
            assert torch.allclose(logits, model(ids[:, :seen])[:, -1], rtol=1e-5, atol=1e-5)
            if seen in (7, 9):
                kept = torch.arange(len(ids)) % 3 != 1
                ids = ids[kept]
                cache.keep(kept)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "switches", [UNTIED, UNTIED | {"positions": "rotary"}, EVERY_MODEL], ids=["learned", "rotary", "all"]
)
def test_documents_are_the_naive_ones(switches: dict[str, Any], temperature: float) -> None:
    """Those that end soon, and those that outgrow the block, where the window slides; a prefix may outgrow it too."""
    model, lengths = a_gpt(**switches), []
    long_prefix = [3 + n % 20 for n in range(BLOCK + 3)]
    for prefix in ([], [5], [6, 7, 8], [9] * (BLOCK - 1), long_prefix):
        found = documents(model, prefix, temperature=temperature)
        assert found == [naive_document(model, prefix, n, temperature=temperature) for n in range(8)]
        assert temperature or found == found[:1] * 8
        lengths += [len(document) - len(prefix) for document in found]
    assert max(lengths) > BLOCK
    assert not temperature or (min(lengths) <= 4 and len(set(lengths)) >= 5)


def test_a_document_depends_on_its_index_and_the_seed_alone() -> None:
    model = a_gpt()
    eight = documents(model, [5, 6])
    assert documents(model, [5, 6]) == eight
    assert documents(model, [5, 6], count=3) == eight[:3]
    assert documents(model, [5, 6], count=40)[:8] == eight
    assert documents(model, [5, 6], max_tokens=6) == [document[:6] for document in eight]
    assert len({tuple(document) for document in eight}) > 5
    assert documents(model, [5, 6], seed=4) != eight
    assert documents(model, [5, 6], max_tokens=2) == [[5, 6]] * 8


def test_each_step_computes_the_newest_token_of_the_documents_that_go_on() -> None:
    model, shapes, computed = a_gpt(), [], []
    model.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    model.token_emb.register_forward_hook(lambda _, inputs, __: computed.append(inputs[0].numel()))
    lengths = [len(document) for document in documents(model, [5, 6])]
    going = [sum(length >= 2 + step for length in lengths) for step in range(2 * BLOCK)]
    assert going[0] == 8
    assert going[5] < 8
    wanted = [(8, 3), *((rows, 1) for rows in going[1 : BLOCK - 2]), *((rows, BLOCK) for rows in going[BLOCK - 2 :])]
    assert shapes == [shape for shape in wanted if shape[0]]
    assert computed == [rows * width for rows, width in shapes]


@pytest.mark.parametrize("temperature", [1e-45, 0.5, 1.0, 1e9])
def test_banned_ids_are_never_drawn(temperature: float) -> None:
    drawn = {token for document in documents(a_gpt(), [], count=100, temperature=temperature) for token in document}
    assert not drawn & {EOS, *BANNED}
    assert temperature < 1 or len(drawn) == VOCAB - 3


def test_the_ends_of_the_unit_interval_draw_what_can_be_drawn() -> None:
    never = -torch.inf
    logits = torch.tensor([[never, 0.3, never, 0.3, never]]).repeat(4, 1)
    uniforms = torch.tensor([0.0, 0.5 - 2**-54, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert _draw(logits, Draw(), uniforms).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    """One step of 20,000 documents: chi-squared against the expected counts, which 1 in 10,000 right samplers would fail."""
    model, count = a_gpt(), 20_000
    with torch.no_grad():
        logits = model(torch.tensor([[EOS, 5]]))[0, -1].double()
    logits[BANNED] = -torch.inf
    expected = count * torch.softmax(logits / temperature, -1)
    drawn = [
        document[1] if len(document) == 2 else EOS
        for document in documents(model, [5], count=count, max_tokens=2, temperature=temperature)
    ]
    counts = torch.bincount(torch.tensor(drawn), minlength=VOCAB)
    often = expected >= 5
    together = torch.stack([expected[~often].sum(), counts[~often].sum()])
    assert abs(float(together[1] - together[0])) <= 5 * float(together[0].sqrt()) + 1
    chi2, freedom = float(((counts - expected)[often] ** 2 / expected[often]).sum()), int(often.sum()) - 1
    normal = ((chi2 / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / (2 / (9 * freedom)) ** 0.5  # Wilson and Hilferty
    assert freedom > 5
    assert normal < 3.72


def test_documents_come_as_they_end() -> None:
    """Each once, at the step of its last token; those that reach the limit at the end. They are those of `generate`."""
    model = a_gpt()
    steps = list(
        generate_steps(model, [5], count=8, eos=EOS, banned=BANNED, draw=Draw(), seed=3, max_tokens=8, first=40)
    )
    found = {n: ids for step in steps for n, ids in step}
    assert sum(map(len, steps)) == len(found) == 8
    assert [found[n] for n in range(40, 48)] == documents(model, [5], first=40, max_tokens=8)
    assert all(len(ids) == 1 + at for at, step in enumerate(steps) for _, ids in step)
    assert any(steps[:-1])
    assert steps[-1]


WEIGHTS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30)


@settings(deadline=None)
@given(WEIGHTS, st.integers(1, 35), st.floats(0.001, 1), st.sampled_from([0.3, 1.0, 3.0]))
def test_what_may_be_drawn(logits: list[float], k: int, p: float, temperature: float) -> None:
    """The fewest likeliest of the k likeliest that reach p of their probability; their weights stay what they were."""
    scaled = torch.tensor([logits], dtype=torch.float64) / temperature
    kept, weights = _weights(scaled, Draw(temperature, k, p))[0], scaled.exp()
    stays, V = kept > 0, len(logits)
    assert torch.equal(kept[stays], weights[0][stays])
    assert 1 <= int(stays.sum()) <= min(k, V)
    assert stays.all() or kept[stays].min() >= weights[0][~stays].max()
    among = weights[0].sort(descending=True).values[: min(k, V)].sum()
    assert kept.sum() >= p * among * (1 - 1e-12)
    assert kept.sum() - kept[stays].min() <= p * among * (1 + 1e-12)


@settings(deadline=None)
@example([-3.9e-33, 0.0], 0.0, 1.0)  # exp makes the two equal
@given(WEIGHTS, st.floats(0, 1, exclude_max=True), st.sampled_from([0.3, 1.0, 3.0]))
def test_k_of_one_is_greedy_and_all_of_k_or_p_changes_nothing(
    logits: list[float], uniform: float, temperature: float
) -> None:
    row, at = torch.tensor([logits]), torch.tensor([uniform], dtype=torch.float64)
    greedy, plain = _draw(row, Draw(0.0), at), _draw(row, Draw(temperature), at)
    assert _draw(row, Draw(temperature, top_k=1), at) == greedy
    assert _draw(row, Draw(temperature, top_p=1e-9), at) == greedy
    for k in (None, len(logits), len(logits) + 7):
        assert _draw(row, Draw(temperature, k, 1.0), at) == plain


def test_draws_are_renormalised() -> None:
    logits = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log().repeat(7, 1)
    uniforms = torch.tensor([0.0, 0.55, 0.57, 0.7, 0.72, 0.99, 0.999999], dtype=torch.float64)
    assert _draw(logits, Draw(top_k=2), uniforms).tolist() == [0, 0, 0, 0, 1, 1, 1]  # 5/7 and 2/7
    assert _draw(logits, Draw(top_p=0.9), uniforms).tolist() == [0, 0, 1, 1, 1, 2, 2]  # 5/9, 2/9, 2/9


def test_top_k_and_top_p_reach_the_documents() -> None:
    model = a_gpt()
    assert documents(model, [5], top_k=1) == documents(model, [5], temperature=0.0)
    assert documents(model, [5], top_k=VOCAB, top_p=1.0) == documents(model, [5])
    assert documents(model, [5], top_p=0.5) != documents(model, [5])
