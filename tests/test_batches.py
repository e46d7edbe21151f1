"""Batches: Mainrun's stream exactly, and shuffled documents each used once an epoch."""

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
from shortrun.recipe import BatchesConfig
from shortrun.tokens.batches import RowBatch, ShuffledBatches, StreamBatches, make_batches
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import IGNORE

EOS = 1
encoded_documents = st.lists(st.lists(st.integers(2, 90), max_size=12), min_size=1, max_size=40)
SHUFFLED: dict[str, st.SearchStrategy[Any]] = {
    "encoded": encoded_documents,
    "block": st.integers(1, 6),
    "rows": st.integers(1, 30),
    "epochs": st.integers(1, 4),
    "seed": st.integers(0, 2**32),
}


def mainruns_batches(
    ids: list[int], block: int, rows: int, epochs: int
) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """A plain re-derivation of the original's get_batch, with its running pointer: x, y and where x begins."""
    stream, pointer, out = torch.tensor(ids), 0, []
    span = block * rows + 1
    for _ in range(epochs * (len(ids) // (block * rows))):
        if pointer + span >= len(ids):
            pointer = 0
        piece = stream[pointer : pointer + span]
        out.append((piece[:-1].view(rows, block), piece[1:].view(rows, block), pointer))
        pointer += block * rows
    return out


@given(encoded=encoded_documents, block=st.integers(1, 9), rows=st.integers(1, 5))
def test_stream_is_mainruns_order_spans_and_wrap(encoded: list[list[int]], block: int, rows: int) -> None:
    flat = [token for ids in encoded for token in [*ids, EOS]]
    documents = EncodedDocuments.of(encoded, EOS)
    ends = np.cumsum([len(ids) + 1 for ids in encoded])
    if len(flat) < block * rows + 1:
        with pytest.raises(UserError, match="fewer than one step"):
            StreamBatches(documents, BatchesConfig(mode="stream", block_size=block, batch_size=rows), 3)
        return
    batches = StreamBatches(documents, BatchesConfig(mode="stream", block_size=block, batch_size=rows), 3)
    expected = mainruns_batches(flat, block, rows, epochs=3)
    assert batches.total_steps == len(expected)
    for step, (x, y, first) in enumerate(expected, start=1):
        batch = batches.at(step)
        assert torch.equal(batch.x_BT, x)
        assert torch.equal(batch.y_BT, y)
        # a document ends with the target just before the position in `ends`; the targets begin one behind the inputs
        inside = (ends > first + 1) & (ends <= first + 1 + block * rows)
        assert batch.documents_ended.tolist() == np.flatnonzero(inside).tolist()
        assert batch.targets == block * rows


@settings(deadline=None)
@given(**SHUFFLED)
def test_shuffled_uses_every_document_exactly_once_an_epoch(
    encoded: list[list[int]], block: int, rows: int, epochs: int, seed: int
) -> None:
    total = sum(len(ids) + 1 for ids in encoded)
    shape = BatchesConfig(mode="shuffled", block_size=block, batch_size=rows)
    if total < block:
        with pytest.raises(UserError, match="longer than the data"):
            make_batches(EncodedDocuments.of(encoded, EOS), shape, epochs, seed)
        return
    batches = ShuffledBatches(EncodedDocuments.of(encoded, EOS), shape, epochs, seed)
    steps = [batches.at(step) for step in range(1, batches.total_steps + 1)]
    targets = [token for batch in steps for token in real_targets(batch)]
    assert len(targets) == epochs * total
    # every epoch's targets, cut at the ends, are the documents themselves, each once
    for epoch in range(epochs):
        seen = split_at_end(targets[epoch * total : (epoch + 1) * total])
        assert Counter(map(tuple, seen)) == Counter(map(tuple, encoded))
    # the batches' own count says the same
    counts = np.bincount(np.concatenate([batch.documents_ended for batch in steps]), minlength=len(encoded))
    assert (counts == epochs).all()
    # inputs are the targets one position on, and all steps but the last are full
    assert [token for batch in steps for token in batch.x_BT.flatten().tolist()][: len(targets)] == [EOS, *targets[:-1]]
    assert all(batch.targets == block * rows for batch in steps[:-1])


def real_targets(batch: RowBatch) -> list[int]:
    kept: list[int] = batch.y_BT[batch.y_BT != IGNORE].tolist()
    assert len(kept) == batch.targets
    return kept


def split_at_end(tokens: list[int]) -> list[list[int]]:
    documents: list[list[int]] = [[]]
    for token in tokens:
        if token == EOS:
            documents.append([])
        else:
            documents[-1].append(token)
    assert documents.pop() == []
    return documents


def test_a_batch_depends_on_its_step_alone() -> None:
    encoded = [[10 + i] * (i % 5) for i in range(50)]
    shape = BatchesConfig(mode="shuffled", block_size=4, batch_size=3)
    forwards = ShuffledBatches(EncodedDocuments.of(encoded, EOS), shape, 3, seed=5)
    first = [forwards.at(step).y_BT for step in range(1, forwards.total_steps + 1)]
    backwards = ShuffledBatches(EncodedDocuments.of(encoded, EOS), shape, 3, seed=5)
    for step in range(forwards.total_steps, 0, -1):
        assert torch.equal(backwards.at(step).y_BT, first[step - 1])


def test_order_changes_with_the_epoch_and_the_seed() -> None:
    encoded = [[10 + i] for i in range(40)]
    shape = BatchesConfig(mode="shuffled", block_size=8, batch_size=10)  # one step an epoch
    one, other = (ShuffledBatches(EncodedDocuments.of(encoded, EOS), shape, 2, seed) for seed in (1, 2))
    assert not torch.equal(one.at(1).y_BT, one.at(2).y_BT)
    assert not torch.equal(one.at(1).y_BT, other.at(1).y_BT)


@settings(deadline=None)
@given(
    **SHUFFLED,
    jumps=st.lists(st.integers(0, 10**6), max_size=12),
    dtype=st.sampled_from([np.uint16, np.int32]),
)
def test_shuffled_batches_are_the_shuffled_documents_laid_out_and_cut(
    encoded: list[list[int]], block: int, rows: int, epochs: int, seed: int, jumps: list[int], dtype: type[np.integer]
) -> None:
    """Against the epochs written out whole: forwards, backwards, and at steps in any order."""
    size = block * rows
    assume(sum(len(ids) + 1 for ids in encoded) >= block)
    written, enders = [EOS], [-1]  # each token, and the document that ends with it
    for epoch in range(epochs):
        for index in np.random.default_rng([seed, epoch]).permutation(len(encoded)).tolist():
            written += [*encoded[index], EOS]
            enders += [*(-1 for _ in encoded[index]), index]
    in_memory = EncodedDocuments.of(encoded, EOS)
    documents = EncodedDocuments(in_memory.ids_N.astype(dtype), in_memory.ends_D, EOS)  # the types that files have
    shape = BatchesConfig(mode="shuffled", block_size=block, batch_size=rows)
    batches = ShuffledBatches(documents, shape, epochs, seed)
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
        ended = [index for index in enders[step * size + 1 : (step + 1) * size + 1] if index >= 0]
        assert batch.documents_ended.tolist() == ended
