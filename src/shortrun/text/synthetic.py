"""The built-in corpus: headlines from a probabilistic grammar, each with its exact probability.

Why: on real titles nobody knows how low the loss could go. These are drawn from a distribution that is known, so the
loss of a perfect model on any set of them is known too: `floor_nats`. No model beats it except by luck on that set
(Gibbs' inequality), which makes it a test of the training (how near is the floor?) and of the scoring (a loss below it
is a bug). It also needs no network. The floor is about 0.29 nats per character, titles' ends counted as 5 characters
(17.6 nats and 56 characters a title); about one title in nine also occurs among 90,000 others, as frequent ones must.

How: the grammar is an acyclic graph of three kinds of node. `Words` draws one of its strings, `Choice` one of its
options, `Sequence` joins its parts. A title may come about in more than one way ("a fast cache in C" from two subjects),
so its probability is not that of one derivation but the sum over all. An inside dynamic programme computes it: for each
node and start position, the map from every position where the node's text may end to its probability.

    from shortrun.text.synthetic import floor_nats, sample_titles
    titles = sample_titles(100_000, seed=1337)
    floor_nats(titles) / sum(len(title) + 5 for title in titles)   # the lowest expected loss, in nats per character

The words and sentence patterns are in `headlines.toml`; all are ours, and what they say of anyone is invented.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import accumulate
from string import Formatter
from typing import TypeVar

from shortrun.errors import UserError
from shortrun.text.headlines import headlines, inflect

T = TypeVar("T")

ZIPF_SHIFT = 2.7
"""A word's probability is proportional to 1 / (rank + shift), ranks from 1; Mandelbrot's estimate for English."""

Ends = dict[int, float]
"""Where a node's text may end -> the probability that the node makes just that text."""
Memo = dict[tuple["Node", int], Ends]


class Node:
    """A part of the grammar. Nodes are equal only to themselves, and none contains itself."""

    def draw(self, rng: random.Random) -> str:
        """A text of this node, drawn with its probability."""
        raise NotImplementedError

    def match(self, text: str, start: int, memo: Memo) -> Ends:
        """Where texts of this node that begin at `start` end in `text`, with the probability of each."""
        raise NotImplementedError

    def ends(self, text: str, start: int, memo: Memo) -> Ends:
        """`match`, worked out once per text and start: many sentences begin with the same node."""
        found = memo.get((self, start))
        if found is None:
            found = memo[self, start] = self.match(text, start, memo)
        return found


class Words(Node):
    """One of some strings; a literal is a list of one."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.words = tuple(weights)
        self.cumulative = _cumulative(weights.values())
        self.probability = dict(zip(weights, _shares(weights.values()), strict=True))
        self.lengths = sorted({len(word) for word in weights})

    def draw(self, rng: random.Random) -> str:
        return self.words[bisect(self.cumulative, rng.random())]

    def match(self, text: str, start: int, memo: Memo) -> Ends:  # noqa: ARG002, a leaf has no parts to remember
        probability = self.probability
        pieces = ((start + length, text[start : start + length]) for length in self.lengths)
        return {end: probability[piece] for end, piece in pieces if piece in probability and end <= len(text)}


class Choice(Node):
    """One of some nodes."""

    def __init__(self, weights: Mapping[Node, float]) -> None:
        self.options = tuple(zip(weights, _shares(weights.values()), strict=True))
        self.cumulative = _cumulative(weights.values())

    def draw(self, rng: random.Random) -> str:
        return self.options[bisect(self.cumulative, rng.random())][0].draw(rng)

    def match(self, text: str, start: int, memo: Memo) -> Ends:
        total: Ends = {}
        for option, share in self.options:
            for end, probability in option.ends(text, start, memo).items():
                total[end] = total.get(end, 0.0) + share * probability
        return total


class Sequence(Node):
    """Some nodes, one after the other."""

    def __init__(self, *parts: Node) -> None:
        self.parts = parts

    def draw(self, rng: random.Random) -> str:
        return "".join([part.draw(rng) for part in self.parts])

    def match(self, text: str, start: int, memo: Memo) -> Ends:
        reached: Ends = {start: 1.0}
        for part in self.parts:
            before, reached = reached, {}
            for middle, so_far in before.items():
                for end, probability in part.ends(text, middle, memo).items():
                    reached[end] = reached.get(end, 0.0) + so_far * probability
            if not reached:
                break  # most sentences differ from the text within a word or two
        return reached


def string_probability(node: Node, text: str) -> float:
    """The probability that the node makes just this string, summed over all the ways in which it can."""
    return node.ends(text, 0, {}).get(len(text), 0.0)


def sample_titles(count: int, seed: int) -> list[str]:
    """That many independent titles. The same seed gives the same titles everywhere, a larger count the same and more.

    Raises UserError for a negative count or seed.
    """
    if count < 0 or seed < 0:  # Python's generator would take seed -1 for seed 1
        raise UserError(f"Synthetic titles need a count and a seed of at least 0; got count {count} and seed {seed}")
    rng, titles = random.Random(seed), grammar()
    return [titles.draw(rng) for _ in range(count)]


def log_probability(title: str) -> float:
    """The natural logarithm of the probability that the next title drawn is this one, its end included.

    Exact up to float64 rounding; -inf for a title the grammar can't make.
    """
    # no sentence makes more than 20 choices, each of at least 1e-4: at 1e-80, float64 is far from its least, 1e-308
    probability = string_probability(grammar(), title)
    return math.log(probability) if probability > 0 else -math.inf


def floor_nats(titles: Iterable[str]) -> float:
    """The summed loss in nats of the true distribution on these titles, which no model can expect to beat.

    Raises UserError with the first title that the grammar can't make.
    """
    return -math.fsum(_possible(title, log_probability(title)) for title in titles)


def _possible(title: str, log_p: float) -> float:
    if log_p == -math.inf:
        raise UserError(f"There is no floor for these titles: the synthetic grammar can't make {title!r}")
    return log_p


@cache
def grammar() -> Node:
    """The headlines as a node: a family, a sentence pattern of it, a subject for the pattern, words for its slots."""
    return Choice({_family(subjects, patterns): share for share, subjects, patterns in headlines().families})


def _family(subjects: tuple[str, ...], patterns: Mapping[str, float]) -> Node:
    options: dict[Node, float] = {}
    for pattern, weight in patterns.items():
        opening, brace, rest = pattern.partition("{")  # shared by all subjects, so matched once
        rests = Choice(_zipf(sentence(brace + rest, subject) for subject in subjects))
        options[Sequence(_literal(opening), rests)] = weight
    return Choice(options)


def sentence(pattern: str, subject: str) -> Node:
    """A pattern of `headlines.toml` as a node, its slots filled with the words of one subject."""
    parts: list[Node] = []
    for text, slot, how, _ in Formatter().parse(pattern):
        parts += [_literal(text)] if text else []
        parts += [_slot(slot, how or "", subject)] if slot else []
    return Sequence(*parts)


@cache
def _slot(name: str, how: str, subject: str) -> Node:
    phrases = headlines().phrases
    if name in phrases:
        return Choice({sentence(pattern, subject): weight for pattern, weight in phrases[name].items()})
    return _words(headlines().subjects.get(subject, headlines().common)[name], how)


@cache  # one node for one list, however many subjects use it
def _words(words: tuple[str, ...], how: str) -> Node:
    return Words(_zipf(inflect(word, how) for word in words))


@cache
def _literal(text: str) -> Node:
    return Words({text: 1.0})


def _zipf(items: Iterable[T]) -> dict[T, float]:
    """Items in order of frequency, with their weights; one that comes twice adds its weights up."""
    weights: dict[T, float] = {}
    for rank, item in enumerate(items, 1):
        weights[item] = weights.get(item, 0.0) + 1 / (rank + ZIPF_SHIFT)
    return weights


def _shares(weights: Iterable[float]) -> list[float]:
    weights = list(weights)
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _cumulative(weights: Iterable[float]) -> list[float]:
    """Upper bounds of all shares but the last, whose bound of 1 rounding might miss."""
    return list(accumulate(_shares(weights)))[:-1]
