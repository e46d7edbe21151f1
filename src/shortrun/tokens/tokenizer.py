"""What every kind of tokenizer promises: a document to token ids and back, exactly.

A document is encoded on its own; its end is the id `eos`, never text, so one that contains the characters "<eos>" keeps
them.
"""

from __future__ import annotations

import codecs
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from shortrun.disk import write_atomically
from shortrun.errors import UserError

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
AT_ONCE, CHARACTERS_AT_ONCE = 50_000, 2**20
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

    @abstractmethod
    def bytes_of(self, token: int) -> bytes:
        """The bytes that an id stands for, with the space that a document's first one may begin with; UTF-8 when joined.

        A special token stands for its name.
        """

    def is_fallback(self, token: int) -> bool:
        """Whether an id spells what has no piece of its own: its bytes are no whole characters."""
        return not _is_utf8(self.bytes_of(token))

    def piece(self, token: int) -> str:
        """An id as a person reads it; bytes that are no whole character as "\\xe2"."""
        return self.bytes_of(token).decode(errors="backslashreplace")

    def texts_of(self, ids: Sequence[int]) -> list[str]:
        """What each id of a document adds to its text: joined, they are the text that `decode` gives.

        A character of several ids is added by the last of them, and those before it add nothing.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        texts = [decoder.decode(self.bytes_of(token)) for token in ids]
        if texts:
            texts[-1] += decoder.decode(b"", final=True)
        return texts

    def text_after(self, ids: Sequence[int], token: int) -> str:
        """What an id adds to the text of a document's first ids, if it follows them and is whole characters."""
        return self.piece(token) if ids else self.texts_of([token])[0]

    def letters_spelled_by(self, letters: frozenset[str]) -> frozenset[str]:
        """The letters of text that pieces with these letters spell."""
        return letters

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
                if not self.gives_back(document, ids):
                    self._refuse(document, ids)
                yield ids

    def gives_back(self, document: str, ids: Sequence[int]) -> bool:
        """Whether a document's ids decode to it exactly, without <unk>."""
        return self.unk not in ids and self.decode(ids) == document

    def _refuse(self, document: str, ids: list[int]) -> NoReturn:
        raise UserError(
            "The tokenizer does not give back every document, so a loss would not be comparable and none is "
            f"computed.\n  document: {document!r}\n  decoded:  {self.decode(ids)!r}\n"
            '(the baseline\'s tokenizer knows only the bytes it was fitted on; tokenizer.byte_alphabet = "all" '
            "knows all 256)"
        )

    def save(self, path: Path) -> None:
        """Writes the tokenizer to a file that `tokens.kinds.load_tokenizer` reads."""
        write_atomically(path, self.serialised.encode())


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


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
