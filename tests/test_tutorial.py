"""The tutorial's commands run as they are written, one after the other, in a copy of the tree.

Ctrl-C is pressed in every training that says no --max-steps, after its first step: as the tutorial itself proposes, and because
together they would take half an hour.
"""

from __future__ import annotations

import csv
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder
from shortrun.text.synthetic import sample_titles
from tests.commands_of import commands_of, copy_of_the_tree, files_of, run_as_written, run_here
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
ROWS = 600


def test_what_is_a_command() -> None:
    page = "```sh\n# first\na --b \\\n  c  # why\n\nmake test\n```\ntext\n```toml\n# x.toml\n[a]\n```\n```sh\nd 'e#f'\n```\n"
    assert commands_of(page) == ["a --b    c", "make test", "d 'e#f'"]
    assert run_here(page) == ["a --b    c", "d 'e#f'"]
    assert files_of(page) == {"x.toml": "# x.toml\n[a]\n"}


def test_the_tutorial_trains_samples_resumes_and_takes_files() -> None:
    """Else the test below would have little to run."""
    run = " ".join(run_here(PAGE))
    for needed in (
        "make train",
        "shortrun train ",
        "shortrun resume ",
        "shortrun sample ",
        "shortrun report ",
        "--data.path ",
    ):
        assert needed in run
    assert files_of(PAGE)


def write_data(command: str, folder: Path) -> None:
    """Makes the file of one's own that a command reads, where the page has not made it."""
    words = shlex.split(command)
    options = dict(pairwise(words))
    path = folder / options["--data.path"]
    if path.exists():
        return
    titles, column = sample_titles(ROWS, seed=3), options.get("--data.column", "title")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".txt":
            file.writelines(f"{title}\n" for title in titles)
        else:
            assert path.suffix in (".csv", ".tsv"), f"this test can't make {path.name}: teach it"
            delimiter = "\t" if path.suffix == ".tsv" else ","
            csv.writer(file, delimiter=delimiter).writerows([("id", column), *enumerate(titles)])


@pytest.mark.slow
def test_the_tutorials_commands_run_as_written(tmp_path: Path) -> None:
    environment = copy_of_the_tree(tmp_path)
    for name, text in files_of(PAGE).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    runs = 0
    for command in run_here(PAGE):
        if "--data.path" in command:
            write_data(command, tmp_path)
        done = run_as_written(command, tmp_path, environment, interrupt="--max-steps" not in command)
        if not done.interrupted:
            assert done.code == 0, done
            assert done.out, done
            continue
        assert done.code != 0, done
        (path,) = set(re.findall(r"^Run folder (\S+)$", done.err, flags=re.MULTILINE))
        assert f"go on by `shortrun resume {path}`" in done.err, done
        checkpoint, damaged = newest_checkpoint(RunFolder.open(tmp_path / path))
        assert checkpoint is not None, done
        assert not damaged
        runs += 1
    assert runs >= 3
    stopped = [RunFolder.open(found.parent) for found in tmp_path.glob("runs/*/recipe.toml")]
    assert len({run.fingerprint() for run in stopped}) > 1, "some of them change something"
