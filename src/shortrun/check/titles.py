"""What is known of Mainrun's titles: how many tokens and characters the public revisions have, and how to tell them apart.

Mainrun reads the hub's data set julien040/hacker-news-posts without a pin. It was refreshed on 2026-06-25, between 14:07 and
14:49 UTC by the logs of a public attempt, so losses from before and after are of other titles. The counts are those that public
logs and reports print; HN-100k, a stand-in from public repositories, was measured here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

TITLES = 100_000
REFRESHED = 1_782_396_420
"""Seconds since 1970 at 2026-06-25 14:07 UTC."""


@dataclass(frozen=True)
class Revision:
    """A selection of 90,000 training and 10,000 validation titles by seed 1337."""

    name: str
    train_tokens: int
    """By a byte-level BPE of 16,000 entries fitted on all of them, as the baseline's."""
    validation_tokens: int
    validation_characters: int
    """Of the joined text, where `<eos>` counts as 5."""


REVISIONS = (
    Revision("the hub's titles before 2026-06-25", 1_102_455, 121_400, 533_366),
    Revision("HN-100k, a stand-in for the hub's titles", 1_133_101, 126_186, 548_888),
    Revision("the hub's titles since 2026-06-25", 1_168_720, 129_600, 562_970),
)
KINDS = {"BPE": 1.0, "Unigram": 1.1115}
"""Tokens that a tokenizer makes of the same text, against a BPE of the same size: 1,225,306 / 1,102,455 and 1,299,217 /
1,168,720 with 16,000 entries."""
SIZES = (2_000, 4_000, 6_000, 8_192, 12_288, 16_000, 16_384, 24_000, 32_000)
TOKENS = (180_754, 155_027, 142_605, 135_124, 126_015, 121_400, 120_737, 115_000, 111_700)
"""Validation tokens of the older revision by the size of a BPE's vocabulary."""
CLOSE = 0.012
"""How far a count may be off: sizes between those of the table are interpolated."""


def revision_of(train_tokens: int) -> Revision | None:
    """The revision that makes exactly so many training tokens with the baseline's tokenizer."""
    return next((one for one in REVISIONS if one.train_tokens == train_tokens), None)


def bpe_tokens(vocab_size: int) -> float | None:
    """Training tokens that a lossless BPE of that size makes of the revision with the fewest; None outside the table."""
    if not SIZES[0] <= vocab_size <= SIZES[-1]:
        return None
    validation = math.exp(float(np.interp(math.log(vocab_size), np.log(SIZES), np.log(TOKENS))))
    return validation * REVISIONS[0].train_tokens / REVISIONS[0].validation_tokens


def likely_revisions(train_tokens: int, vocab_size: int) -> list[tuple[Revision, str]]:
    """Which revisions, by which kind of tokenizer, could have made so many training tokens; the nearest first."""
    least = bpe_tokens(vocab_size)
    if least is None:
        return []
    found = []
    for one in REVISIONS:
        for kind, more in KINDS.items():
            expected = least * one.train_tokens / REVISIONS[0].train_tokens * more
            if abs(train_tokens / expected - 1) <= CLOSE:
                found.append((abs(train_tokens / expected - 1), one, kind))
    return [(one, kind) for _, one, kind in sorted(found, key=lambda each: each[0])]
