"""The commands of a page, and a place to run them in as they are written."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

NOT_HERE = ("git clone ", "cd ", "source ", "make test", "make quick", "make check", "make docs", "pip install ")
"""Getting the code, entering it, installing, and the commands that run tests."""
BEGUN = re.compile("^run folder ", re.IGNORECASE | re.MULTILINE)
"""What a run says on standard error when its data is read, its model built, and its first step next."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    command: str
    code: int
    out: str
    err: str
    interrupted: bool

    def __str__(self) -> str:
        return f"$ {self.command}\n{self.out}\n{self.err}\nexit code {self.code}"


def commands_of(page: str) -> list[str]:
    """The lines of a page's `sh` blocks, without comments; a line that ends in a backslash goes on in the next."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
    return [command for command in commands if command]


def run_here(page: str) -> list[str]:
    """Those of them that can run in a copy of the tree where all is installed."""
    return [command for command in commands_of(page) if not command.startswith(NOT_HERE)]


def files_of(page: str) -> dict[str, str]:
    """Files that a page writes out: blocks whose first line is a comment that holds nothing but the file's name."""
    found = re.findall(r"^```\w*\n(# (\S+\.\w+)\n.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    return {name: text for text, name in found}


def copy_of_the_tree(folder: Path) -> dict[str, str]:
    """Copies the files of this working tree; returns an environment in which they are installed.

    What `make` would install is there already: this environment, by a link.
    """
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    bin = folder / ".venv" / "bin"
    bin.parent.mkdir()
    bin.symlink_to(Path(sys.executable).parent)
    for stamp in (".core", ".test", ".dev"):
        (bin.parent / stamp).touch()  # newer than what it depends on: installed
    return {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def run_as_written(
    command: str, folder: Path, environment: dict[str, str], *, interrupt: bool = False, timeout: float = 500
) -> Done:
    """Runs a line of a page in a shell. With `interrupt`, Ctrl-C is pressed once as soon as a run has begun to train."""
    process = subprocess.Popen(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C goes to all processes of a command
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said, pressed = _Reader(process.stdout), False
    errors: list[str] = []
    clock = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
    clock.start()
    try:
        for line in process.stderr:
            errors.append(line)
            if interrupt and not pressed and BEGUN.search(line):
                pressed = True
                os.killpg(process.pid, signal.SIGINT)
        code = process.wait()
    finally:
        clock.cancel()
    return Done(command, code, said.text(), "".join(errors), pressed)


class _Reader:
    """Reads a stream while another one is looked at."""

    def __init__(self, stream: Iterator[str]) -> None:
        self._lines: list[str] = []
        self._thread = threading.Thread(target=lambda: self._lines.extend(stream))
        self._thread.start()

    def text(self) -> str:
        self._thread.join()
        return "".join(self._lines)
