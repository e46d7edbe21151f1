"""Texts of documents and names, made safe for a Markdown table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from shortrun.text.visible import visible


def plain_cell(text: str) -> str:
    """Text that can't be taken for the border of a Markdown table, nor for a link or an element of HTML."""
    return re.sub(r"([|<>\[\]`])", r"\\\1", visible(" ".join(text.split())))


def literal_cell(document: str) -> str:
    """A document in a Markdown table, none of its characters taken for markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", visible(document))


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool] = ()) -> str:
    """A table of cells that are safe already; `right` says of each column whether its cells stand on the right."""
    ruler = ["---:" if on_the_right else "---" for on_the_right in right or [False] * len(headings)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ruler, *rows))
