"""The cache: what is made once a machine and shared by all runs, such as a corpus, a tokenizer or ids.

An entry is a folder, named by the sha256 of what it was made from. It is built beside its place and renamed into it, so it
is whole or not there. `entry.json` holds the sha256 of each of its files: a damaged entry is noticed and made anew. A lock
for each entry lets the second of two processes wait for the first one's work.

    shortrun cache            where it lies and what it holds
    shortrun cache --clear    remove it all; the next run makes what it needs
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from shortrun.disk import file_sha256, json_sha256, read_json, write_json
from shortrun.errors import UserError

FORMAT = 1
"""Part of every key: a change of what is stored, or of how it is made, counts this up."""
RECORD = "entry.json"
NAME = re.compile("[0-9a-f]{32}")
"""What the folder of an entry is called."""


@dataclass(frozen=True)
class Entry:
    """One folder of the cache."""

    path: Path
    kind: str
    about: str
    bytes: int
    last_used: float
    """Seconds since 1970."""


def cache_root() -> Path:
    """The cache's folder: $SHORTRUN_CACHE, or the platform's usual place."""
    wish = os.environ.get("SHORTRUN_CACHE")
    return Path(wish) if wish else user_cache_path("shortrun", appauthor=False)


def cached(kind: str, made_from: dict[str, Any], about: str, build: Callable[[Path], None]) -> Path:
    """The folder of an entry, which `build` fills where there is none that is whole.

    kind: what it holds, the name of its folder in the cache. made_from: all that decides its content. about: a few words
    for `shortrun cache`. Raises UserError where the cache can't be written.
    """
    key = json_sha256({"format": FORMAT, "kind": kind, **made_from})
    path = cache_root() / kind / key[:32]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            damage = _damage(path)
            if damage:
                logging.getLogger(__name__).warning(
                    "The cache's %s (%s) is damaged: %s. It is made anew", kind, about, damage
                )
            if damage is not None:
                _make(path, kind, about, build)
        os.utime(path / RECORD)
    except OSError as error:
        raise UserError(
            f"The cache {cache_root()} can't be used: {error}. SHORTRUN_CACHE names another folder for it"
        ) from error
    return path


def entries() -> Iterator[Entry]:
    """Every whole entry of the cache, by kind."""
    for record in sorted(cache_root().glob(f"*/*/{RECORD}")):
        if not NAME.fullmatch(record.parent.name):  # one that is being made
            continue
        with suppress(UserError, KeyError, OSError):
            files = [file for file in record.parent.iterdir() if file.is_file()]
            yield Entry(
                path=record.parent,
                kind=record.parent.parent.name,
                about=str(read_json(record)["about"]),
                bytes=sum(file.stat().st_size for file in files),
                last_used=record.stat().st_mtime,
            )


def clear() -> None:
    """Removes every entry, and what killed processes left of others. Whatever else lies in the folder stays.

    An entry that another process is making or looking at just now is left to it. A run that trains keeps the files it has
    open.
    """
    found = {path.with_suffix("") for path in cache_root().glob("*/*") if NAME.fullmatch(path.stem)}
    for path in sorted(found):
        lock = path.with_name(f"{path.name}.lock")
        with suppress(OSError), FileLock(lock, timeout=0):
            shutil.rmtree(path, ignore_errors=True)
            shutil.rmtree(path.with_name(f"{path.name}.tmp"), ignore_errors=True)
            lock.unlink()  # while it is held, which whoever waits for it notices
    for folder in [*{path.parent for path in found}, cache_root()]:
        with suppress(OSError):  # it still holds something
            folder.rmdir()


def _make(path: Path, kind: str, about: str, build: Callable[[Path], None]) -> None:
    temporary = path.with_name(f"{path.name}.tmp")  # the lock is held, so what lies there is of a killed process
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        build(temporary)
        files = {file.name: file_sha256(file) for file in sorted(temporary.iterdir())}
        write_json(temporary / RECORD, {"kind": kind, "about": about, "files": files})
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _damage(path: Path) -> str | None:
    """What is wrong with an entry: None where it is whole, "" where there is none."""
    if not path.exists():
        return ""
    try:
        files: dict[str, str] = read_json(path / RECORD)["files"]
        wrong = [name for name, sha256 in files.items() if file_sha256(path / name) != sha256]
    except (UserError, OSError) as error:
        return str(error)
    except (KeyError, AttributeError):
        return f"{path / RECORD} does not say what it should"
    return f"{path / wrong[0]} is not what was written" if wrong else None
