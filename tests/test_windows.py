"""Windows: the rows in which documents are scored, against their definition written with lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import IGNORE
from shortrun.tokens.windows import Windows, of_like_length, rows_of, windows_of

EOS = 1
# a token stands nowhere twice, so that each says which document it is of, and where in it
lengths_of_documents = st.lists(st.integers(0, 40), min_size=1, max_size=12)
blocks = st.integers(1, 17)


def distinct_documents(lengths: list[int]) -> list[list[int]]:
    ends = np.cumsum(lengths) + 2
    return [list(range(end - length, end)) for end, length in zip(ends.tolist(), lengths, strict=True)]


def windows_by_definition(ids: list[int], block: int) -> list[tuple[list[int], list[int]]]:
    """Inputs and targets of each window of a document; a target that is only context is IGNORE."""
    inputs, targets = [EOS, *ids], [*ids, EOS]
    windows, scored, start = [], 0, 0
    while scored < len(targets):
        stop = min(start + block, len(targets))
        counted = [target if place >= scored else IGNORE for place, target in enumerate(targets)]
        windows.append((inputs[start:stop], counted[start:stop]))
        scored = stop
        start += max(block // 2, 1)  # half a block further on
    return windows


def row(windows: Windows, documents: EncodedDocuments, number: int) -> tuple[list[int], list[int]]:
    rows = rows_of(documents, windows, np.array([number]))
    assert rows.lengths_B.tolist() == [len(rows.x_N)] == [len(rows.y_N)]
    return rows.x_N.tolist(), rows.y_N.tolist()


@given(lengths_of_documents, blocks)
@example([0], 1)
@example([8, 7, 9, 16], 8)
def test_windows_are_those_of_the_definition(lengths: list[int], block: int) -> None:
    encoded = distinct_documents(lengths)
    documents = EncodedDocuments.of(encoded, EOS)
    windows = windows_of(documents.lengths_D, block)
    expected = [(index, *window) for index, ids in enumerate(encoded) for window in windows_by_definition(ids, block)]
    assert len(windows) == len(expected)
    found = [(int(windows.document_W[number]), *row(windows, documents, number)) for number in range(len(windows))]
    assert found == expected
    assert windows.lengths_W.tolist() == [len(inputs) for _, inputs, _ in expected]


@given(lengths_of_documents, blocks)
def test_every_target_counts_once_and_sees_half_a_block(lengths: list[int], block: int) -> None:
    """What is promised, without a word of how: for each document on its own, from a fresh start after one `eos`."""
    documents = EncodedDocuments.of(distinct_documents(lengths), EOS)
    windows = windows_of(documents.lengths_D, block)
    counted: list[tuple[int, int]] = []
    for number in range(len(windows)):
        document = int(windows.document_W[number])
        ids = distinct_documents(lengths)[document]
        inputs, targets = row(windows, documents, number)
        assert 0 < len(inputs) == len(targets) <= block
        begin = 0 if inputs[0] == EOS else ids.index(inputs[0]) + 1
        assert inputs == [EOS, *ids][begin : begin + block], "a stretch of this document and of no other"
        for place, target in enumerate(targets):
            if target != IGNORE:
                assert target == [*ids, EOS][begin + place]
                assert place + 1 >= min(begin + place + 1, math.ceil(block / 2)), "tokens that this target sees"
                counted.append((document, begin + place))
    assert counted == [(index, place) for index, length in enumerate(lengths) for place in range(length + 1)]


@given(lengths_of_documents, blocks, st.data())
def test_rows_together_are_the_rows_alone_end_to_end(lengths: list[int], block: int, draw: st.DataObject) -> None:
    """Any windows in any order, with nothing between them."""
    in_memory = EncodedDocuments.of(distinct_documents(lengths), EOS)
    dtype = draw.draw(st.sampled_from([np.uint16, np.int32]))  # the types that files have
    documents = EncodedDocuments(in_memory.ids_N.astype(dtype), in_memory.ends_D, EOS)
    windows = windows_of(documents.lengths_D, block)
    chosen = draw.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=8))
    rows = rows_of(documents, windows, np.array(chosen))
    alone = [row(windows, documents, number) for number in chosen]
    assert (rows.x_N.dtype, rows.y_N.dtype) == (torch.int64, torch.int64)
    assert rows.x_N.tolist() == [token for inputs, _ in alone for token in inputs]
    assert rows.y_N.tolist() == [token for _, targets in alone for token in targets]
    assert rows.lengths_B.tolist() == [len(inputs) for inputs, _ in alone]


@given(lengths_of_documents, blocks, st.integers(1, 100))
def test_groups_of_like_length_hold_each_window_once(lengths: list[int], block: int, positions: int) -> None:
    windows = windows_of(np.array(lengths) + 1, block)
    groups = [group.tolist() for group in of_like_length(windows, positions)]
    assert sorted(number for group in groups for number in group) == list(range(len(windows)))
    widths = [[int(windows.lengths_W[number]) for number in group] for group in groups]
    assert [width for group in widths for width in group] == sorted(windows.lengths_W.tolist())
    for group, following in zip(widths, [*widths[1:], None], strict=True):
        assert len(group) == 1 or len(group) * max(group) <= positions
        if following:
            assert (len(group) + 1) * following[0] > positions, "the next would have found room here"


@pytest.mark.parametrize(("length", "count"), [(1, 1), (128, 1), (129, 2), (192, 2), (193, 3), (10_000, 156)])
def test_how_many_windows_a_document_has(length: int, count: int) -> None:
    """Of 128 tokens: the first scores 128 targets, each later one 64 more."""
    assert len(windows_of(np.array([length]), 128)) == count
