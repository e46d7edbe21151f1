"""The tokenizer that is handed on gives the ids of ours."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HFTokenizer

from shortrun.export.fast_tokenizer import (
    begins_with_a_space,
    differing,
    encode_fast,
    fast_tokenizer,
    read_fast_tokenizer,
    write_fast_tokenizer,
)
from shortrun.recipe import TokenizerConfig
from shortrun.text.documents import Documents
from shortrun.tokens.kinds import make_tokenizer
from shortrun.tokens.pieces import Pieces
from shortrun.tokens.tokenizer import Tokenizer
from tests.test_tokenizer import AWKWARD, KINDS, WHOLE, gpt2_settings

PARTS = ["<eos>", "<pad>", "<unk>", "<|endoftext|>", "<0x41>", "\u2581", " ", "  ", "...", "--", "\n", *WHOLE]
TEXTS = st.text() | st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=8).map("".join)
"""Texts of any characters, and texts in which what means something to a tokenizer is frequent."""

Both = tuple[Tokenizer, HFTokenizer]


@pytest.fixture(scope="module", params=[name for name, kind in KINDS.items() if kind.case == "kept"])
def both(request: pytest.FixtureRequest, titles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Ours, and the one that was written for it and read back."""
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp("tokenizer")
    tokenizer = make_tokenizer(titles, gpt2_settings() if kind.kind == "gpt2" else kind)
    write_fast_tokenizer(tokenizer, folder, 16)
    return tokenizer, read_fast_tokenizer(folder)


def same_or_as_likely(tokenizer: Tokenizer, text: str, ids: list[int]) -> bool:
    """Whether these are our ids, or, by sentencepiece, other pieces of the same text that are as likely."""
    ours = tokenizer.encode(text)
    if ours == ids:
        return True
    if not isinstance(tokenizer, Pieces):
        return False
    scores = [score for _, score, _ in tokenizer.entries()]
    one, other = (sum(scores[token] for token in each) for each in (ours, ids))
    return abs(one - other) < 1e-3 and tokenizer.decode(ids) == text


def decoded(fast: HFTokenizer, text: str) -> str:
    """A document with the space that some tokenizers put before it."""
    return " " * (begins_with_a_space(fast) and text != "") + text


@given(text=TEXTS)
@settings(max_examples=300)
@example(text="<0x41> <eos>")
def test_any_text_has_the_same_ids(both: Both, text: str) -> None:
    tokenizer, fast = both
    (ids,) = encode_fast(fast, [text])
    assert same_or_as_likely(tokenizer, text, ids)
    assert fast.decode([tokenizer.eos, *ids, tokenizer.eos], skip_special_tokens=True) == decoded(fast, text)


def test_real_and_awkward_documents_have_the_very_same_ids(both: Both, titles: list[str]) -> None:
    tokenizer, fast = both
    documents = [*titles, *AWKWARD, ""]
    assert encode_fast(fast, documents) == tokenizer.encode_many(documents)
    assert not differing(tokenizer, Documents.of(documents))
    assert fast.encode("a <eos> b").ids == [tokenizer.eos, *tokenizer.encode("a <eos> b")]
    assert fast.get_vocab_size() == tokenizer.vocab_size


def test_characters_of_every_plane_have_the_same_ids(both: Both) -> None:
    tokenizer, fast = both
    codes = [code for code in range(1, 0x110000, 97) if not 0xD800 <= code < 0xE000]
    random.Random(5).shuffle(codes)
    documents = ["".join(map(chr, codes[first : first + 40])) for first in range(0, len(codes), 40)]
    assert encode_fast(fast, documents) == tokenizer.encode_many(documents)


def test_equally_likely_pieces_are_all_that_differs() -> None:
    """sentencepiece adds up float32 numbers, the other library float64: here that is frequent."""
    rng = random.Random(7)
    words = ["wait", "...", "..", "!!!", "!!", "aa", "aaa", "no"]
    documents = ["".join(rng.choices(words, k=rng.randint(1, 30))) + "." * rng.randint(0, 60) for _ in range(400)]
    tokenizer = make_tokenizer(documents, TokenizerConfig(kind="unigram", vocab_size=300))
    different = differing(tokenizer, Documents.of(documents))
    assert 0 < len(different) < 100
    for text, ids in zip(different, encode_fast(fast_tokenizer(tokenizer), different), strict=True):
        assert tokenizer.encode(text) != ids
        assert same_or_as_likely(tokenizer, text, ids)


def test_transformers_finds_it(both: Both, tmp_path: Path, titles: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer, fast = both
    write_fast_tokenizer(tokenizer, tmp_path, 16)
    found = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    documents = [*titles[:50], *AWKWARD]
    assert found(documents, add_special_tokens=False)["input_ids"] == tokenizer.encode_many(documents)
    back = [found.decode(ids, skip_special_tokens=True) for ids in found(documents)["input_ids"]]
    assert back == [decoded(fast, document) for document in documents]
    assert found("a <eos>")["input_ids"] == [tokenizer.eos, *tokenizer.encode("a <eos>")]
    assert (found.eos_token_id, found.bos_token_id, found.pad_token_id) == (tokenizer.eos, tokenizer.eos, tokenizer.pad)
    found.save_pretrained(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "again"))
    assert again("<eos> b")["input_ids"] == found("<eos> b")["input_ids"]
