"""What every kind of tokenizer promises: a document to token ids and back, exactly.

A document is encoded on its own; its end is the id `eos`, never text, so one that contains the characters "<eos>" keeps
them.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from shortrun.errors import UserError

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
AT_ONCE, CHARACTERS_AT_ONCE = 50_000, 2**22
"""Documents whose ids are Python lists at any one time: so many, or fewer of more characters than that together."""


class Tokenizer(ABC):
    """A trained tokenizer. `tokens.kinds` makes one and reads one back."""

    vocab_size: int
    eos: int
    pad: int | None
    """Ids that no document ever holds, where the vocabulary has them: padding, and what could not be encoded."""
    unk: int | None

    def __init__(self, serialised: str) -> None:
        self.serialised = serialised
        """What its file holds."""

    @abstractmethod
    def encode_many(self, documents: Sequence[str]) -> list[list[int]]:
        """Ids of each document, without its end."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of one document's ids: `decode(encode(text)) == text` for every document the gate lets through."""

    def encode(self, document: str) -> list[int]:
        """Ids of one document, without its end."""
        return self.encode_many([document])[0]

    def encode_each(self, documents: Iterable[str]) -> Iterator[list[int]]:
        """Ids of each document, without its end."""
        for piece in _pieces(documents):
            yield from self.encode_many(piece)

    def encode_joined(self, documents: Iterable[str]) -> Iterator[list[int]]:
        """Ids of the documents one after the other, each followed by its end: the stream that the official loss reads.

        The stream comes in pieces of many documents.
        """
        for piece in _pieces(documents):
            yield self._joined_ids(piece)

    def _joined_ids(self, documents: Sequence[str]) -> list[int]:
        return [token for ids in self.encode_many(documents) for token in (*ids, self.eos)]

    @property
    def sha256(self) -> str:
        """Fingerprint of the tokenizer's file."""
        return hashlib.sha256(self.serialised.encode()).hexdigest()

    def encode_losslessly(self, documents: Iterable[str]) -> Iterator[list[int]]:
        """Ids of each document; raises UserError, showing it, for one that does not come back unchanged or needs <unk>."""
        for piece in _pieces(documents):
            for document, ids in zip(piece, self.encode_many(piece), strict=True):
                self._require_same(document, ids)
                yield ids

    def _require_same(self, document: str, ids: list[int]) -> None:
        back = self.decode(ids)
        if back != document or self.unk in ids:
            raise UserError(
                "The tokenizer does not give back every document, so a loss would not be comparable and none is "
                f"computed.\n  document: {document!r}\n  decoded:  {back!r}\n"
                '(the baseline\'s tokenizer knows only the bytes it was fitted on; tokenizer.byte_alphabet = "all" '
                "knows all 256)"
            )

    def save(self, path: Path) -> None:
        """Writes the tokenizer to a file that `tokens.kinds.load_tokenizer` reads."""
        path.write_text(self.serialised, encoding="utf-8")


def _pieces(documents: Iterable[str]) -> Iterator[list[str]]:
    piece: list[str] = []
    characters = 0
    for document in documents:
        piece.append(document)
        characters += len(document)
        if len(piece) >= AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield piece
            piece, characters = [], 0
    if piece:
        yield piece
