"""Fingerprints: 64 bits by which equal documents are found, and MinHash bands by which nearly equal ones are.

The signatures are rensa's, because it was the fastest and no less exact (docs/decisions.md). Two documents are near where all hashes of one band agree, as in FineWeb.
"""

from __future__ import annotations

import hashlib
import re
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortrun.errors import missing_extra
from shortrun.pipeline.corpus_file import Duplicates
from shortrun.pipeline.text import Text

EXACT, CHARACTERS, BYTES, BANDS = 0, 1, 2, 3
"""Columns of a document's fingerprint; the bands are the last ones."""
WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+")
"""A word; in scripts without spaces between words (Thai, Lao, Burmese, Khmer, Japanese, Chinese) a letter."""


def pieces(text: str, words: int) -> list[str]:
    """What documents are compared by: runs of words, in lower case and without punctuation."""
    found = WORD.findall(text.lower()) or [text]
    return [" ".join(found[at : at + words]) for at in range(max(1, len(found) - words + 1))]


class Fingerprints:
    """Makes the fingerprint of a document: a row of unsigned 64-bit numbers."""

    def __init__(self, duplicates: Duplicates) -> None:
        self._about = duplicates
        self._signature: Any = None
        if duplicates.near != "off":
            try:
                from rensa import RMinHash
            except ImportError:
                raise missing_extra("duplicates.near", "corpus", ', or set it to "off"') from None
            self._signature = RMinHash

    @property
    def columns(self) -> int:
        return BANDS + (self._about.bands if self._signature else 0)

    def __call__(self, text: Text) -> NDArray[np.uint64]:
        about, encoded = self._about, text.text.encode()
        row = np.zeros(self.columns, np.uint64)
        row[EXACT] = int.from_bytes(hashlib.sha256(encoded).digest()[:8], "little")
        row[CHARACTERS], row[BYTES] = len(text), len(encoded)
        if self._signature:
            signature = self._signature(num_perm=about.bands * about.rows, seed=about.seed)
            signature.update(pieces(text.text, about.words))
            hashes = np.asarray(signature.digest(), np.uint32).reshape(about.bands, about.rows)
            for number, band in enumerate(hashes):
                row[BANDS + number] = int.from_bytes(hashlib.blake2b(band.tobytes(), digest_size=8).digest(), "little")
        return row


def described(duplicates: Duplicates) -> str:
    """How nearly equal documents are found, for the manifest."""
    return (
        f"MinHash by rensa {version('rensa')}: {duplicates.bands} bands of {duplicates.rows} hashes over runs of "
        f"{duplicates.words} words"
    )
