"""The README's commands run as written, and the documentation builds without a warning."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line.partition(" #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
# getting the code, entering it, and the command that runs this very test
NOT_HERE = ("git clone ", "cd shortrun", "make test")


def test_the_two_commands_of_the_first_ten_minutes_are_there() -> None:
    assert {"make train", "make test"} <= set(COMMANDS)


def test_the_readmes_commands_run_as_written(tmp_path: Path) -> None:
    """In a fresh copy of the tree, with this environment in place of the one that `make` would install."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv" / ".core").touch()  # newer than what it depends on: installed
    path = f"{tmp_path / '.venv' / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}  # other tests have the other core
    ran = []
    for command in COMMANDS:
        if command.startswith(NOT_HERE):
            continue
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        ran.append((command, done.stdout))
    output = dict(ran)["make train"]
    for expected in (
        "loss (nats per character)",
        "above it",
        "five documents it writes",
        "run folder: runs/quickstart-1337",
    ):
        assert expected in output
    excess = float(re.search(r"the loss is (\S+)\s+above it", output.replace("\n", " ")).group(1))  # type: ignore[union-attr]
    assert 0 < excess < 0.2, "the quickstart learns most of what there is to learn, and nothing beats the floor"


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the docs extra is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(ROOT / "docs"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
