"""Texts of documents and names, made safe for a terminal and for Markdown."""

from __future__ import annotations

import re


def visible(document: str) -> str:
    """The document with control characters escaped, so that what a model writes can't steer a terminal."""
    return "".join(
        c if c.isprintable() or c == "\N{ZERO WIDTH JOINER}" else c.encode("unicode_escape").decode() for c in document
    )


def plain_cell(text: str) -> str:
    """Text that can't be taken for the border of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def literal_cell(document: str) -> str:
    """A document in a Markdown table, none of its characters taken for markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", visible(document))
