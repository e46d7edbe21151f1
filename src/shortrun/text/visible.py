"""Texts and tokens as they are shown: nothing in them steers a terminal, and nothing is invisible."""

from __future__ import annotations


def visible(document: str) -> str:
    """The document with control characters escaped, so that what a model writes can't steer a terminal."""
    return "".join(
        c if c.isprintable() or c == "\N{ZERO WIDTH JOINER}" else c.encode("unicode_escape").decode() for c in document
    )


def visible_lines(text: str) -> str:
    """The same of a text of several lines, which stay lines."""
    return "\n".join(visible(line) for line in text.split("\n"))


def shown_token(token: str) -> str:
    """A token with its spaces made visible too."""
    return visible(token).replace(" ", "\u2423")
