"""The libraries that reports need, and the sentence that says how to get them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from shortrun.errors import UserError


def needs(library: str) -> Any:
    """The module `library`; raises UserError where the extra `report` is not installed."""
    try:
        return import_module(library)
    except ImportError:
        raise UserError("Reports need the extra `report`: pip install 'shortrun[report]'") from None
