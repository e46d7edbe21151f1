"""The libraries that reports need, and the sentence that says how to get them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from shortrun.errors import missing_extra

LIBRARIES = ("altair", "jinja2", "optuna", "scipy", "typst", "vl_convert")


def require() -> None:
    """Raises UserError where a library of the extra `report` is not installed, before anything is read."""
    try:
        missing = any(find_spec(library) is None for library in LIBRARIES)
    except ValueError:  # what find_spec says of one that is blocked
        missing = True
    if missing:
        raise missing_extra("A report", "report")


def needs(library: str) -> Any:
    """The module `library`; raises UserError where the extra `report` is not installed."""
    try:
        return import_module(library)
    except ImportError:
        raise missing_extra("A report", "report") from None
