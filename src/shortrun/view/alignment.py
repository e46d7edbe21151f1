"""Two or more readings of a text, token by token, where each model may have tokens of its own.

Where all tokenizers begin a token, the text is cut. So each span holds whole tokens of every model, and its surprisals can
be compared. A token that ends inside a character belongs to the span of that character.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from shortrun.view.reading import Reading


@dataclass(frozen=True)
class Span:
    """A part of a text that is made of whole tokens in every reading; the text "" is its end."""

    text: str
    nats: tuple[float, ...]
    """The surprisal of its tokens, added up, in each reading."""

    @property
    def differences(self) -> tuple[float, ...]:
        """Each reading's nats minus those of the first."""
        return tuple(nats - self.nats[0] for nats in self.nats)


def aligned(readings: Sequence[Reading]) -> list[Span]:
    """The spans of some readings of one text, in order, and its end as the last one."""
    text = readings[0].text
    assert all(reading.text == text for reading in readings)
    before = [_nats_before(reading) for reading in readings]
    common = sorted(set.intersection(*(set(each) for each in before)))
    spans = [
        Span(text[begin:end], tuple(each[end] - each[begin] for each in before)) for begin, end in pairwise(common)
    ]
    return [*spans, Span("", tuple(reading.tokens[-1].surprisal for reading in readings))]


def _nats_before(reading: Reading) -> dict[int, float]:
    """Nats of all tokens before each place where a token begins, by the number of characters before it."""
    places: dict[int, float] = {}
    place, nats = 0, 0.0
    for token in reading.tokens:
        places.setdefault(place, nats)  # the first of the pieces of a character is where it begins
        place += len(token.text)
        nats += token.surprisal
    return places
