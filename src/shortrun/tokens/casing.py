"""Case as marks: a text becomes lower-cased words and a few marks, and comes back exactly.

A text is in one of two modes. As a headline, its words begin with a capital but for small ones such as "of". As a sentence,
only the first word does, and what follows a full stop, a colon or a dash. The mode is chosen that needs fewer marks and stands in front
with a space. A word that differs from what its mode predicts by its first letter alone gets a mark. Others with capitals, such
as "iPhone" or "NASA", stay as they are, which tells them apart, because no other word keeps a capital.

The marks are letters of few languages, so that a tokenizer takes mark and word for one word. A word that holds one in the text
is kept behind a mark of its own. A letter is lower-cased only where its lower case, a single letter, comes back.
"""

from __future__ import annotations

import re
from functools import cache

HEADLINE, SENTENCE, OTHERWISE, AS_IS = "\u01c0", "\u01c1", "\u01c2", "\u01c3"
"""The marks, four click letters: the two modes, a first letter of the other case, and a word that holds a mark itself."""
MARKS = frozenset((HEADLINE, SENTENCE, OTHERWISE, AS_IS))
RULES = 1
"""Number of the rules below; a tokenizer's file says it, because others would give another text."""

SMALL = frozenset(
    (
        "a",
        "an",
        "and",
        "as",
        "at",
        "by",
        "for",
        "from",
        "in",
        "into",
        "of",
        "on",
        "or",
        "the",
        "to",
        "vs",
        "via",
        "with",
    )
)
"""Words that headlines write small: each of them more often than not in the headlines among HN-100k's training titles."""
CAPITAL = frozenset(("i", *(f"i{sign}{rest}" for sign in "'’" for rest in ("m", "d", "ll", "ve"))))
"""Words that sentences write with a capital."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_ENDS = re.compile(r"[.?!:–—]")
"""Signs behind which, and white space, a word begins anew."""


def factored(text: str) -> str:
    """The text with its case as marks; `restored` gives it back. Of an empty text, nothing."""
    if not text:
        return ""
    parts: list[str] = []
    marked: dict[str, list[int]] = {HEADLINE: [], SENTENCE: []}  # the words that need a mark, by their place in parts
    end = 0
    for found in _WORD.finditer(text):
        word, gap = found[0], text[end : found.start()]
        parts.append(gap)
        end = found.end()
        if not MARKS.isdisjoint(word):
            parts.append(AS_IS + word)
            continue
        small = _lower(word)
        capital = _with_capital(small)
        if small == capital or word not in (small, capital):
            parts.append(word)
            continue
        parts.append(small)
        for mode, places in marked.items():
            if _predicts_capital(mode, small, gap, first=len(parts) == 2) != (word == capital):
                places.append(len(parts) - 1)
    parts.append(text[end:])
    mode = HEADLINE if len(marked[HEADLINE]) < len(marked[SENTENCE]) else SENTENCE
    for place in marked[mode]:
        parts[place] = OTHERWISE + parts[place]
    return "".join((mode, " ", *parts))


def restored(text: str) -> list[str]:
    """What each letter of a factored text stands for: joined, the text that was factored; a mark stands for nothing.

    Any text gives something, because a model may write any: one without a mode is a sentence, and needless marks are dropped.
    """
    mode, begin = SENTENCE, 0
    if text[:1] in (HEADLINE, SENTENCE):
        mode, begin = text[0], 2 if text[1:2] == " " else 1
    letters = [""] * begin + list(text[begin:])
    end = begin
    for found in _WORD.finditer(text, begin):
        word, gap, first = found[0], text[end : found.start()], end == begin
        start, end = found.span()
        if word[0] == AS_IS:
            letters[start] = ""
            continue
        small = "".join(letter for letter in word if letter not in MARKS)
        capital = _with_capital(small)
        for place in range(start, end):
            if letters[place] in MARKS:
                letters[place] = ""
        if capital != small == _lower(small):
            at = next(place for place in range(start, end) if letters[place])
            if _predicts_capital(mode, small, gap, first=first) != (word[0] == OTHERWISE):
                letters[at] = capital[0]
    return letters


def both_cases(letters: frozenset[str]) -> frozenset[str]:
    """Some letters, and the capitals that are spelled by them."""
    return letters | {capital for letter in letters if (capital := _capital(letter))}


def _predicts_capital(mode: str, small: str, gap: str, *, first: bool) -> bool:
    """Whether a lower-cased word begins with a capital, as far as its mode and what stands before it tell."""
    if first:
        return True
    if gap != " " and (sign := _ENDS.search(gap)) and any(map(str.isspace, gap[sign.end() :])):
        return True
    if gap == ".":  # "U.S.", but "Node.js" and "archive.org"
        return len(small) == 1
    if gap.endswith("["):  # "[pdf]"
        return False
    return small in CAPITAL if mode == SENTENCE else small not in SMALL


def _lower(word: str) -> str:
    return word.lower() if word.isascii() else "".join(map(_small, word))


def _with_capital(word: str) -> str:
    return (_capital(word[0]) or word[0]) + word[1:] if word else word


@cache
def _small(letter: str) -> str:
    """The lower case of a capital that comes back from it; any other letter as it is."""
    small = letter.lower()
    return small if small != letter and _capital(small) == letter else letter


@cache
def _capital(letter: str) -> str | None:
    """The capital of which a letter is the lower case, each a single letter that `_WORD` takes for one; None without."""
    capital = letter.upper()
    if len(capital) != 1 or capital == letter or capital.lower() != letter or not (letter + capital).isalnum():
        return None
    return capital
