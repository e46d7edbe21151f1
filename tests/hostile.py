"""What strangers may put into files: strategies that damage a file or plant a value in it, and how many examples are tried.

SHORTRUN_FUZZ=100 tries a hundred times as many as the suite does (CONTRIBUTING.md).
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("SHORTRUN_FUZZ", "1"))

LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1, 2**31, 2**63, 10**20, 10**400, 1e308, -1e308, 0.5, float("nan"), float("inf"), "", "x", "../../x",
     "/etc/passwd", "\x1b[31m", "a\0b", "\x7f\x9b", [], {}, [1], {"a": 1}, [[[]]], ["x"] * 3]
)  # fmt: skip


def tried(examples: int) -> settings:
    """So many examples, or a multiple of them in a longer run."""
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )


def plant(data: st.DataObject, tree: Any) -> None:
    """Puts any value into any place of a tree of JSON, or takes the place away."""
    while tree and isinstance(tree, dict | list):
        key = data.draw(st.sampled_from(sorted(tree)) if isinstance(tree, dict) else st.integers(0, len(tree) - 1))
        inner = tree[key]
        if not (inner and isinstance(inner, dict | list)) or data.draw(st.integers(0, 3)) == 0:
            if isinstance(tree, dict) and data.draw(st.integers(0, 5)) == 0:
                del tree[key]
            else:
                tree[key] = data.draw(LEAVES)
            return
        tree = inner


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes of a file with some of them changed, cut out, doubled or cut off."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.integers(0, 5)):
            case 0:
                del content[at : at + draw(st.integers(1, 50))]
            case 1:
                content[at:at] = content[at : at + draw(st.integers(1, 200))]
            case 2:
                content[at:at] = draw(st.binary(min_size=1, max_size=8))
            case _:
                content[at : at + 1] = bytes([draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))])
    if draw(st.integers(0, 5)) == 0:
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content)


WORDS = ["true", "0", "-1", "9223372036854775807", "1e308", "nan", "inf", '""', '"x"', '"../../x"', '"\\u001b[31m"', '"\\u0000"', "[]",
         "{}", "[1, 2]", '["a", "b"]', "{ a = 1 }", "1979-05-27", "07:32:00", "0x" + "f" * 5000, "[" * 30 + "]" * 30, '"zip"', '"hex"',
         "[[1], [2]]", '"' + "a" * 3000 + '"']  # fmt: skip
LINES = ["[model]", "[[change]]", "[[rule]]", "[[input]]", "x = 1", "a.b.c = 2", "[search.optim]", "[every.train]", 'extends = "x"',
         'base = "../x"', "[scale]", "width = 0.0001"]  # fmt: skip


@st.composite
def declarations(draw: st.DrawFn, texts: list[str]) -> str:
    """One of some TOML files with other values, lines more or fewer, or a sign changed."""
    lines = draw(st.sampled_from(texts)).splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 9)):
            case 0:
                lines.insert(at, draw(st.sampled_from(lines)))
            case 1 if len(lines) > 1:
                del lines[at]
            case 2:
                lines.insert(at, draw(st.sampled_from(LINES)))
            case 3 if lines[at]:
                place = draw(st.integers(0, len(lines[at]) - 1))
                lines[at] = lines[at][:place] + draw(st.sampled_from('"[]{}=.\x7f\0é#')) + lines[at][place + 1 :]
            case _:
                lines[at] = f"{lines[at].partition('=')[0]}= {draw(st.sampled_from(WORDS))}"
    return "\n".join(lines) + "\n"
