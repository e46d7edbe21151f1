"""Encoded documents: token ids one after the other in a file, each document followed by its end.

What stays in memory is one number for each document. The ids of a split are made once for a corpus and a tokenizer, and
kept in the cache.

Shapes: N ids, D documents.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shortrun.cache import cached
from shortrun.text.corpus import Corpus
from shortrun.tokens.tokenizer import Tokenizer

UNWRITTEN = 2**20
"""Ids that are gathered in memory before they are written to the file."""


class EncodedDocuments:
    """All ids of some documents.

    ids_N: uint16 where the vocabulary fits, else int32. ends_D: int64, the position in ids_N just after each document's
    end.
    """

    def __init__(self, ids_N: NDArray[np.integer], ends_D: NDArray[np.int64], eos: int) -> None:
        self.ids_N, self.ends_D, self.eos = ids_N, ends_D, eos

    @classmethod
    def of(cls, encoded: Iterable[Sequence[int]], eos: int) -> EncodedDocuments:
        """In memory, from the ids of each document without its end."""
        ids, ends = array("i"), array("q")
        for document in encoded:
            ids.extend(document)
            ids.append(eos)
            ends.append(len(ids))
        return cls(np.array(ids, dtype=np.int32), np.array(ends, dtype=np.int64), eos)

    def __len__(self) -> int:
        return len(self.ends_D)

    @property
    def lengths_D(self) -> NDArray[np.int64]:
        """Ids of each document, its end among them."""
        return np.diff(self.ends_D, prepend=0)


def encoded_split(corpus: Corpus, split: str, tokenizer: Tokenizer) -> EncodedDocuments:
    """The ids of a split, from the cache or made and put there.

    Raises UserError for a split that the corpus has not, and, showing a document, where the split is scored (any but
    "train") and the tokenizer does not give back every document of it exactly.
    """
    documents = corpus.split(split)
    encode = tokenizer.encode_each if split == "train" else tokenizer.encode_losslessly
    type_code = _type_code(tokenizer)

    def build(folder: Path) -> None:
        ends, written = array("q"), 0
        with (folder / "ids").open("wb") as file:
            ids = array(type_code)
            for document in encode(documents):
                ids.extend(document)
                ids.append(tokenizer.eos)
                ends.append(written + len(ids))
                if len(ids) >= UNWRITTEN:
                    ids.tofile(file)
                    written += len(ids)
                    del ids[:]
            ids.tofile(file)
        (folder / "ends").write_bytes(ends.tobytes())

    folder = _cached(corpus, split, tokenizer, "documents", build)
    ids_N = np.memmap(folder / "ids", dtype=type_code, mode="r")
    return EncodedDocuments(ids_N, np.fromfile(folder / "ends", dtype=np.int64), tokenizer.eos)


def stream_of_split(corpus: Corpus, split: str, tokenizer: Tokenizer) -> NDArray[np.integer]:
    """The ids of a split's documents joined into one stream, which the official loss reads; from the cache or made."""
    type_code = _type_code(tokenizer)

    def build(folder: Path) -> None:
        with (folder / "ids").open("wb") as file:
            for piece in tokenizer.encode_joined(corpus.split(split)):
                array(type_code, piece).tofile(file)

    return np.memmap(_cached(corpus, split, tokenizer, "stream", build) / "ids", dtype=type_code, mode="r")


def _type_code(tokenizer: Tokenizer) -> str:
    return "H" if tokenizer.vocab_size <= 2**16 else "i"


def _cached(corpus: Corpus, split: str, tokenizer: Tokenizer, what: str, build: Callable[[Path], None]) -> Path:
    made_from = {
        "what": what,
        "scored": split != "train",
        "documents": corpus.manifest["splits"][split]["sha256"],
        "tokenizer": tokenizer.sha256,
    }
    return cached("ids", made_from, f"{split} as {what}", build)
