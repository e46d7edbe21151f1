"""Which split a group of near-duplicates goes to.

The draw is a hash of the group's first document with the seed, so that documents that come later do not move those that were
there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortrun.pipeline.corpus_file import CorpusFile
from shortrun.pipeline.fingerprints import EXACT
from shortrun.pipeline.groups import Corpus, Numbers


def drawn(corpus: Corpus, file: CorpusFile, groups: Numbers) -> NDArray[np.bool_]:
    """Whether each document validates, if it is the first of its group.

    Where chance gives no group to validation, the group with the smallest hash goes there.
    """
    made: Any = corpus.array("drawn", np.bool_)
    limit = int(file.split.validation * 2**64)
    least, lowest, some = -1, np.uint64(2**64 - 1), limit == 0
    for unit, numbers in corpus.ranges():
        wish = file.input[corpus.inputs[unit]].split
        if wish != "auto":
            made[numbers] = wish == "validation"
            some |= wish == "validation"
            continue
        own = np.asarray(groups[numbers]) == np.arange(numbers.start, numbers.stop)
        hashes = np.where(own, mixed(corpus.column(unit, EXACT), file.split.seed), np.uint64(2**64 - 1))
        made[numbers] = hashes < np.uint64(limit)
        some |= bool(made[numbers].any())
        if hashes.min() < lowest:
            least, lowest = numbers.start + int(hashes.argmin()), hashes.min()
    if not some and least >= 0:
        made[least] = True
    return made  # type: ignore[no-any-return]


def mixed(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Hashes mixed with a seed (the finaliser of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = hashes + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
