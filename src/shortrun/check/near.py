"""Near-duplicates: which documents have almost the same letters as one of others, exactly, without comparing all pairs.

A document is the set of its stretches of SHINGLE characters, lower-cased, each run of spaces as one. Two documents are near
when the Jaccard index of their sets is at least the threshold t. Sets that near share one of their rarest stretches, when the
rarest (1 - t) share of each set and one more is looked at (the prefix filter of Chaudhuri et al. 2006, "A primitive operator
for similarity joins"). So only pairs that share a rare stretch are compared.

Shapes: N characters of all documents, S stretches, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SHINGLE = 5
BASE = np.uint64(0x100000001B3)
"""Of the polynomial that hashes a stretch, FNV's prime; two of 5 million stretches collide with probability 1e-6."""


class Near(NamedTuple):
    """A document and the other one that is nearest to it."""

    document: int
    other: int
    jaccard: float


class _Sets(NamedTuple):
    """Stretches of documents, sorted by document and then from the rarest to the most frequent."""

    stretch_S: NDArray[np.int64]
    """The rank of each by its frequency."""
    begins_D: NDArray[np.int64]

    def of(self, document: int) -> NDArray[np.int64]:
        return self.stretch_S[self.begins_D[document] : self.begins_D[document + 1]]


def near_duplicates(documents: Sequence[str], others: Sequence[str], threshold: float) -> list[Near]:
    """For each document that has any, its nearest among `others`, with a Jaccard index of at least `threshold`.

    100,000 titles take about 10 seconds on one core.
    """
    if not documents or not others:
        return []
    sets = _sets([*documents, *others])
    boundary = len(documents)
    owner, stretch = _prefixes(sets, threshold)
    mine = owner < boundary
    best: dict[int, Near] = {}
    for document, other in _sharing(owner[mine], stretch[mine], owner[~mine], stretch[~mine]):
        one, two = sets.of(document), sets.of(other)
        if min(len(one), len(two)) < threshold * max(len(one), len(two)):
            continue
        common = len(np.intersect1d(one, two, assume_unique=True))
        jaccard = common / (len(one) + len(two) - common)
        if jaccard >= threshold and (document not in best or jaccard > best[document].jaccard):
            best[document] = Near(document, other - boundary, jaccard)
    return [best[document] for document in sorted(best)]


def _sets(texts: Sequence[str]) -> _Sets:
    hashes, owners = _stretches(texts)
    order = np.lexsort((hashes, owners))
    hashes, owners = hashes[order], owners[order]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    hashes, owners = hashes[new], owners[new]
    _, number, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    ranks = rank[number]
    order = np.lexsort((ranks, owners))
    begins = np.searchsorted(owners, np.arange(len(texts) + 1))
    return _Sets(ranks[order], begins)


def _stretches(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of every stretch of every text, and whose it is; a text that is shorter than one is a stretch itself."""
    plain = [" ".join(text.casefold().split()).ljust(SHINGLE) for text in texts]
    lengths = np.array([len(text) for text in plain], dtype=np.int64)
    letters_N = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    size = len(letters_N) - SHINGLE + 1
    hashes = np.zeros(size, dtype=np.uint64)
    for place in range(SHINGLE):
        hashes = hashes * BASE + letters_N[place : place + size] + np.uint64(1)
    owners = np.repeat(np.arange(len(plain)), lengths)
    inside = owners[:size] == owners[SHINGLE - 1 :]
    return hashes[inside], owners[:size][inside]


def _prefixes(sets: _Sets, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rarest stretches of each document, as many as two sets that are near must share one of."""
    sizes = np.diff(sets.begins_D)
    taken = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
    owner = np.repeat(np.arange(len(sizes)), taken)
    first = np.repeat(sets.begins_D[:-1] - (np.cumsum(taken) - taken), taken)
    return owner, sets.stretch_S[first + np.arange(len(owner))]


def _sharing(
    owner_A: NDArray[np.int64], stretch_A: NDArray[np.int64], owner_B: NDArray[np.int64], stretch_B: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Pairs of an owner of A and one of B that have a stretch in common."""
    order = np.argsort(stretch_B, kind="stable")
    owner_B, stretch_B = owner_B[order], stretch_B[order]
    begin = np.searchsorted(stretch_B, stretch_A, side="left")
    found = np.searchsorted(stretch_B, stretch_A, side="right") - begin
    one_P = np.repeat(owner_A, found)
    two_P = owner_B[np.arange(len(one_P)) + np.repeat(begin - (np.cumsum(found) - found), found)]
    pairs = np.unique(np.stack([one_P, two_P]), axis=1)
    return list(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True))
