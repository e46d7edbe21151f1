"""Texts of documents and names, made safe for a Markdown table."""

from __future__ import annotations

import re

from shortrun.text.visible import visible


def plain_cell(text: str) -> str:
    """Text that can't be taken for the border of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def literal_cell(document: str) -> str:
    """A document in a Markdown table, none of its characters taken for markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", visible(document))
