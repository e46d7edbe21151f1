"""The losses are what their definitions say, and nothing that should not move them does."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from shortrun.errors import UserError
from shortrun.model.gpt import GPT
from shortrun.model.language_model import Cache, LanguageModel, LinearHead
from shortrun.recipe import ModelConfig, TokenizerConfig
from shortrun.score import cross_entropy
from shortrun.score.cross_entropy import token_nats
from shortrun.score.evaluate import ScoringSet, Share, document_nats, official_loss
from shortrun.score.intervals import bootstrap_interval
from shortrun.text.corpus import load_corpus
from shortrun.text.documents import Documents
from shortrun.tokens.bpe import train_bpe
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.kinds import make_tokenizer
from shortrun.tokens.rows import IGNORE, Rows
from shortrun.tokens.tokenizer import Tokenizer
from tests.conftest import tiny_recipe

EOS, VOCAB, BLOCK = 1, 40, 12


def a_model(dtype: torch.dtype = torch.float64, seed: int = 0) -> GPT:
    """A random GPT whose predictions vary a lot, so that a token left out or scored twice shows."""
    torch.manual_seed(seed)
    model = GPT(ModelConfig(n_layer=2, n_head=2, d_model=16, dropout=0.3), VOCAB, BLOCK, EOS)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.to(dtype)


def some_documents(count: int, longest: int = 3 * BLOCK, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(2, VOCAB, size=rng.integers(0, longest)).tolist() for _ in range(count)]


def nats_of(
    model: LanguageModel, encoded: Sequence[Sequence[int]], *, tokens_at_once: int = 2048, share: Share | None = None
) -> NDArray[np.float64]:
    return document_nats(
        model, EncodedDocuments.of(encoded, EOS), tokens_at_once=tokens_at_once, share=share or Share()
    )


class Headless(LanguageModel):
    """The GPT as a model that says nothing of hidden states or of a head."""

    def __init__(self, gpt: GPT) -> None:
        super().__init__()
        self.gpt, self.block_size, self.vocab_size = gpt, gpt.block_size, gpt.vocab_size

    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:
        logits_BTV: Tensor = self.gpt(x_BT, cache)
        return logits_BTV

    def new_cache(self) -> Cache:
        return self.gpt.new_cache()

    def flops_per_token(self, row_length: float) -> float:
        return self.gpt.flops_per_token(row_length)


class Table(LanguageModel):
    """Logits that follow from the input token alone, so that a plain re-derivation can look them up."""

    def __init__(self, logits_VV: Tensor, block_size: int = BLOCK) -> None:
        super().__init__()
        self.logits_VV, self.block_size, self.vocab_size = logits_VV, block_size, len(logits_VV)

    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:  # noqa: ARG002
        return self.logits_VV[x_BT]

    def new_cache(self) -> Cache:
        raise NotImplementedError

    def flops_per_token(self, row_length: float) -> float:  # noqa: ARG002
        return 0


def uniform(vocab: int = VOCAB) -> Table:
    """Predicts every token alike."""
    return Table(torch.zeros(vocab, vocab, dtype=torch.float64))


def nats_one_by_one(model: LanguageModel, ids: Sequence[int]) -> float:
    """-log p of one document by the definition: one target at a time, with the context its window gives it."""
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


def test_each_document_costs_what_the_definition_says() -> None:
    model, encoded = a_model().eval(), some_documents(25)
    assert nats_of(model, encoded) == pytest.approx([nats_one_by_one(model, ids) for ids in encoded], rel=1e-10)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), tokens_at_once=st.sampled_from([1, 64, 64 * BLOCK, 10**6]))
def test_batches_padding_and_order_do_not_move_the_loss(seed: int, tokens_at_once: int) -> None:
    model, encoded = a_model(), some_documents(64, seed=seed)
    alone = nats_of(model, encoded, tokens_at_once=1)  # one row at a time, no padding
    together = nats_of(model, encoded, tokens_at_once=tokens_at_once)
    assert together == pytest.approx(alone, rel=1e-9)
    order = np.random.default_rng(seed).permutation(len(encoded))
    shuffled = nats_of(model, [encoded[i] for i in order], tokens_at_once=tokens_at_once)
    assert shuffled == pytest.approx(alone[order], rel=1e-9)
    assert math.fsum(shuffled) == pytest.approx(math.fsum(alone), rel=1e-9)


def test_another_document_does_not_move_a_documents_nats() -> None:
    model, encoded = a_model(), some_documents(30)
    before = nats_of(model, encoded)
    changed = [[5] * (len(ids) % 7) if index == 3 else ids for index, ids in enumerate(encoded)]
    after = nats_of(model, changed)
    assert np.delete(after, 3) == pytest.approx(np.delete(before, 3), rel=1e-10)
    assert after[3] != pytest.approx(before[3], rel=1e-3)


def _score_shard(shard: tuple[int, int]) -> list[float]:
    torch.set_num_threads(1)
    nats = nats_of(a_model(torch.float32), some_documents(80), tokens_at_once=96, share=Share(*shard))
    values: list[float] = nats.tolist()
    return values


def test_two_processes_score_exactly_what_one_does() -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        halves = pool.map(_score_shard, [(0, 2), (1, 2)])
        (whole,) = pool.map(_score_shard, [(0, 1)])
    assert all(any(value == 0 for value in half) for half in halves), "each process did only a part"
    assert np.array(halves).sum(axis=0).tolist() == whole


def test_a_uniform_model_costs_log_vocabulary_a_token() -> None:
    encoded = some_documents(40)
    assert nats_of(uniform(), encoded) == pytest.approx(
        [(len(ids) + 1) * math.log(VOCAB) for ids in encoded], rel=1e-12
    )


def test_the_end_is_charged() -> None:
    never_ends = uniform()
    never_ends.logits_VV[:, EOS] = -20.0
    fair, stubborn = (nats_of(model, [[5, 6, 7]])[0] for model in (uniform(), never_ends))
    # three tokens a little cheaper (one rival less), one end 20 nats dearer
    assert stubborn - fair == pytest.approx(20.0 + 4 * math.log((VOCAB - 1 + math.exp(-20)) / VOCAB), rel=1e-9)


@given(length=st.integers(0, 300), block=st.integers(1, 9), rows=st.integers(1, 9))
def test_the_official_loss_against_a_plain_re_derivation(length: int, block: int, rows: int) -> None:
    model = Table(torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(3)))
    stream = np.random.default_rng(length).integers(0, VOCAB, size=length, dtype=np.uint16)
    ids = stream.tolist()
    total, scored, start = 0.0, 0, 0
    while start + block * rows + 1 <= length:  # whole spans only; the next begins after this one's last target
        for position in range(start, start + block * rows):
            total += float(F.cross_entropy(model.logits_VV[ids[position]].double(), torch.tensor(ids[position + 1])))
            scored += 1
        start += block * rows + 1
    official = official_loss(model, stream, 1000, block_size=block, batch_size=rows)
    assert official.loss == pytest.approx(total / 1000, rel=1e-5)
    assert official.targets_scored == scored
    assert official.coverage == (scored / (length - 1) if length > 1 else 0.0)


def test_coverage_falls_as_batches_grow_while_the_loss_stays() -> None:
    model, encoded = a_model(), some_documents(300, longest=15)
    stream = EncodedDocuments.of(encoded, EOS).ids_N
    sizes = (16, 128, 256)
    official = [official_loss(model, stream, 9000, block_size=BLOCK, batch_size=rows) for rows in sizes]
    assert official[0].coverage > 0.9
    assert 0.5 < official[1].coverage < 0.75
    assert official[1].loss < 0.8 * official[0].loss, "what is not covered is free"
    assert (official[2].coverage, official[2].loss) == (0.0, 0.0), "no span of this size fits: the original's loss is 0"
    losses = [math.fsum(nats_of(model, encoded, tokens_at_once=rows * BLOCK)) for rows in sizes]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-9)


@pytest.mark.parametrize("headless", [False, True], ids=["linear head", "no linear head"])
@pytest.mark.parametrize("chunk", [1, 5 * VOCAB, 2**24])
def test_token_nats_are_cross_entropy_and_what_is_not_scored_is_free(
    chunk: int, headless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    model: LanguageModel = Headless(a_model().eval()) if headless else a_model().eval()
    assert isinstance(model, LinearHead) != headless
    x, y = torch.randint(0, VOCAB, (3, BLOCK)), torch.randint(0, VOCAB, (3, BLOCK))
    y[1, 2:] = y[2] = IGNORE
    with torch.no_grad():
        expected = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE, reduction="none")
        nats = token_nats(model, Rows.of(x, y))
        nothing = token_nats(model, Rows.of(x, torch.full_like(y, IGNORE)))
    assert nats.dtype == torch.float64
    assert torch.allclose(nats, expected, rtol=1e-12, atol=0)
    assert nats[BLOCK + 2 :].tolist() == [0] * (2 * BLOCK - 2), "what is not scored is free"
    assert nothing.tolist() == [0] * 3 * BLOCK


@pytest.mark.parametrize("headless", [False, True], ids=["linear head", "no linear head"])
def test_token_nats_of_rows_of_any_length_are_those_of_each_alone(headless: bool) -> None:
    model: LanguageModel = Headless(a_model().eval()) if headless else a_model().eval()
    lengths = [3, BLOCK, 1, 7, 7, 2]
    x, y = torch.randint(0, VOCAB, (2, sum(lengths)))
    y[[0, 5, 20]] = IGNORE
    with torch.no_grad():
        nats = token_nats(model, Rows(x, y, np.array(lengths)))
        expected = [
            F.cross_entropy(model(inputs[None])[0], targets, ignore_index=IGNORE, reduction="none")
            for inputs, targets in zip(x.split(lengths), y.split(lengths), strict=True)
        ]
    assert torch.allclose(nats, torch.cat(expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nats_are_made_in_float32_at_least(dtype: torch.dtype) -> None:
    """From the logits as the model gives them, against float64 from the same logits."""
    model = Table((8 * torch.randn(VOCAB, VOCAB)).to(dtype))
    x, y = torch.randint(0, VOCAB, (2, 4, BLOCK))
    expected = F.cross_entropy(model(x).double().flatten(0, 1), y.flatten(), reduction="none")
    assert token_nats(model, Rows.of(x, y)).tolist() == pytest.approx(expected.tolist(), abs=2e-5)


def test_a_model_without_a_linear_head_gets_the_same_losses() -> None:
    model, encoded = a_model(), some_documents(30)
    assert nats_of(Headless(model), encoded) == pytest.approx(nats_of(model, encoded), rel=1e-12)
    stream = EncodedDocuments.of(encoded, EOS).ids_N
    one, other = (official_loss(each, stream, 99, block_size=BLOCK, batch_size=4) for each in (model, Headless(model)))
    assert one.loss == pytest.approx(other.loss, rel=1e-12)


@pytest.fixture(scope="module")
def tokenizer(titles: list[str]) -> Tokenizer:
    return train_bpe(titles, TokenizerConfig(vocab_size=300))


def test_denominators_come_from_the_text(tokenizer: Tokenizer) -> None:
    made = ["Zürich 🚀", "<eos>", "", "two\nlines"]
    scoring = ScoringSet.of(Documents.of(made), tokenizer)
    assert scoring.characters == len("<eos>".join(made) + "<eos>") == 8 + 5 + 0 + 9 + 20
    assert scoring.bytes == len("\n".join(made).encode()) + 1


def test_all_numbers_of_a_scored_set_belong_together(tokenizer: Tokenizer, titles: list[str]) -> None:
    model = uniform(tokenizer.vocab_size)
    scored = ScoringSet.of(Documents.of(titles), tokenizer).evaluate(model, block_size=8, batch_size=4)
    loss, official, nats = scored.loss, scored.official, math.log(tokenizer.vocab_size)
    assert loss.documents == len(titles)
    assert loss.targets == sum(len(tokenizer.encode(title)) + 1 for title in titles)
    assert loss.nats == pytest.approx(loss.targets * nats)
    assert loss.perplexity == pytest.approx(tokenizer.vocab_size)
    assert loss.characters == sum(len(title) + 5 for title in titles)
    assert loss.loss == loss.nats / loss.characters
    assert loss.bits_per_byte == loss.nats / math.log(2) / sum(len(title.encode()) + 1 for title in titles)
    assert scored.nats_D == pytest.approx([(len(tokenizer.encode(title)) + 1) * nats for title in titles])
    assert scored.characters_D.tolist() == [len(title) + 5 for title in titles]
    # some titles have the characters "<eos>", which the joined text counts as an end
    (stream,) = tokenizer.encode_joined(titles)
    assert official.targets == len(stream) - 1 != loss.targets - 1
    assert official.loss == pytest.approx(official.targets_scored * nats / loss.characters)
    assert scored.as_dict() == {
        **loss.as_dict(), "official_loss": official.loss, "coverage": official.targets_scored / official.targets,
    }  # fmt: skip
    low, high = scored.interval()
    assert low < loss.loss < high
    assert scored.finite


def test_a_split_from_the_cache_is_scored_as_its_documents_are() -> None:
    corpus = load_corpus(tiny_recipe(None, data={"tuning_titles": 20}).data)
    tokenizer = make_tokenizer(corpus.split("train"), TokenizerConfig(vocab_size=300))
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=1, n_head=2, d_model=16), tokenizer.vocab_size, 8, tokenizer.eos)
    for split in ("train", "tuning", "validation"):
        of_split, of_documents = (
            scoring.evaluate(model, block_size=8, batch_size=4)
            for scoring in (
                ScoringSet.of_split(corpus, split, tokenizer),
                ScoringSet.of(corpus.split(split), tokenizer),
            )
        )
        assert of_split.nats_D.tolist() == of_documents.nats_D.tolist()
        assert of_split.as_dict() == of_documents.as_dict()


def test_a_broken_tokenizer_gets_no_loss(
    tokenizer: Tokenizer, titles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids: decode(ids).lower())
    with pytest.raises(UserError, match=r"does not give back.*\n.*[A-Z]"):
        ScoringSet.of(Documents.of(titles), tokenizer)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_that_a_tokenizer_does_not_give_back_gets_no_loss(split: str) -> None:
    """Training can do with what such a tokenizer makes of the training documents; scoring them can't."""
    corpus = load_corpus(tiny_recipe(None).data)
    few = train_bpe(["a few letters"], TokenizerConfig(vocab_size=20, byte_alphabet="seen"))
    with pytest.raises(UserError, match="does not give back every document"):
        ScoringSet.of_split(corpus, split, few)


def test_scoring_leaves_the_model_as_it_was() -> None:
    model = a_model().train()
    first, second = (nats_of(model, some_documents(5)) for _ in range(2))
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
