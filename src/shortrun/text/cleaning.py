"""Cleaning: what a document may not contain, taken out or replaced, and every change counted.

A document keeps its inner spaces, its line breaks, every script, emoji and the characters "<eos>", because the loss is
measured on the text itself. A Hacker News title is a document of one line. What `data.normalise` asks for makes another,
easier text, whose losses don't compare with those of the original; the manifest counts what it changed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

LINE_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
NULS = re.compile("\x00")
LONE_SURROGATES = re.compile("[\ud800-\udfff]")


def _without_accents(text: str) -> str:
    parts = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in parts if unicodedata.category(c) != "Mn"))


NORMALISERS: dict[str, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "nfkc": lambda text: unicodedata.normalize("NFKC", text),
    "lowercase": str.lower,
    "no-accents": _without_accents,
    "single-spaces": lambda text: " ".join(text.split()),
}
"""What `data.normalise` may name. Each loses something."""


def clean(text: str, counts: Counter[str], *, one_line: bool) -> str:
    """The text without NULs and without space at its ends; a title (`one_line`) has a space for its line breaks and tabs.

    Other control characters stay, because four titles of the standard task have one. `counts` gains what was changed:
    titles with line breaks, NULs, and lone surrogates, which JSON can carry although they are no text (U+FFFD replaces
    them).
    """
    if not text.isprintable():  # the common case needs no closer look
        if one_line:
            text, found = LINE_BREAKS.subn(" ", text.strip())
            counts["line_breaks"] += bool(found)
        text, found = NULS.subn("", text)
        counts["nul_characters"] += found
        text, found = LONE_SURROGATES.subn("\ufffd", text)
        counts["lone_surrogates"] += found
    return text.strip()


def cleaned(
    rows: Iterable[str | None], counts: Counter[str], normalise: Sequence[str] = (), *, one_line: bool = False
) -> Iterator[str]:
    """Every text that is left after cleaning and then `normalise`; missing and blank ones are dropped and counted."""
    for row in rows:
        if row is None:
            counts["missing"] += 1
            continue
        text = clean(row, counts, one_line=one_line)
        for name in normalise:
            before, text = text, NORMALISERS[name](text).strip()
            counts[f"changed_by_{name}"] += text != before
        if text:
            yield text
        else:
            counts["blank"] += 1


WORDS = {
    "missing": "{} rows without a text were left out",
    "blank": "{} blank rows were left out",
    "line_breaks": "line breaks became a space in {} titles",
    "nul_characters": "{} NUL characters were taken out",
    "lone_surrogates": "{} lone surrogates became U+FFFD",
    "invalid_utf8": "{} broken UTF-8 sequences became U+FFFD",
}


def cleaning_notes(changes: Mapping[str, int]) -> list[str]:
    """A sentence that says what cleaning changed, for whoever reads the scores; none where it changed nothing."""
    told = [
        WORDS.get(name, f"{{}} documents were {name.replace('_', ' ')}").format(f"{count:,}")
        for name, count in changes.items()
        if count
    ]
    return [f"Cleaning: {'; '.join(told)}"] if told else []
