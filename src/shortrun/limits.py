"""Limits on files that anybody may have written: how much of one is read, how deep it goes, what shape it must have.

A run folder, an export or a recipe may come from a stranger. Whatever is in it, reading it ends, stays in memory that was set
before, and is refused with a sentence where it is not what it should be (docs/security.md).
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shortrun.errors import UserError

JSON_BYTES = 2**26
"""Of a JSON file that is read as a whole: the manifest of a corpus of 1,000 files and as many shards has 1 MB."""
TOML_BYTES = 2**20
DEEPEST = 20
"""Levels of tables and lists: what looks through them calls itself for each."""
MOST_KEYS, MOST_VALUES = 2_000, 20_000
"""Of a TOML file: more keys would take minutes to be compared with those that there are."""
LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""What half a character is spelled like; most of the time the other half follows."""
DOTTED = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')\s*+\.\s*+){64}""")
"""A key of more parts takes tomllib a time that grows with their square. The pattern takes none back, so its own does not."""
BIGGEST, LARGEST = 2**63, 1e300
"""Whole numbers and others beyond these are none that a run counts; a whole one may be too large for a float."""

Shape = Mapping[str, Any]
"""{"section.name": kind}. A kind is a type (`float` for any number), None, a tuple of kinds of which one will do, [kind] for a
list of such values, or {"*": kind} for an object of such values and {"name": kind} for one with such a value."""


def read_bounded(path: Path, most: int) -> bytes:
    """The whole of a regular file; raises OSError for what is none, such as a pipe, or has more than `most` bytes."""
    size = regular_size(path)
    with path.open("rb") as file:
        content = file.read(min(size, most) + 1)  # Python takes as much memory before it reads
    if len(content) > most:
        raise OSError(f"it has more than {most:,} bytes")
    return content


def regular_size(path: Path) -> int:
    """The bytes of a regular file; raises OSError for what is none, because reading a pipe or a device may never end."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no regular file")
    return found.st_size


def is_file(path: Path) -> bool:
    """Whether there is such a file; there is none where the name is longer than the system allows."""
    try:
        return path.is_file()
    except OSError:
        return False


def parse_json(content: bytes) -> dict[str, Any]:
    """A JSON object; raises ValueError, whatever the content is."""
    try:
        found = json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested without end") from None
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    if any(depth > DEEPEST for depth, _ in _containers(found)):
        raise ValueError(f"it is deeper than {DEEPEST} levels")
    if LONE_SURROGATE.search(content):
        json.dumps(found, ensure_ascii=False).encode()  # which raises for half a character
    return found


def parse_toml(content: str | bytes) -> dict[str, Any]:
    """The values of a TOML file; raises ValueError, whatever the content is."""
    text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    if len(text) > TOML_BYTES:
        raise ValueError(f"it has more than {TOML_BYTES:,} characters")
    if DOTTED.search(text):
        raise ValueError("it has a key of more than 64 parts")
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested without end") from None
    keys = values = 0
    for depth, container in _containers(found):
        keys, values = keys + (len(container) if isinstance(container, dict) else 0), values + len(container)
        if depth > DEEPEST or keys > MOST_KEYS or values > MOST_VALUES:
            raise ValueError(
                f"it is deeper than {DEEPEST} levels, or has more than {MOST_KEYS:,} keys or {MOST_VALUES:,} values"
            )
        for value in _inside(container):
            if isinstance(value, int) and abs(value) >= 2**63:  # in hexadecimal, tomllib reads any number of digits
                raise ValueError("it has a whole number of more than 63 bits")
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file; raises OSError and ValueError."""
    return parse_toml(read_bounded(path, TOML_BYTES))


def require_shape(content: Mapping[str, Any], shape: Shape, where: Path | str) -> None:
    """Raises UserError, which says where, if something is missing or is not of its kind."""
    for name, kind in shape.items():
        value: Any = content
        for part in name.split("."):
            value = value.get(part, ...) if isinstance(value, dict) else ...
        if not _is(value, kind):
            what = "is missing" if value is ... else f"holds {shortened(value)}"
            raise UserError(f"{where} is damaged: {name} {what}")


def _is(value: Any, kind: Any) -> bool:
    if isinstance(kind, tuple):
        return any(_is(value, each) for each in kind)
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is(each, kind[0]) for each in value)
    if isinstance(kind, Mapping):
        return isinstance(value, dict) and all(
            all(_is(each, inner) for each in (value.values() if name == "*" else [value.get(name, ...)]))
            for name, inner in kind.items()
        )
    if kind is None:
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < BIGGEST
    return isinstance(value, kind)


def shortened(value: Any, most: int = 80) -> str:
    """A value as it is shown in a sentence."""
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}..."


def is_plain_name(name: Any) -> bool:
    """Whether a name stands for an entry of the folder it is looked for in, and of no other."""
    return isinstance(name, str) and name not in ("", ".", "..") and not any(sign in name for sign in "/\\\0:")


def require_no_link(path: Path) -> None:
    """Raises UserError for a link, because what is written there lands elsewhere."""
    if path.is_symlink():
        raise UserError(f"{path} is a link, and nothing is written through one: put what it points to in its place")


def _containers(value: Any) -> Iterator[tuple[int, dict[str, Any] | list[Any]]]:
    """Every table and list inside a value, with its depth."""
    waiting = [(1, value)]
    while waiting:
        depth, container = waiting.pop()
        yield depth, container
        waiting += [(depth + 1, each) for each in _inside(container) if isinstance(each, dict | list)]


def _inside(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container
