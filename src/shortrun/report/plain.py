"""Text and numbers as every form of a report can hold them: nothing steers a reader's screen, and no number is no number."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from typing import Any

from shortrun.text.visible import visible


def shown(text: str) -> str:
    """The text with its lines and spaces, all else that can't be seen escaped: a reversed direction is `\\u202e`."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) == "Zs" else visible(c) for c in text)


def plain(value: Any, text: Callable[[str], str] = str) -> Any:
    """Data that JSON can hold: None for what is not finite, and texts as `text` writes them."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return text(value)
        case dict():
            return {key: plain(each, text) for key, each in value.items()}
        case list() | tuple():
            return [plain(each, text) for each in value]
    return value


def spec(chart: Any) -> dict[str, Any]:
    """An altair chart as Vega-Lite's data."""
    found: dict[str, Any] = plain(chart.to_dict(), shown)
    return found
