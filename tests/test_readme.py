"""The README's commands run as written, its recipe is one, and the documentation builds without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shortrun.recipe_file import load_recipe
from tests.commands_of import commands_of, copy_of_the_tree, run_as_written, run_here
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_commands_of_the_first_ten_minutes_are_there() -> None:
    assert {"make train", "make test"} <= set(commands_of(README))


def test_its_recipe_is_what_its_command_line_says(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "deeper.toml").write_text(text)
    same = load_recipe("quickstart", {"model": {"n_layer": 6}, "optim": {"muon_lr": 0.01}})
    assert load_recipe(str(tmp_path / "deeper.toml")) == same
    assert "quickstart --model.n-layer 6 --optim.muon-lr 0.01" in README


@pytest.mark.slow
def test_the_readmes_commands_run_as_written(tmp_path: Path) -> None:
    """In a fresh copy of the tree, with this environment in place of the one that `make` would install."""
    environment = copy_of_the_tree(tmp_path)
    outputs = {}
    for command in run_here(README):
        done = run_as_written(command, tmp_path, environment, timeout=900)
        assert done.code == 0, done
        outputs[command] = done.out
    output = outputs["make train"]
    for expected in (
        "loss (nats per character)",
        "above it",
        "five documents it writes",
        "run folder: runs/quickstart-1337",
    ):
        assert expected in output
    excess = float(re.search(r"the loss is (\S+)\s+above it", output.replace("\n", " ")).group(1))  # type: ignore[union-attr]
    assert 0 < excess < 0.1, "the quickstart learns most of what there is to learn, and nothing beats the floor"


@pytest.mark.slow
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
