"""The built-in corpus: headlines from a probabilistic grammar, each with its exact probability.

Why: on real titles nobody knows how low the loss could go. These are drawn from a distribution that is known, so the
loss of a perfect model on any set of them is known too: `floor_nats`. No model beats it except by luck on that set
(Gibbs' inequality), which makes it a test of the training (how near is the floor?) and of the scoring (a loss below it
is a bug). It also needs no network. The floor is about 0.49 nats per character, titles' ends counted as 5 characters.

How: the grammar is an acyclic graph of three kinds of node. `Words` draws one of its strings, `Choice` one of its
options, `Sequence` joins its parts. A title may come about in more than one way ("a fast cache in C" from two subjects),
so its probability is not that of one derivation but the sum over all. An inside dynamic programme computes it: for each
node and start position, the map from every position where the node's text may end to its probability.

    from shortrun.text.synthetic import floor_nats, sample_titles
    titles = sample_titles(100_000, seed=1337)
    floor_nats(titles) / sum(len(title) + 5 for title in titles)   # the lowest expected loss, in nats per character

The words and sentence patterns are in `shortrun.text.words`; all are ours, and what they say of anyone is invented.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence as Many
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from string import Formatter

from shortrun.errors import UserError
from shortrun.text.words import COMMON, DOMAINS, FAMILIES, INFLECTIONS, PHRASES

ZIPF_SHIFT = 2.7
"""A word's probability is proportional to 1 / (rank + shift), ranks from 1; Mandelbrot's estimate for English."""

Ends = dict[int, float]
"""Where a node's text may end -> the probability that the node makes just that text."""
Memo = dict[tuple["Node", int], Ends]
