"""The kinds of tokenizer: training (or fetching) the one a recipe names, and reading any of them back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from shortrun.cache import cached
from shortrun.errors import UserError
from shortrun.limits import read_bounded
from shortrun.recipe import LATER, READ_BY, TokenizerConfig
from shortrun.text.corpus import Corpus
from shortrun.text.documents import Documents
from shortrun.tokens.bpe import BPE, gpt2, train_bpe
from shortrun.tokens.factored import Factored
from shortrun.tokens.pieces import Pieces, train_pieces
from shortrun.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Kind:
    """All there is to know of one kind."""

    make: Callable[[Iterable[str], TokenizerConfig], Tokenizer]
    """Learns it from documents, or fetches it."""
    library: str
    """The package that does the work: another version may learn other pieces."""
    characters_a_token: Callable[[int], float]
    """How long a token is on average, given the vocabulary's size, ends counted as 5; only estimates use it."""


def _learned(vocab_size: int) -> float:
    """On HN-100k, ends counted as 5 characters: 4.36 with 16,000 entries, 3.89 with 8,000, 3.41 with 4,000."""
    return float(4.36 * (vocab_size / 16_000) ** 0.18)


MOST_BYTES = 2**28
"""Of a tokenizer's file: a million entries take 50 MB."""
KINDS = {
    "bpe": Kind(train_bpe, "tokenizers", _learned),
    "unigram": Kind(train_pieces, "sentencepiece", _learned),
    "character": Kind(train_pieces, "sentencepiece", lambda _: 1.08),
    "gpt2": Kind(lambda _, settings: gpt2(settings), "tokenizers", lambda _: 4.39),
}


def make_tokenizer(documents: Iterable[str], settings: TokenizerConfig) -> Tokenizer:
    """The tokenizer a recipe names: learned from documents, or GPT-2's own."""
    kind = KINDS[settings.kind]
    if settings.case == "factored" and settings.kind in READ_BY["tokenizer.case"].values:
        return Factored.learned(documents, lambda texts: kind.make(texts, settings))
    return kind.make(documents, settings)


def tokenizer_for(corpus: Corpus, settings: TokenizerConfig) -> Tokenizer:
    """The tokenizer a recipe names, learned from its corpus, from the cache or made and put there."""
    if settings.kind == "gpt2":  # it is read, not made
        return make_tokenizer((), settings)
    library = KINDS[settings.kind].library
    made_from = {
        # without fields that came later, so that what was made before them is found
        "settings": {
            name: value
            for name, value in settings.model_dump(mode="json").items()
            if LATER.get(f"tokenizer.{name}", ...) != value
        },
        "corpus": corpus.sha256,
        "ranges": corpus.ranges,
        library: version(library),
    }

    def build(folder: Path) -> None:
        make_tokenizer(_fitted_on(corpus, settings), settings).save(folder / "tokenizer.json")

    about = f"{settings.kind} {settings.vocab_size}" + (" without case" if settings.case == "factored" else "")
    return load_tokenizer(cached("tokenizer", made_from, about, build) / "tokenizer.json")


def _fitted_on(corpus: Corpus, settings: TokenizerConfig) -> Documents:
    """The training documents; or all that are selected, those for tuning among them, as Mainrun's baseline does."""
    if settings.fit_on == "train":
        return corpus.split("train")
    return corpus.documents[: corpus.ranges["validation"][1]]


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer file: one written by `save`, or a BPE of the `tokenizers` library with our special tokens."""
    try:
        return _read(read_bounded(path, MOST_BYTES).decode())
    except FileNotFoundError:
        raise UserError(f"There is no tokenizer file {path}") from None
    except UserError:
        raise
    except Exception as error:  # both libraries raise plain exceptions for every kind of malformed file
        raise UserError(f"{path} is not a tokenizer file: {error}") from None


def _read(serialised: str) -> Tokenizer:
    tree = json.loads(serialised)
    if "case" in tree:
        return Factored.read(serialised, _read)
    return Pieces(serialised) if "kind" in tree else BPE(serialised)
