"""Names of a report's files and anchors."""

from __future__ import annotations


def anchor(*parts: str) -> str:
    """ASCII letters, digits and dashes of some names, for files and links: `study-adamw-then-rope`."""
    plain = "".join(c if c.isascii() and c.isalnum() else " " for c in " ".join(parts).lower())
    return "-".join(plain.split()) or "unnamed"
