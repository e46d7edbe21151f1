"""The losses are what their definitions say, and nothing that should not move them does."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shortrun.errors import UserError
from shortrun.model.gpt import GPT
from shortrun.recipe import ModelConfig
from shortrun.recipe import Tokenizer as TokenizerSettings
from shortrun.score.evaluate import ScoringSet, Share, official_loss, title_nats
from shortrun.score.intervals import bootstrap_interval
from shortrun.score.losses import joined_bytes, joined_characters, token_nats
from shortrun.tokens.bpe import train_bpe
from shortrun.tokens.tokenizer import Tokenizer

EOS, VOCAB, BLOCK = 1, 40, 12


def a_model(dtype: torch.dtype = torch.float64, seed: int = 0) -> GPT:
    """A random GPT whose predictions vary a lot, so that a token left out or scored twice shows."""
    torch.manual_seed(seed)
    model = GPT(ModelConfig(n_layer=2, n_head=2, d_model=16, dropout=0.3), VOCAB, BLOCK, EOS)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.to(dtype)


def some_titles(count: int, longest: int = 3 * BLOCK, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(2, VOCAB, size=rng.integers(0, longest)).tolist() for _ in range(count)]


class Uniform(nn.Module):
    """Predicts every token alike."""

    def __init__(self, vocab: int = VOCAB) -> None:
        super().__init__()
        self.vocab = vocab

    def forward(self, x_BT: Tensor) -> Tensor:
        return torch.zeros(*x_BT.shape, self.vocab, dtype=torch.float64)


def nats_one_by_one(model: nn.Module, ids: Sequence[int]) -> float:
    """-log p of one title by the definition: one target at a time, with the context its window gives it."""
    inputs, targets = [EOS, *ids], [*ids, EOS]
    total = 0.0
    for position, target in enumerate(targets):
        if position < BLOCK:
            start = 0
        else:  # the first later window (they start every half block) that reaches this position
            windows = math.ceil((position - BLOCK + 1) / (BLOCK // 2))
            start = windows * (BLOCK // 2)
        with torch.no_grad():
            logits = model(torch.tensor([inputs[start : position + 1]]))[0, -1]
        total -= float(torch.log_softmax(logits.double(), dim=-1)[target])
    return total


def test_each_title_costs_what_the_definition_says() -> None:
    model, encoded = a_model().eval(), some_titles(25)
    nats = title_nats(model, encoded, eos=EOS, block_size=BLOCK)
    assert nats == pytest.approx([nats_one_by_one(model, ids) for ids in encoded], rel=1e-10)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), batch_tokens=st.sampled_from([1, 64, 64 * BLOCK, 10**6]))
def test_batches_padding_and_order_do_not_move_the_loss(seed: int, batch_tokens: int) -> None:
    model, encoded = a_model(), some_titles(64, seed=seed)
    alone = title_nats(model, encoded, eos=EOS, block_size=BLOCK, batch_tokens=1)  # one row at a time, no padding
    together = title_nats(model, encoded, eos=EOS, block_size=BLOCK, batch_tokens=batch_tokens)
    assert together == pytest.approx(alone, rel=1e-9)
    order = np.random.default_rng(seed).permutation(len(encoded))
    shuffled = title_nats(model, [encoded[i] for i in order], eos=EOS, block_size=BLOCK, batch_tokens=batch_tokens)
    assert math.fsum(shuffled) == pytest.approx(math.fsum(alone), rel=1e-9)


def test_another_title_does_not_move_a_titles_nats() -> None:
    model, encoded = a_model(), some_titles(30)
    before = title_nats(model, encoded, eos=EOS, block_size=BLOCK)
    changed = [[5] * (len(ids) % 7) if index == 3 else ids for index, ids in enumerate(encoded)]
    after = title_nats(model, changed, eos=EOS, block_size=BLOCK)
    assert np.delete(after, 3) == pytest.approx(np.delete(before, 3), rel=1e-10)
    assert after[3] != pytest.approx(before[3], rel=1e-3)


def _score_shard(shard: tuple[int, int]) -> list[float]:
    torch.set_num_threads(1)
    share = Share(*shard)
    nats = title_nats(a_model(torch.float32), some_titles(80), eos=EOS, block_size=BLOCK, batch_tokens=96, share=share)
    values: list[float] = nats.tolist()
    return values


def test_two_processes_score_exactly_what_one_does() -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        halves = pool.map(_score_shard, [(0, 2), (1, 2)])
        (whole,) = pool.map(_score_shard, [(0, 1)])
    assert all(any(value == 0 for value in half) for half in halves), "each process did only a part"
    assert np.array(halves).sum(axis=0).tolist() == whole


def test_a_uniform_model_costs_log_vocabulary_a_token() -> None:
    encoded = some_titles(40)
    nats = title_nats(Uniform(), encoded, eos=EOS, block_size=BLOCK)
    assert nats == pytest.approx([(len(ids) + 1) * math.log(VOCAB) for ids in encoded], rel=1e-12)


def test_the_end_is_charged() -> None:
    class NeverEnds(Uniform):
        def forward(self, x_BT: Tensor) -> Tensor:
            logits = super().forward(x_BT)
            logits[..., EOS] = -20.0
            return logits

    uniform = title_nats(Uniform(), [[5, 6, 7]], eos=EOS, block_size=BLOCK)[0]
    stubborn = title_nats(NeverEnds(), [[5, 6, 7]], eos=EOS, block_size=BLOCK)[0]
    # three tokens a little cheaper (one rival less), one end 20 nats dearer
    assert stubborn - uniform == pytest.approx(20.0 + 4 * math.log((VOCAB - 1 + math.exp(-20)) / VOCAB), rel=1e-9)


class _Ids(nn.Module):
    """Random logits that depend on the input token only, so a plain re-derivation can look them up."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(3))

    def forward(self, x_BT: Tensor) -> Tensor:
        return self.table[x_BT]


@given(length=st.integers(0, 300), block=st.integers(1, 9), rows=st.integers(1, 9))
def test_the_official_loss_against_a_plain_re_derivation(length: int, block: int, rows: int) -> None:
    model = _Ids()
    ids = np.random.default_rng(length).integers(0, VOCAB, size=length).tolist()
    total, scored, start = 0.0, 0, 0
    while start + block * rows + 1 <= length:  # whole spans only; the next begins after this one's last target
        for position in range(start, start + block * rows):
            total += float(F.cross_entropy(model.table[ids[position]].double(), torch.tensor(ids[position + 1])))
            scored += 1
        start += block * rows + 1
    official = official_loss(model, ids, 1000, block_size=block, batch_size=rows)
    assert official.loss == pytest.approx(total / 1000, rel=1e-5)
    assert official.targets_scored == scored
    assert official.coverage == (scored / (length - 1) if length > 1 else 0.0)


def test_coverage_falls_as_batches_grow_while_the_loss_stays() -> None:
    model, encoded = a_model(), some_titles(300, longest=15)
    stream = [token for ids in encoded for token in [*ids, EOS]]
    sizes = (16, 128, 256)
    official = [official_loss(model, stream, 9000, block_size=BLOCK, batch_size=rows) for rows in sizes]
    assert official[0].coverage > 0.9
    assert 0.5 < official[1].coverage < 0.75
    assert official[1].loss < 0.8 * official[0].loss, "what is not covered is free"
    assert (official[2].coverage, official[2].loss) == (0.0, 0.0), "no span of this size fits: the original's loss is 0"
    losses = [
        math.fsum(title_nats(model, encoded, eos=EOS, block_size=BLOCK, batch_tokens=rows * BLOCK)) for rows in sizes
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-9)


def test_token_nats_are_cross_entropy_and_padding_is_free() -> None:
    logits, targets = torch.randn(3, 4, VOCAB), torch.randint(0, VOCAB, (3, 4))
    nats = token_nats(logits, targets)
    assert nats.dtype == torch.float64
    expected = -torch.log_softmax(logits.double(), -1).gather(-1, targets[..., None])[..., 0]
    assert torch.allclose(nats, expected, atol=1e-5)
    targets[1, 2] = -100
    assert token_nats(logits, targets)[1, 2] == 0


def test_denominators_come_from_the_text() -> None:
    made = ["Zürich 🚀", "<eos>", ""]
    assert joined_characters(made) == len("<eos>".join(made) + "<eos>") == 8 + 5 + 0 + 15
    assert joined_bytes(made) == len("\n".join(made).encode()) + 1


@pytest.fixture(scope="module")
def tokenizer(titles: list[str]) -> Tokenizer:
    return train_bpe(titles, TokenizerSettings(vocab_size=300))


def test_all_numbers_of_a_scored_set_belong_together(tokenizer: Tokenizer, titles: list[str]) -> None:
    model: Any = Uniform(tokenizer.vocab_size)
    model.block_size = 32
    loss = ScoringSet(tokenizer, titles).loss(model, batch_tokens=500)
    assert loss.titles == len(titles)
    assert loss.targets == sum(len(tokenizer.encode(title)) + 1 for title in titles)
    assert loss.nats == pytest.approx(loss.targets * math.log(tokenizer.vocab_size))
    assert loss.perplexity == pytest.approx(tokenizer.vocab_size)
    assert loss.loss == loss.nats / joined_characters(titles)
    assert loss.bits_per_byte == loss.nats / math.log(2) / joined_bytes(titles)


def test_a_broken_tokenizer_gets_no_loss(
    tokenizer: Tokenizer, titles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids: decode(ids).lower())
    with pytest.raises(UserError, match=r"does not give back.*\n.*Zürich|does not give back.*\n.*[A-Z]"):
        ScoringSet(tokenizer, titles)


def test_scoring_leaves_the_model_as_it_was() -> None:
    model = a_model().train()
    first, second = (title_nats(model, some_titles(5), eos=EOS, block_size=BLOCK) for _ in range(2))
    assert model.training
    assert first.tolist() == second.tolist(), "dropout is off while scoring"


def test_the_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    """Of 200 samples from a known distribution, the 95 % interval holds the true ratio in about 190."""
    rng, held = np.random.default_rng(0), 0
    for seed in range(200):
        characters = rng.integers(20, 80, size=120)
        nats = characters * rng.normal(1.3, 0.4, size=120)  # true loss 1.3
        low, high = bootstrap_interval(nats, characters, seed=seed)
        held += low <= 1.3 <= high
    assert 180 <= held <= 198
