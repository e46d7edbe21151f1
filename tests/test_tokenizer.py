"""Titles to ids and back: lossless, deterministic, and special tokens' text stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.errors import UserError
from shortrun.recipe import Tokenizer as Settings
from shortrun.tokens.bpe import train_bpe
from shortrun.tokens.kinds import load_tokenizer, train_tokenizer
from shortrun.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest, titles: list[str]) -> Tokenizer:
    return train_tokenizer(titles, Settings(kind=request.param, vocab_size=400))


@given(title=st.text())
def test_any_text_comes_back(tokenizer: Tokenizer, title: str) -> None:
    assert tokenizer.decode(tokenizer.encode(title)) == title


@pytest.mark.parametrize(
    "title", ["<eos>", "a<eos>b", "<pad>", "x <unk>", " leading", "  two", "trailing ", "a\x08b", "a\u2581b", "\u2581"]
)
def test_awkward_titles_come_back_and_hold_no_special_id(tokenizer: Tokenizer, title: str) -> None:
    ids = tokenizer.encode(title)
    assert tokenizer.decode(ids) == title
    assert not {tokenizer.eos, tokenizer.pad, tokenizer.unk} & set(ids)


def test_the_joined_text_ends_each_title_with_the_end_mark(tokenizer: Tokenizer, titles: list[str]) -> None:
    plain = [title for title in titles if "<" not in title]
    one_by_one = [token for ids in tokenizer.encode_many(plain) for token in [*ids, tokenizer.eos]]
    assert tokenizer.encode_joined(plain) == one_by_one


def test_in_bpes_joined_text_a_written_end_mark_is_one(titles: list[str]) -> None:
    """As the original counts it."""
    bpe = train_bpe(titles, Settings(vocab_size=400))
    assert bpe.encode_joined(["a<eos>b"]).count(bpe.eos) == 2


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_training_is_deterministic(kind: Literal["bpe", "unigram"], titles: list[str]) -> None:
    settings = Settings(kind=kind, vocab_size=400)
    assert train_tokenizer(titles, settings).sha256 == train_tokenizer(titles, settings).sha256
    assert train_tokenizer(titles, settings).sha256 != train_tokenizer(titles[:200], settings).sha256


def test_a_very_long_title_is_not_left_out_of_unigram_training() -> None:
    long = " ".join(f"zyxw{index}" for index in range(3000))  # longer than sentencepiece's own limit of 4,192 bytes
    unigram = train_tokenizer(["short title"] * 5 + [long] * 5, Settings(kind="unigram", vocab_size=400))
    assert len(unigram.encode(long)) < len(long) / 2  # a byte each, had it been left out


def test_saving_and_loading_keeps_everything(tokenizer: Tokenizer, titles: list[str], tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert again.sha256 == tokenizer.sha256
    assert again.encode_many(titles) == tokenizer.encode_many(titles)


def test_bytes_the_tokenizer_never_saw_are_refused_with_the_title() -> None:
    seen = train_bpe(["plain words only"] * 3, Settings(vocab_size=60, byte_alphabet="seen"))
    seen.require_lossless(["only plain words"])
    with pytest.raises(UserError, match="日本"):
        seen.require_lossless(["plain", "日本"])


def test_a_broken_tokenizer_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="no tokenizer file"):
        load_tokenizer(path)
    path.write_text('{"model": 3}')
    with pytest.raises(UserError, match="not a tokenizer file"):
        load_tokenizer(path)
