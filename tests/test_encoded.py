"""Encoded documents: the ids in files are those in memory, in as few bytes as the vocabulary allows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.errors import UserError
from shortrun.recipe import DataConfig, TokenizerConfig
from shortrun.text.corpus import Corpus, load_corpus
from shortrun.tokens.bpe import train_bpe
from shortrun.tokens.encoded import EncodedDocuments, encoded_split, stream_of_split
from shortrun.tokens.tokenizer import Tokenizer

EOS = 1


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=9), max_size=9))
def test_ids_lie_one_after_the_other_and_each_document_ends(encoded: list[list[int]]) -> None:
    documents = EncodedDocuments.of(iter(encoded), EOS)
    assert documents.ids_N.tolist() == [token for ids in encoded for token in [*ids, EOS]]
    assert len(documents) == len(encoded)
    assert documents.lengths_D.tolist() == [len(ids) + 1 for ids in encoded]
    begins = documents.ends_D - documents.lengths_D
    assert [
        documents.ids_N[begin : end - 1].tolist() for begin, end in zip(begins, documents.ends_D, strict=True)
    ] == encoded
    assert documents.ids_N[documents.ends_D - 1].tolist() == [EOS] * len(encoded)
    assert [str(documents.ids_N.dtype), str(documents.ends_D.dtype)] == ["int32", "int64"]


TEXTS = ["a cat", "two\nlines of\n\ntext", "a", "<eos> a", "x" * 3000, "Zürich 🚀", "a cat", "the end"]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Eight documents: five to train on, one to tune on, two to validate."""
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"title": text}) + "\n" for text in TEXTS))
    fields = {"num_titles": 8, "shuffle": False, "val_frac": 0.25, "tuning_titles": 1}
    return load_corpus(DataConfig.model_validate({"path": [str(path)], **fields}))


class Numbers(Tokenizer):
    """A character a token, its code point plus `base`: a vocabulary of any size, without training one."""

    def __init__(self, base: int, vocab_size: int) -> None:
        super().__init__(f"{base} {vocab_size}")
        self.base, self.vocab_size, self.eos, self.pad, self.unk = base, vocab_size, vocab_size - 1, None, None

    def encode_many(self, documents: object) -> list[list[int]]:
        assert isinstance(documents, list)
        return [[ord(letter) + self.base for letter in text.replace("🚀", "^")] for text in documents]

    def decode(self, ids: object) -> str:
        assert isinstance(ids, list)
        return "".join(chr(token - self.base) for token in ids).replace("^", "🚀")

    def bytes_of(self, token: int) -> bytes:
        return chr(token - self.base).encode()


def in_memory(tokenizer: Tokenizer, texts: list[str]) -> EncodedDocuments:
    return EncodedDocuments.of(tokenizer.encode_many(texts), tokenizer.eos)


@pytest.mark.parametrize("unwritten", [1, 7, 2**20])
@pytest.mark.parametrize(("vocab_size", "dtype"), [(2**16, "uint16"), (2**16 + 1, "int32"), (10**6, "int32")])
def test_files_equal_memory(
    corpus: Corpus, vocab_size: int, dtype: str, unwritten: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the ids gathered so far are written; the largest id, `eos`, is the last of the vocabulary."""
    monkeypatch.setattr("shortrun.tokens.encoded.UNWRITTEN", unwritten)
    tokenizer = Numbers(vocab_size - 1000, vocab_size)
    for split, texts in {"train": TEXTS[:5], "tuning": TEXTS[5:6], "validation": TEXTS[6:]}.items():
        expected = in_memory(tokenizer, texts)
        for _ in range(2):  # made, and then from the cache
            found = encoded_split(corpus, split, tokenizer)
            assert isinstance(found.ids_N, np.memmap)
            assert found.ids_N.dtype == dtype
            assert found.ids_N.tolist() == expected.ids_N.tolist()
            assert found.ends_D.tolist() == expected.ends_D.tolist()
            assert found.ends_D.dtype == np.int64
            assert found.eos == vocab_size - 1 == found.ids_N.max()
            stream = stream_of_split(corpus, split, tokenizer)
            assert isinstance(stream, np.memmap)
            assert stream.dtype == dtype
            assert stream.tolist() == expected.ids_N.tolist()


def test_the_stream_is_the_joined_text(corpus: Corpus) -> None:
    """In which the characters "<eos>" are an end; in the documents' own ids they are text."""
    bpe = train_bpe(TEXTS, TokenizerConfig(vocab_size=300))
    stream, documents = stream_of_split(corpus, "train", bpe), encoded_split(corpus, "train", bpe)
    assert [stream.tolist()] == list(bpe.encode_joined(TEXTS[:5]))
    assert (stream == bpe.eos).sum() == 6
    assert (documents.ids_N == bpe.eos).sum() == 5
    assert documents.ids_N.tolist() == in_memory(bpe, TEXTS[:5]).ids_N.tolist()


def test_ids_are_made_once(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    bpe = train_bpe(TEXTS, TokenizerConfig(vocab_size=300))
    first = encoded_split(corpus, "train", bpe), stream_of_split(corpus, "train", bpe)

    def refuse(_: object) -> Iterator[list[int]]:
        raise AssertionError("encoded although the ids are in the cache")

    for name in ("encode_each", "encode_losslessly", "encode_joined"):
        monkeypatch.setattr(bpe, name, refuse)
    again = encoded_split(corpus, "train", bpe), stream_of_split(corpus, "train", bpe)
    assert again[0].ids_N.tolist() == first[0].ids_N.tolist()
    assert again[1].tolist() == first[1].tolist()
    with pytest.raises(AssertionError, match="in the cache"):
        encoded_split(corpus, "validation", bpe)
    other = train_bpe(TEXTS[:3], TokenizerConfig(vocab_size=299))
    assert encoded_split(corpus, "train", other).ids_N.tolist() != first[0].ids_N.tolist()


def test_only_what_is_scored_must_come_back(corpus: Corpus) -> None:
    """Training can do with a tokenizer that does not give every document back; scoring can't."""
    seen = train_bpe(["the end", "a cat"], TokenizerConfig(vocab_size=60, byte_alphabet="seen"))
    assert len(encoded_split(corpus, "train", seen)) == 5
    assert len(encoded_split(corpus, "validation", seen)) == 2
    with pytest.raises(UserError, match="Zürich"):
        encoded_split(corpus, "tuning", seen)


def test_documents_that_are_cut_elsewhere_have_other_ids(tmp_path: Path) -> None:
    """The same lines, once as documents of two lines and once as documents of one, in one cache."""
    lines = [f"line {number}" for number in range(20)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    pairs = ["\n".join(lines[first : first + 2]) for first in range(0, 20, 2)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps({"title": text}) + "\n" for text in pairs))
    bpe = train_bpe(lines, TokenizerConfig(vocab_size=300))
    for name, texts in (("lines.txt", lines[:18]), ("pairs.jsonl", pairs[:9])):
        data = DataConfig.model_validate({"path": [str(tmp_path / name)], "num_titles": "all", "shuffle": False})
        found = encoded_split(load_corpus(data), "train", bpe)
        assert found.ids_N.tolist() == in_memory(bpe, texts).ids_N.tolist()
        assert len(found) == len(texts)
