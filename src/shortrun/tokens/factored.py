"""A tokenizer of texts whose case has been factored out (`tokens/casing.py`), around one of the other kinds.

The marks are ids, alone or in one piece with the word that they are about, and never text: decoding, the texts that tokens add
and every count of characters are of the documents as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise

from shortrun.errors import UserError
from shortrun.tokens.casing import AS_IS, HEADLINE, MARKS, OTHERWISE, RULES, SENTENCE, both_cases, factored, restored
from shortrun.tokens.tokenizer import Tokenizer

SHOWN = {HEADLINE: "<headline>", SENTENCE: "<sentence>", OTHERWISE: "<other case>", AS_IS: "<as is>"}
"""How a person reads a mark."""


class Factored(Tokenizer):
    """Serialised as {"case": the number of the rules, "tokenizer": what the inner one's file holds}."""

    def __init__(self, inner: Tokenizer) -> None:
        super().__init__(json.dumps({"case": RULES, "tokenizer": inner.serialised}))
        self.inner, self.vocab_size = inner, inner.vocab_size
        self.pad, self.eos, self.unk = inner.pad, inner.eos, inner.unk

    @classmethod
    def read(cls, serialised: str, load: Callable[[str], Tokenizer]) -> Factored:
        """From what its file holds, given what reads the inner one."""
        tree = json.loads(serialised)
        if tree["case"] != RULES:
            raise UserError(f"the tokenizer factors case by rules {tree['case']}, and this version knows rules {RULES}")
        return cls(load(tree["tokenizer"]))

    @classmethod
    def learned(cls, documents: Iterable[str], learn: Callable[[Iterable[str]], Tokenizer]) -> Factored:
        """With an inner one that `learn` makes from the factored documents."""
        return cls(learn(factored(document) for document in documents))

    def encode_many(self, documents: Sequence[str]) -> list[list[int]]:
        encoded = self.inner.encode_many([factored(document) for document in documents])
        # some tokenizers begin even an empty text with a space
        return [ids if document else [] for document, ids in zip(documents, encoded, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(restored(self.inner.decode(ids)))

    def bytes_of(self, token: int) -> bytes:
        """The bytes that an id stands for, lower-cased words as they are and marks left out."""
        spelled = self.inner.bytes_of(token)
        for mark in MARKS:
            spelled = spelled.replace(mark.encode(), b"")
        return spelled

    def is_fallback(self, token: int) -> bool:
        return self.inner.is_fallback(token)

    def letters_spelled_by(self, letters: frozenset[str]) -> frozenset[str]:
        return both_cases(letters)

    def piece(self, token: int) -> str:
        """An id as a person reads it: its words are lower-cased, and marks have names."""
        return "".join(SHOWN.get(letter, letter) for letter in self.inner.piece(token))

    def texts_of(self, ids: Sequence[int]) -> list[str]:
        texts = self.inner.texts_of(ids)
        letters = restored("".join(texts))
        ends = accumulate(map(len, texts), initial=0)
        return ["".join(letters[begin:end]) for begin, end in pairwise(ends)]

    def text_after(self, ids: Sequence[int], token: int) -> str:
        return self.texts_of([*ids, token])[-1]
