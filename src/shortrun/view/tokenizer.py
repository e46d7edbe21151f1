"""What a tokenizer does to documents: whether it gives them back, how long they get, which pieces it uses.

shortrun tokenizer RUN                              a run's tokenizer on its own documents
shortrun tokenizer small --sizes 4000 8000 16000    several vocabularies of a recipe's kind, compared

Shapes: D documents, V vocabulary, N ids, L letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortrun.text.documents import Documents
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.tokenizer import Tokenizer

CODE_POINTS = 0x110000
AT_ONCE = 4096
"""Documents that are Python strings, and their code points an array, at any one time."""
EXAMPLES = 5
"""Documents that did not come back, as examples."""


@dataclass(frozen=True)
class Use:
    """A tokenizer on the documents of one split."""

    documents: int
    characters: int
    words: int
    """What white space divides."""
    exact: int
    """Documents that come back exactly, without <unk>."""
    lost: tuple[str, ...]
    """The first of the others."""
    characters_known: int
    """Of the characters, those that some piece holds whole."""
    letters: int
    """Different characters."""
    letters_known: int
    lengths_D: NDArray[np.int64]
    """Tokens of each document, its end among them."""
    counts_V: NDArray[np.int64]
    """How often each entry was used, ends among them."""
    unknown: float
    """Share of the tokens that are <unk>; like the next, without the ends."""
    fallback: float
    """Share of the tokens that spell bytes of characters without a piece."""

    @property
    def tokens(self) -> int:
        """Without the documents' ends."""
        return int(self.lengths_D.sum()) - self.documents

    @property
    def tokens_per_character(self) -> float:
        return self.tokens / max(self.characters, 1)

    @property
    def fertility(self) -> float:
        """Tokens per word."""
        return self.tokens / max(self.words, 1)

    def as_dict(self, block_size: int) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "characters": self.characters,
            "words": self.words,
            "tokens": self.tokens,
            "given_back": self.exact / self.documents,
            "lost_examples": self.lost,
            "characters_known": self.characters_known / max(self.characters, 1),
            "distinct_characters": self.letters,
            "distinct_characters_known": self.letters_known,
            "unknown_rate": self.unknown,
            "byte_fallback_rate": self.fallback,
            "tokens_per_document": self.tokens / self.documents,
            "tokens_per_character": self.tokens_per_character,
            "fertility": self.fertility,
            "length": {
                "mean": float(self.lengths_D.mean()),
                "median": float(np.median(self.lengths_D)),
                "p95": float(np.percentile(self.lengths_D, 95)),
                "max": int(self.lengths_D.max()),
                "longer_than_block": float((self.lengths_D > block_size).mean()),
            },
        }


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer's entries are."""

    special_V: NDArray[np.bool_]
    """Padding, a document's end, unknown."""
    byte_V: NDArray[np.bool_]
    """A single byte, most of which a byte-level vocabulary holds whether they occur or not."""
    fallback_V: NDArray[np.bool_]
    """Bytes that are no whole characters."""
    letters_V: NDArray[np.int64]
    """Characters of each."""
    known: frozenset[str]
    """All characters that some piece holds."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        ids = range(tokenizer.vocab_size)
        spelled = [tokenizer.bytes_of(token) for token in ids]
        special_V = np.isin(
            ids, [token for token in (tokenizer.pad, tokenizer.eos, tokenizer.unk) if token is not None]
        )
        fallback_V = np.array([tokenizer.is_fallback(token) for token in ids])
        texts = [data.decode(errors="ignore") for data in spelled]
        whole = ~special_V & ~fallback_V
        return cls(
            special_V,
            np.array([len(data) == 1 for data in spelled]),
            fallback_V,
            np.array([len(text) for text in texts]),
            tokenizer.letters_spelled_by(
                frozenset("".join(text for text, counts in zip(texts, whole, strict=True) if counts))
            ),
        )


@dataclass(frozen=True)
class TokenizerReport:
    """What `shortrun tokenizer` shows of one tokenizer."""

    tokenizer: Tokenizer
    block_size: int
    """What documents' lengths are held against."""
    uses: Mapping[str, Use]
    """By split, the training documents first; none where there are no documents."""
    vocabulary: Vocabulary

    @property
    def train(self) -> Use | None:
        return self.uses.get("train")

    def most_frequent(self, count: int) -> list[dict[str, Any]]:
        """The entries that training documents use most, their end among them."""
        if self.train is None:
            return []
        counts_V = self.train.counts_V
        return [self._piece(token) for token in np.argsort(-counts_V, kind="stable")[:count] if counts_V[token]]

    def longest(self, count: int) -> list[dict[str, Any]]:
        """The pieces of most characters."""
        letters_V = np.where(self.vocabulary.special_V | self.vocabulary.fallback_V, 0, self.vocabulary.letters_V)
        return [self._piece(token) for token in np.argsort(-letters_V, kind="stable")[:count] if letters_V[token]]

    @property
    def never_used(self) -> NDArray[np.int64]:
        """Ids that no training document holds: learned pieces, not the special tokens, and not the bytes."""
        return self._unused(~self.vocabulary.byte_V)

    @property
    def never_used_bytes(self) -> int:
        """Of the vocabulary's single bytes."""
        return len(self._unused(self.vocabulary.byte_V))

    def as_dict(self, show: int) -> dict[str, Any]:
        """What `shortrun tokenizer --json` prints, with `show` pieces of each kind."""
        return {
            **self.row(),
            "sha256": self.tokenizer.sha256,
            "block_size": self.block_size,
            "bytes_never_used": self.never_used_bytes if self.train else None,
            "splits": {name: use.as_dict(self.block_size) for name, use in self.uses.items()},
            "most_frequent": self.most_frequent(show),
            "longest": self.longest(show),
            "never_used_examples": [self.tokenizer.piece(token) for token in self.never_used[:show].tolist()],
        }

    def row(self) -> dict[str, Any]:
        """What sizes are compared by. Lengths are of validation documents, because the others it was learned from."""
        use = self.uses.get("validation")
        pieces = int((~self.vocabulary.special_V & ~self.vocabulary.byte_V).sum())
        unused = len(self.never_used) if self.train else None
        return {
            "vocab_size": self.tokenizer.vocab_size,
            "pieces": pieces,
            "mean_length": float(use.lengths_D.mean()) if use else None,
            "tokens_per_character": use.tokens_per_character if use else None,
            "fertility": use.fertility if use else None,
            "never_used": unused,
            "never_used_share": None if unused is None else unused / max(pieces, 1),
        }

    def _unused(self, among_V: NDArray[np.bool_]) -> NDArray[np.int64]:
        if self.train is None:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(among_V & ~self.vocabulary.special_V & (self.train.counts_V == 0))

    def _piece(self, token: np.int64) -> dict[str, Any]:
        use = self.train
        count = int(use.counts_V[token]) if use else None
        return {
            "id": int(token),
            "token": self.tokenizer.piece(int(token)),
            "count": count,
            "share": None if use is None or count is None else count / int(use.counts_V.sum()),
        }


def report_on(tokenizer: Tokenizer, splits: Mapping[str, Documents], block_size: int) -> TokenizerReport:
    """Looks at a tokenizer on the documents of some splits, "train" and "validation" among them where there are any."""
    vocabulary = Vocabulary.of(tokenizer)
    uses = {name: _use(tokenizer, documents, vocabulary) for name, documents in splits.items()}
    return TokenizerReport(tokenizer, block_size, uses, vocabulary)


def _use(tokenizer: Tokenizer, documents: Documents, vocabulary: Vocabulary) -> Use:
    letters_L = np.zeros(CODE_POINTS, dtype=np.int64)
    exact, words, lost = 0, 0, list[str]()

    def each() -> Iterator[list[int]]:
        nonlocal exact, words, letters_L
        for piece in documents.pieces(AT_ONCE):
            letters_L += _letters(piece)
            for text, ids in zip(piece, tokenizer.encode_many(piece), strict=True):
                words += len(text.split())
                if tokenizer.gives_back(text, ids):
                    exact += 1
                elif len(lost) < EXAMPLES:
                    lost.append(text)
                yield ids

    encoded = EncodedDocuments.of(each(), tokenizer.eos)
    counts_V = np.bincount(encoded.ids_N, minlength=tokenizer.vocab_size)
    tokens = max(len(encoded.ids_N) - len(encoded), 1)
    known = np.array([ord(letter) for letter in vocabulary.known], dtype=np.int64)
    return Use(
        documents=len(documents),
        characters=int(letters_L.sum()),
        words=words,
        exact=exact,
        lost=tuple(lost),
        characters_known=int(letters_L[known].sum()),
        letters=int(np.count_nonzero(letters_L)),
        letters_known=int(np.count_nonzero(letters_L[known])),
        lengths_D=encoded.lengths_D,
        counts_V=counts_V,
        unknown=0.0 if tokenizer.unk is None else float(counts_V[tokenizer.unk] / tokens),
        fallback=float(counts_V[vocabulary.fallback_V].sum() / tokens),
    )


def _letters(texts: Sequence[str]) -> NDArray[np.int64]:
    """How often each code point occurs."""
    return np.bincount(np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32), minlength=CODE_POINTS)
