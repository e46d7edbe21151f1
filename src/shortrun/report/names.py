"""Names of a report's files and anchors, none of them twice."""

from __future__ import annotations

from collections.abc import Iterable


def anchor(*parts: str) -> str:
    """ASCII letters, digits and dashes of some names, for files and links: `study-adamw-then-rope`."""
    plain = "".join(c if c.isascii() and c.isalnum() else " " for c in " ".join(parts).lower())
    return "-".join(plain.split()) or "unnamed"


def apart(names: Iterable[str], taken: Iterable[str] = (), numbered: str = "{}-{}") -> list[str]:
    """The same names in their order; one that is taken, or was there before, gets a number: `a`, `a-2`, `a-3`."""
    found: list[str] = []
    used = set(taken)
    for name in names:
        number, unique = 1, name
        while unique in used:
            number += 1
            unique = numbered.format(name, number)
        used.add(unique)
        found.append(unique)
    return found
