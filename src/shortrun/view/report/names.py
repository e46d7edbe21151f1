"""Names of a report's files and anchors."""

from __future__ import annotations


def file_name(*parts: str) -> str:
    """Letters, digits and dashes of some names: `study-adamw-then-rope`."""
    plain = "".join(c if c.isascii() and c.isalnum() else " " for c in " ".join(parts).lower())
    return "-".join(plain.split()) or "unnamed"
