"""What every kind of tokenizer promises: a title to token ids and back, exactly.

A title is encoded on its own; its end is the id `eos`, never text, so a title that contains the characters "<eos>" keeps
them.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from shortrun.errors import UserError

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"


class Tokenizer(ABC):
    """A trained tokenizer. `tokens.kinds` makes one and reads one back."""

    vocab_size: int
    eos: int
    pad: int | None
    """Ids that no title ever holds, where the vocabulary has them: padding, and what could not be encoded."""
    unk: int | None

    def __init__(self, serialised: str) -> None:
        self._serialised = serialised

    @abstractmethod
    def encode_many(self, titles: Iterable[str]) -> list[list[int]]:
        """Ids of each title, without its end."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of one title's ids: `decode(encode(title)) == title` for every title the gate lets through."""

    def encode_slices(self, titles: Sequence[str], size: int = 50_000) -> Iterator[list[int]]:
        """Ids of each title, one after the other; never more than `size` titles' ids are there at once."""
        for start in range(0, len(titles), size):
            yield from self.encode_many(titles[start : start + size])

    def encode(self, title: str) -> list[int]:
        """Ids of one title, without its end."""
        return self.encode_many([title])[0]

    def encode_joined(self, titles: Iterable[str]) -> list[int]:
        """Ids of the titles one after the other, each followed by its end: the stream that the official loss reads."""
        return [token for ids in self.encode_many(titles) for token in (*ids, self.eos)]

    @property
    def sha256(self) -> str:
        """Fingerprint of the tokenizer's file."""
        return hashlib.sha256(self._serialised.encode()).hexdigest()

    def require_lossless(self, titles: Sequence[str]) -> None:
        """Raises UserError, showing a title, unless each title comes back from its ids unchanged and without <unk>."""
        for title, ids in zip(titles, self.encode_many(titles), strict=True):
            back = self.decode(ids)
            if back != title or self.unk in ids:
                raise UserError(
                    "The tokenizer does not give back every title, so a loss would not be comparable and none is "
                    f"computed.\n  title:   {title!r}\n  decoded: {back!r}\n"
                    '(the baseline\'s tokenizer knows only the bytes it was fitted on; tokenizer.byte_alphabet = "all" '
                    "knows all 256)"
                )

    def save(self, path: Path) -> None:
        """Writes the tokenizer to a file that `tokens.kinds.load_tokenizer` reads."""
        path.write_text(self._serialised, encoding="utf-8")
