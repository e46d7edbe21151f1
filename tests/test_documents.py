"""Documents in Arrow's memory and in files: what plain lists of Python strings would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shortrun.text import documents as module
from shortrun.text.documents import Documents

any_text = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates too
clean_text = st.text(max_size=8) | st.sampled_from(["a", "a\nb", "", "e\u0301", "\u00e9", "日本 🚀", "\0", "\r\n"])
lists = st.lists(clean_text, max_size=12)


@pytest.fixture(autouse=True, params=[2, module.AT_ONCE], ids=["two at once", "all at once"])
def _at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds however few are Python strings at a time: texts in one chunk, and in many."""
    monkeypatch.setattr(module, "AT_ONCE", request.param)


@given(st.lists(st.none() | any_text, max_size=12))
@example([None, "\ud800", "", "\udfff\ud800", "😀", None])
def test_rows_before_cleaning_come_back_in_any_order(rows: list[str | None]) -> None:
    documents = Documents.of(iter(rows))
    assert len(documents) == len(rows)
    assert list(documents.rows()) == rows
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    assert list(documents.rows(order)) == [rows[index] for index in order]


@given(lists)
@example([])
def test_they_are_the_sequence_of_their_texts(texts: list[str]) -> None:
    documents = Documents.of(texts)
    assert list(documents) == texts
    assert documents == texts
    assert documents == Documents.of(texts)
    assert documents != [*texts, "one more"]
    assert documents != Documents.of([*texts, "one more"])
    assert [documents[index] for index in range(-len(texts), len(texts))] == texts + texts
    assert bool(documents) == bool(texts)
    assert list(reversed(documents)) == texts[::-1]
    for size in (1, 3, 100):
        pieces = list(documents.pieces(size))
        assert [text for piece in pieces for text in piece] == texts
        assert all(len(piece) == size for piece in pieces[:-1])
        assert all(0 < len(piece) <= size for piece in pieces)
    with pytest.raises(IndexError):
        documents[len(texts)]


places = st.none() | st.integers(-14, 14)


@given(lists, places, places, places.filter(lambda step: step != 0))
def test_slices_are_those_of_a_list(texts: list[str], start: int | None, stop: int | None, step: int | None) -> None:
    part = Documents.of(texts)[start:stop:step]
    assert isinstance(part, Documents)
    assert list(part) == texts[start:stop:step]
    assert part == texts[start:stop:step]
    # and of a slice, all that is asked of documents is asked of it alone
    assert part[1:] == texts[start:stop:step][1:]
    assert_counts(part, texts[start:stop:step])


def assert_counts(documents: Documents, texts: list[str]) -> None:
    lengths = documents.lengths_D()
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [len(text) for text in texts]
    assert documents.bytes() == sum(len(text.encode()) for text in texts)
    assert documents.repeated() == sum(text in texts[:index] for index, text in enumerate(texts))


@given(lists, lists)
@example(["a", "b", "a"], ["a", "a", "c"])
@example(["a"], [])
@example([], ["a"])
def test_counts_are_those_of_plain_python(texts: list[str], others: list[str]) -> None:
    documents, known = Documents.of(texts), Documents.of(others)
    assert_counts(documents, texts)
    assert documents.also_in(known) == sum(text in others for text in texts)
    assert documents.are_in(known).tolist() == [text in others for text in texts]
    both = documents.joined(known)
    assert list(both) == texts + others
    assert_counts(both, texts + others)


@given(lists, lists, st.integers(0, 12), st.integers(0, 12))
def test_what_is_saved_is_what_is_opened(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], others: list[str], start: int, stop: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "documents.arrow"
    for documents, expected in (
        (Documents.of(texts), texts),
        (Documents.of(texts)[start:stop], texts[start:stop]),
        (Documents.of(texts).joined(Documents.of(others)), texts + others),
    ):
        documents.save(path)
        opened = Documents.open(path)
        assert opened == documents
        assert list(opened) == expected
        assert_counts(opened, expected)
        assert opened[1:3] == expected[1:3]
        assert opened.also_in(documents) == len(expected)


def test_an_opened_file_is_mapped_and_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "documents.arrow"
    Documents.of(["x" * 1000] * 10_000).save(path)
    before = pa.total_allocated_bytes()
    opened = Documents.open(path)
    part = opened[5_000:]
    assert part[4_999] == "x" * 1000
    assert pa.total_allocated_bytes() - before < 100_000
    assert path.stat().st_size > 10_000_000
    path.unlink()  # a run keeps its files when the cache is cleared
    assert sum(len(text) for text in opened) == 10_000_000


def test_long_texts_come_in_pieces_of_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortrun.text.documents.BYTES_AT_ONCE", 10)
    texts = ["äöü", "a", "", "b" * 25, "c", "d" * 9, "e" * 9, *["f"] * 30]
    documents = Documents.of(texts)
    pieces = list(documents.pieces())
    assert [text for piece in pieces for text in piece] == texts
    assert all(sum(len(text.encode()) for text in piece[1:]) <= 10 for piece in pieces), "with one more text at most"
    assert len(pieces) > 5
    assert [len(piece) for piece in Documents.of(["f"] * 30).pieces(99)] == [9, 10, 10, 1]
    assert list(Documents.of([]).pieces()) == []
