"""Files that are whole on disk or not there, and their fingerprints."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from shortrun.errors import UserError, reason_of
from shortrun.limits import JSON_BYTES, parse_json, read_bounded


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that at any moment either the old or the whole new content is on disk; the new one when it returns."""
    temporary = path.with_name(path.name + ".tmp")
    if temporary.is_symlink():  # somebody laid it there, and what it points to is not ours
        temporary.unlink()
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)  # the new name too, which a power cut could take back otherwise


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON object atomically; raises ValueError for a number that JSON has no word for, such as NaN."""
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path, most: int = JSON_BYTES) -> dict[str, Any]:
    """A file that holds one JSON object, of at most `most` bytes; raises UserError where it can't be read or holds something else."""
    try:
        return parse_json(read_bounded(path, most))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {reason_of(error)}") from None


def require_writable(path: Path | None) -> None:
    """Raises UserError where no file can be written at `path`: asked before the work whose result shall go there."""
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{path} can't be written: it is a folder")
    if not path.parent.is_dir():
        raise UserError(f"{path} can't be written: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{path} can't be written: this is not allowed")


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(content: Any) -> str:
    """The sha256 of a JSON value, the same however its keys are ordered."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_folders(path: Path) -> None:
    """Makes a folder and those above it that are missing, so that they outlive a power cut; raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # a file has that name
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    for folder in missing:
        sync(folder.parent)


def sync(path: Path) -> None:
    """Puts a file or a folder on disk. Windows can't open a folder for that, and needs no sync there."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shared_permissions(path: Path) -> None:
    """Gives a file the permissions of any new one, where a library leaves it to its owner alone."""
    mask = os.umask(0)  # the system only tells when it is set
    os.umask(mask)
    path.chmod(0o666 & ~mask)
