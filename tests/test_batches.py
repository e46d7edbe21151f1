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
from shortrun.model.layout import Layout
from shortrun.recipe import BatchesConfig
from shortrun.tokens.batch import ROUND, RowBatch
from shortrun.tokens.batches import DocumentBatches, ShuffledBatches, StreamBatches, make_batches
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import IGNORE, Rows
from tests.test_windows import distinct_documents, windows_by_definition

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


DOCUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "lengths": st.lists(st.integers(0, 40), min_size=1, max_size=40),
    "block": st.integers(1, 16),
    "rows": st.integers(1, 12),
    "epochs": st.integers(1, 4),
    "seed": st.integers(0, 2**32),
}
Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Inputs and targets; those that only are context are IGNORE."""


def document_batches(lengths: list[int], block: int, rows: int, epochs: int, seed: int) -> DocumentBatches:
    """Batches of documents in which no token stands twice."""
    shape = BatchesConfig(mode="documents", block_size=block, batch_size=rows)
    return DocumentBatches(EncodedDocuments.of(distinct_documents(lengths), EOS), shape, epochs, seed)


def rows_in(micro_batches: list[Rows]) -> list[Row]:
    """The rows that hold a target; the others only fill up."""
    found: list[Row] = []
    for rows in micro_batches:
        lengths = rows.lengths_B.tolist()
        sides = [[tuple(row.tolist()) for row in torch.split(side, lengths)] for side in (rows.x_N, rows.y_N)]
        found += [(x, y) for x, y in zip(*sides, strict=True) if set(y) != {IGNORE}]
    return found


def all_rows(lengths: list[int], block: int) -> Counter[Row]:
    """The windows of all documents, by their definition."""
    return Counter(
        (tuple(x), tuple(y)) for ids in distinct_documents(lengths) for x, y in windows_by_definition(ids, block)
    )


@settings(deadline=None)
@given(**DOCUMENTS)
def test_documents_are_targets_exactly_once_an_epoch(
    lengths: list[int], block: int, rows: int, epochs: int, seed: int
) -> None:
    """Each alone in its windows; a step holds batch_size * block_size targets, but for less than one window."""
    batches = document_batches(lengths, block, rows, epochs, seed)
    steps = [batches.at(step) for step in range(1, batches.total_steps + 1)]
    taken: Counter[Row] = Counter()
    for batch in steps:
        found = rows_in(batch.micro_batches(2**62))
        assert batch.targets == sum(token != IGNORE for _, y in found for token in y) > 0
        taken.update(found)
    assert taken == Counter({row: epochs * count for row, count in all_rows(lengths, block).items()})
    ended = np.concatenate([batch.documents_ended for batch in steps])
    assert np.bincount(ended, minlength=len(lengths)).tolist() == [epochs] * len(lengths)
    total, longest = sum(length + 1 for length in lengths), min(max(lengths) + 1, block)
    assert batches.tokens_per_epoch == total
    assert batches.every_document_equally
    so_far = np.cumsum([batch.targets for batch in steps])
    assert so_far[-1] == epochs * total
    assert all(0 <= done - step * rows * block < longest for step, done in enumerate(so_far[:-1].tolist(), start=1))


@settings(deadline=None)
@given(**DOCUMENTS, jumps=st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_a_batch_of_documents_depends_on_its_step_alone(
    lengths: list[int], block: int, rows: int, epochs: int, seed: int, jumps: list[int]
) -> None:
    through, jumping = (document_batches(lengths, block, rows, epochs, seed) for _ in range(2))
    steps = [through.at(step + 1) for step in range(through.total_steps)]
    for step in [jump % through.total_steps for jump in jumps]:
        batch = jumping.at(step + 1)
        assert rows_in(batch.micro_batches(50)) == rows_in(steps[step].micro_batches(50))
        assert batch.documents_ended.tolist() == steps[step].documents_ended.tolist()


def test_documents_come_in_another_order_each_epoch_and_by_another_seed() -> None:
    def order(seed: int) -> list[int]:
        batches = document_batches([3] * 50, block=4, rows=1, epochs=3, seed=seed)  # one document a step
        assert batches.total_steps == 150
        return [int(batches.at(step).documents_ended[0]) for step in range(1, 151)]

    found = order(1)
    epochs = [found[:50], found[50:100], found[100:]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(50))] * 3
    assert len({tuple(epoch) for epoch in [*epochs, order(2)[:50], range(50)]}) == 5
    assert order(1) == found


@settings(deadline=None)
@given(**DOCUMENTS, processes=st.integers(1, 5), positions=st.sampled_from([1, 20, 64, 150, 2**62]))
def test_processes_share_a_batch_of_documents(
    lengths: list[int], block: int, rows: int, epochs: int, seed: int, processes: int, positions: int
) -> None:
    """Together they take all of it, in equally many micro-batches, each of about so many positions and sorted by length."""
    batches = document_batches(lengths, block, rows, epochs, seed)
    for step in {1, batches.total_steps}:
        batch = batches.at(step)
        shares = [batch.micro_batches(positions, process, processes) for process in range(processes)]
        assert len({len(share) for share in shares}) == 1
        together = [row for share in shares for row in rows_in(share)]
        assert Counter(together) == Counter(rows_in(batch.micro_batches(2**62)))
        for rows_of_one in (micro_batch for share in shares for micro_batch in share):
            sizes = [len(x) for x, _ in rows_in([rows_of_one])]
            assert sizes == sorted(sizes)
            assert sum(sizes) <= 1.1 * positions + block
            assert len(rows_of_one.x_N) < sum(sizes) + ROUND or not sizes
            assert len(rows_of_one.x_N) % ROUND == 0, "few numbers of rows, each of which oneDNN prepares for"
            assert rows_of_one.lengths_B.max() <= block, "no model is asked for a longer row than it has"
            assert ((rows_of_one.x_N >= 0) & (rows_of_one.x_N < 2 + sum(lengths))).all(), "nor for another token"


@pytest.mark.parametrize("processes", [1, 2])
def test_few_positions_of_titles_count_for_nothing(processes: int) -> None:
    """Lengths as in Hacker News titles, steps as in the baseline's shape: what fills up, and what attention pads."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(12, 4, size=20_000).round(), 1, 40).astype(int).tolist()
    batches = document_batches(lengths, block=128, rows=64, epochs=1, seed=0)
    positions = counted = padded = 0
    for step in range(1, batches.total_steps + 1):
        for process in range(processes):
            for rows in batches.at(step).micro_batches(2048, process, processes):
                positions += len(rows.x_N)
                counted += int((rows.y_N != IGNORE).sum())
                padded += sum(
                    group.rows * group.width for group in Layout.of(rows.lengths_B, torch.device("cpu")).groups
                )
    assert counted == sum(lengths) + len(lengths)
    assert positions < 1.05 * counted
    assert padded < 1.2 * counted


def test_the_length_of_the_row_that_a_target_stands_in() -> None:
    assert document_batches([2, 5, 9], block=10, rows=2, epochs=1, seed=0).row_length == (3**2 + 6**2 + 10**2) / 19
    shuffled = BatchesConfig(mode="shuffled", block_size=8, batch_size=2)
    assert make_batches(EncodedDocuments.of([[5] * 30], EOS), shuffled, 1, seed=0).row_length == 8


@pytest.mark.parametrize(
    ("mode", "kind"), [("stream", StreamBatches), ("shuffled", ShuffledBatches), ("documents", DocumentBatches)]
)
def test_each_mode_has_its_batches(mode: str, kind: type) -> None:
    shape = BatchesConfig.model_validate({"mode": mode, "block_size": 4, "batch_size": 2})
    assert type(make_batches(EncodedDocuments.of([[5] * 30], EOS), shape, 1, seed=0)) is kind
