"""What a power cut leaves of a run: what had been synced for sure, and of the rest whatever the file system had got to.

`record` notes every sync of a process: the bytes of a synced file, the names in a synced folder. `image` then makes a folder as
it may lie on disk after the cut. In order: every name is there, as in a journal, and files lack bytes that were not synced. Out
of order: each name that was not synced is there or not, whatever came after it. This is stricter than what ext4 and xfs do.
"""

from __future__ import annotations

import json
import os
import random
import signal
import stat
from pathlib import Path

Entries = dict[str, tuple[int, bool]]
"""What a folder holds: the number of each file's inode, and whether it is a folder."""


def record(folder: Path, cut_at: int | None) -> None:
    """Notes from here on what this process syncs; kills it after the sync of that number."""
    sync, held, count = os.fsync, dict[int, int](), 0

    def noted(file: int) -> None:
        nonlocal count
        sync(file)
        descriptor = file if isinstance(file, int) else file.fileno()
        found = os.fstat(descriptor)
        # open until the process ends, so that no other file gets the number of its inode
        held.setdefault(found.st_ino, os.dup(descriptor))
        if stat.S_ISDIR(found.st_mode):
            content = json.dumps(_entries(Path(f"/proc/self/fd/{descriptor}").readlink())).encode()
        else:
            content = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        temporary = folder / "noting"
        temporary.write_bytes(content)
        temporary.replace(folder / str(found.st_ino))
        count += 1
        if count == cut_at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = noted


def _entries(folder: Path) -> Entries:
    return {entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in os.scandir(folder)}


class Disk:
    """A folder in which a process whose syncs are recorded works. What is there now counts as synced."""

    def __init__(self, top: Path, syncs: Path, rng: random.Random) -> None:
        self.top, self.syncs, self.rng = top, syncs, rng
        self.live: dict[int, Path] = {}
        syncs.mkdir()
        self._held = []
        for path in (top, *top.rglob("*")):
            self._held.append(os.open(path, os.O_RDONLY))
            content = json.dumps(_entries(path)).encode() if path.is_dir() else path.read_bytes()
            (syncs / str(path.stat().st_ino)).write_bytes(content)

    def cut(self) -> None:
        """Looks at what the living system saw last, when the process has died."""
        self.live = {path.stat().st_ino: path for path in (self.top, *self.top.rglob("*"))}
        for descriptor in self._held:
            os.close(descriptor)

    def image(self, target: Path, *, in_order: bool) -> None:
        """Makes `target` what may be left of the folder."""
        self._folder(self.top.stat().st_ino, target, in_order)

    def _folder(self, inode: int, target: Path, in_order: bool) -> None:
        target.mkdir()
        now = _entries(self.live[inode]) if inode in self.live else None
        synced = {name: (number, folder) for name, (number, folder) in json.loads(self._synced(inode) or b"{}").items()}
        if now is None:
            chosen = synced
        elif in_order:
            chosen = now
        else:
            chosen = self._some(synced, now)
        for name, (number, is_folder) in chosen.items():
            if is_folder:
                self._folder(number, target / name, in_order)
            else:
                (target / name).write_bytes(self._content(number))

    def _some(self, synced: Entries, now: Entries) -> Entries:
        """The synced names with some of the changes since; a file that was renamed has its old name or its new one."""
        chosen = dict(synced)
        places = {number: name for name, (number, _) in synced.items()}
        for name, entry in now.items():
            if synced.get(name) != entry and self.rng.random() < 0.5:
                old = places.get(entry[0])
                if old is not None and chosen.get(old) == entry:
                    del chosen[old]
                chosen[name] = entry
        there = {number for number, _ in now.values()}
        for name, (number, _) in synced.items():
            if name not in now and number not in there and chosen.get(name) == (number, _) and self.rng.random() < 0.5:
                del chosen[name]
        return chosen

    def _content(self, inode: int) -> bytes:
        """The bytes that were synced, all of what was written later, a part of it, or zeros in its place."""
        synced = self._synced(inode) or b""
        now = self.live[inode].read_bytes() if inode in self.live else synced
        if now == synced:
            return synced
        kept = len(synced) if now.startswith(synced) else 0
        return self.rng.choice(
            [synced, now, now[: self.rng.randint(kept, len(now))], now[:kept] + bytes(len(now) - kept)]
        )

    def _synced(self, inode: int) -> bytes | None:
        path = self.syncs / str(inode)
        return path.read_bytes() if path.exists() else None
