"""The words and sentence patterns of the synthetic headlines, read from `headlines.toml`, and how words are inflected.

The head of that file says what its lists, slots and names mean. `shortrun.text.synthetic` speaks them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

from shortrun.disk import file_sha256

FILE = Path(__file__).with_suffix(".toml")

Lists = Mapping[str, tuple[str, ...]]
"""The name of a list -> its words, most frequent first."""
Weights = Mapping[str, float]
"""A pattern -> its weight among those beside it."""


class Family(NamedTuple):
    """The headlines about subjects of one kind."""

    share: float
    """Of all headlines, in percent."""
    subjects: tuple[str, ...]
    patterns: Weights


class Headlines(NamedTuple):
    """All that `headlines.toml` says."""

    families: tuple[Family, ...]
    phrases: Mapping[str, Weights]
    common: Lists
    """The lists that serve a subject without its own."""
    subjects: Mapping[str, Lists]
    """A subject -> its own lists, and the common ones where it has none."""


@cache
def headlines() -> Headlines:
    """Read `headlines.toml`, once."""
    table = tomllib.loads(FILE.read_text(encoding="utf-8"))
    common = _lists(table["common"], {})
    return Headlines(
        tuple(Family(each["share"], tuple(each["subjects"]), each["headlines"]) for each in table["families"]),
        table["phrases"],
        common,
        {subject: _lists(entries, common) for subject, entries in table["subjects"].items()},
    )


def _lists(entries: Mapping[str, Any], common: Lists) -> Lists:
    """Add the lists of one table to the common ones. Words come first, because names are made of them."""
    lists = {**common}
    for name, entry in entries.items():
        if isinstance(entry, str):
            lists[name] = tuple(word.strip() for word in entry.split(","))
    for name, entry in entries.items():
        if not isinstance(entry, str):
            lists[name] = _names(lists, **entry)
    return lists


def _names(lists: Lists, names: str, most: int, turn: int = 0) -> tuple[str, ...]:
    """Make names of two parts, those of two frequent parts first. `turn` makes other first parts the frequent ones."""
    first, last = [slot for _, slot, _, _ in Formatter().parse(names) if slot]
    firsts = lists[first][turn:] + lists[first][:turn]
    pairs = [(i, j) for i in range(len(firsts)) for j in range(len(lists[last]))]
    pairs.sort(key=lambda pair: ((pair[0] + 1) * (pair[1] + 1), pair))
    return tuple(names.format_map({first: firsts[i], last: lists[last][j]}) for i, j in pairs[:most])


def inflect(word: str, how: str) -> str:
    """Inflect the word as a slot asks: "s", "ing", "a" (its article before it), or ""; with "^" first, capitalised."""
    inflected = _INFLECTIONS[how.removeprefix("^")](word)
    return inflected[0].upper() + inflected[1:] if how.startswith("^") else inflected


def _plural(word: str) -> str:
    """Form the plural of a noun. The third person of a verb is formed the same way."""
    if re.search("(s|x|z|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search("[^aeiou]y$", word) else word + "s"


def _gerund(word: str) -> str:
    if re.search("[^e]e$", word):
        return word[:-1] + "ing"
    doubles = re.fullmatch("(de|for)?[^aeiou]*[aeiou][^aeiouwxy]", word)  # scan, debug, format
    return word + (word[-1] if doubles else "") + "ing"


def _with_article(word: str) -> str:
    vowel = re.match("[aeioAEIO8]|u[^ns]|un[^i]|[FHLMNRSX][A-Z]", word)  # an SQL parser, but a user, a unified log
    return ("an " if vowel else "a ") + word


_INFLECTIONS: Mapping[str, Callable[[str], str]] = {"": str, "s": _plural, "ing": _gerund, "a": _with_article}


def headlines_sha256() -> str:
    """Fingerprint of the data file, and so of the grammar."""
    return file_sha256(FILE)
