"""Cleaning: what a title may not contain, taken out or replaced, and every change counted.

A title is one line of text. Anything else about it stays as it is (inner spaces, every script, emoji, the characters
"<eos>"), because the loss is measured on the text itself. What `data.normalise` asks for makes another, easier text, whose
losses don't compare with those of the original; the manifest counts the titles it changed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

LINE_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
NULS = re.compile("\x00")
LONE_SURROGATES = re.compile("[\ud800-\udfff]")


def _without_accents(title: str) -> str:
    parts = unicodedata.normalize("NFD", title)
    return unicodedata.normalize("NFC", "".join(c for c in parts if unicodedata.category(c) != "Mn"))


NORMALISERS: dict[str, Callable[[str], str]] = {
    "nfc": lambda title: unicodedata.normalize("NFC", title),
    "nfkc": lambda title: unicodedata.normalize("NFKC", title),
    "lowercase": str.lower,
    "no-accents": _without_accents,
    "single-spaces": lambda title: " ".join(title.split()),
}
"""What `data.normalise` may name. Each loses something."""


def clean(title: str, counts: Counter[str]) -> str:
    """The title as one line: line breaks and tabs become a space, NULs go, the ends are stripped.

    Other control characters stay: the standard task's fingerprint has four titles with one. `counts` gains what was
    changed: titles with line breaks, NULs and lone surrogates (JSON can carry them; they are not text, and become U+FFFD).
    """
    if not title.isprintable():  # the common case needs no closer look
        title, found = LINE_BREAKS.subn(" ", title.strip())
        counts["line_breaks"] += bool(found)
        title, found = NULS.subn("", title)
        counts["nul_characters"] += found
        title, found = LONE_SURROGATES.subn("\ufffd", title)
        counts["lone_surrogates"] += found
    return title.strip()


def cleaned(rows: Iterable[str | None], counts: Counter[str], normalise: Sequence[str] = ()) -> Iterator[str]:
    """Every title that is left after cleaning and then `normalise`; missing and blank ones are dropped and counted."""
    for row in rows:
        if row is None:
            counts["missing"] += 1
            continue
        title = clean(row, counts)
        for name in normalise:
            before, title = title, NORMALISERS[name](title).strip()
            counts[f"changed_by_{name}"] += title != before
        if title:
            yield title
        else:
            counts["blank"] += 1
