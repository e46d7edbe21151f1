"""Batches: Mainrun's stream exactly, and shuffled titles each used once an epoch."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shortrun.errors import UserError
from shortrun.recipe import Batches as Settings
from shortrun.recipe import Tokenizer
from shortrun.tokens.batches import IGNORE, Batch, ShuffledBatches, StreamBatches, TokenizedTitles, make_batches
from shortrun.tokens.bpe import train_bpe

EOS = 1
encoded_titles = st.lists(st.lists(st.integers(2, 90), max_size=12), min_size=1, max_size=40)
SHUFFLED: dict[str, st.SearchStrategy[Any]] = {
    "encoded": encoded_titles,
    "block": st.integers(1, 6),
    "rows": st.integers(1, 30),
    "epochs": st.integers(1, 4),
    "seed": st.integers(0, 2**32),
}


def mainruns_batches(ids: list[int], block: int, rows: int, epochs: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A plain re-derivation of the original's get_batch, with its running pointer."""
    stream, pointer, out = torch.tensor(ids), 0, []
    span = block * rows + 1
    for _ in range(epochs * (len(ids) // (block * rows))):
        if pointer + span >= len(ids):
            pointer = 0
        piece = stream[pointer : pointer + span]
        out.append((piece[:-1].view(rows, block), piece[1:].view(rows, block)))
        pointer += block * rows
    return out


@given(encoded=encoded_titles, block=st.integers(1, 9), rows=st.integers(1, 5))
def test_stream_is_mainruns_order_spans_and_wrap(encoded: list[list[int]], block: int, rows: int) -> None:
    flat = [token for ids in encoded for token in [*ids, EOS]]
    titles = TokenizedTitles(encoded, EOS, 91)
    assert titles.ids_N.tolist() == flat
    if len(flat) < block * rows + 1:
        with pytest.raises(UserError, match="fewer than one step"):
            StreamBatches(titles, Settings(mode="stream", block_size=block, batch_size=rows), 3)
        return
    batches = StreamBatches(titles, Settings(mode="stream", block_size=block, batch_size=rows), 3)
    expected = mainruns_batches(flat, block, rows, epochs=3)
    assert batches.total_steps == len(expected)
    for step, (x, y) in enumerate(expected, start=1):
        batch = batches.at(step)
        assert torch.equal(batch.x_BT, x)
        assert torch.equal(batch.y_BT, y)
        assert len(batch.documents_ended) == int((y == EOS).sum())


@settings(deadline=None)
@given(**SHUFFLED)
def test_shuffled_uses_every_title_exactly_once_an_epoch(
    encoded: list[list[int]], block: int, rows: int, epochs: int, seed: int
) -> None:
    total = sum(len(ids) + 1 for ids in encoded)
    shape = Settings(mode="shuffled", block_size=block, batch_size=rows)
    if total < block:
        with pytest.raises(UserError, match="longer than the data"):
            make_batches(encoded, EOS, 91, shape, epochs, seed)
        return
    batches = make_batches(encoded, EOS, 91, shape, epochs, seed)
    steps = [batches.at(step) for step in range(1, batches.total_steps + 1)]
    targets = [token for batch in steps for token in real_targets(batch)]
    assert len(targets) == epochs * total
    # every epoch's targets, cut at the ends, are the titles themselves, each once
    for epoch in range(epochs):
        seen = split_at_end(targets[epoch * total : (epoch + 1) * total])
        assert Counter(map(tuple, seen)) == Counter(map(tuple, encoded))
    # the batches' own count says the same
    counts = np.bincount(np.concatenate([batch.documents_ended for batch in steps]), minlength=len(encoded))
    assert (counts == epochs).all()
    # inputs are the targets one position on, and all steps but the last are full
    assert [token for batch in steps for token in batch.x_BT.flatten().tolist()][: len(targets)] == [EOS, *targets[:-1]]
    assert all(batch.targets == block * rows for batch in steps[:-1])


def real_targets(batch: Batch) -> list[int]:
    kept: list[int] = batch.y_BT[batch.y_BT != IGNORE].tolist()
    assert len(kept) == batch.targets
    return kept


def split_at_end(tokens: list[int]) -> list[list[int]]:
    titles: list[list[int]] = [[]]
    for token in tokens:
        if token == EOS:
            titles.append([])
        else:
            titles[-1].append(token)
    assert titles.pop() == []
    return titles


def test_a_batch_depends_on_its_step_alone() -> None:
    encoded = [[10 + i] * (i % 5) for i in range(50)]
    shape = Settings(mode="shuffled", block_size=4, batch_size=3)
    forwards = make_batches(encoded, EOS, 91, shape, 3, seed=5)
    first = [forwards.at(step).y_BT for step in range(1, forwards.total_steps + 1)]
    backwards = make_batches(encoded, EOS, 91, shape, 3, seed=5)
    for step in range(forwards.total_steps, 0, -1):
        assert torch.equal(backwards.at(step).y_BT, first[step - 1])


def test_order_changes_with_the_epoch_and_the_seed() -> None:
    encoded = [[10 + i] for i in range(40)]
    shape = Settings(mode="shuffled", block_size=8, batch_size=10)  # one step an epoch
    one, other = (ShuffledBatches(TokenizedTitles(encoded, EOS, 91), shape, 2, seed) for seed in (1, 2))
    assert not torch.equal(one.at(1).y_BT, one.at(2).y_BT)
    assert not torch.equal(one.at(1).y_BT, other.at(1).y_BT)


@settings(deadline=None)
@given(
    **SHUFFLED,
    jumps=st.lists(st.integers(0, 10**6), max_size=12),
    vocab_size=st.sampled_from([91, 2**16, 2**16 + 1]),
)
def test_shuffled_batches_are_the_shuffled_titles_laid_out_and_cut(
    encoded: list[list[int]], block: int, rows: int, epochs: int, seed: int, jumps: list[int], vocab_size: int
) -> None:
    """Against the epochs written out whole: forwards, backwards, and at steps in any order."""
    size = block * rows
    assume(sum(len(ids) + 1 for ids in encoded) >= block)
    written, enders = [EOS], [-1]  # each token, and the title that ends with it
    for epoch in range(epochs):
        for title in np.random.default_rng([seed, epoch]).permutation(len(encoded)).tolist():
            written += [*encoded[title], EOS]
            enders += [*(-1 for _ in encoded[title]), title]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shortrun.tokens.batches.UNWRITTEN", 7)  # the file is written in many goes
        shape = Settings(mode="shuffled", block_size=block, batch_size=rows)
        batches = make_batches(iter(encoded), EOS, vocab_size, shape, epochs, seed)
    total = ceil((len(written) - 1) / size)
    assert batches.total_steps == total
    for step in [*range(total), *reversed(range(total)), *(jump % total for jump in jumps)]:
        batch = batches.at(step + 1)
        y = written[step * size + 1 : (step + 1) * size + 1]
        x = written[step * size : step * size + len(y)]
        padding = -len(y) % block
        assert torch.equal(batch.x_BT, torch.tensor(x + padding * [EOS]).view(-1, block))
        assert torch.equal(batch.y_BT, torch.tensor(y + padding * [IGNORE]).view(-1, block))
        assert batch.targets == len(y)
        assert batch.documents_ended.dtype == np.int64
        ended = [title for title in enders[step * size + 1 : (step + 1) * size + 1] if title >= 0]
        assert batch.documents_ended.tolist() == ended


def test_ids_are_small_and_on_disk() -> None:
    small, large = (TokenizedTitles([[5, 6], [7]], EOS, size) for size in (2**16, 2**16 + 1))
    assert [str(titles.ids_N.dtype) for titles in (small, large)] == ["uint16", "int32"]
    assert isinstance(small.ids_N, np.memmap)
    assert small.ids_N.tolist() == large.ids_N.tolist() == [5, 6, EOS, 7, EOS]


def test_titles_encoded_in_slices_are_the_same_titles() -> None:
    titles = ["one two", "", "three", "two", "one"]
    tokenizer = train_bpe(titles, Tokenizer(vocab_size=300))
    assert list(tokenizer.encode_slices(titles, 2)) == tokenizer.encode_many(titles)
