"""docs/export.md: its commands run as written, and its tables say what is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from shortrun.export.classes import GPT2, LLAMA, NEEDS
from shortrun.recipe_file import toml_value
from tests.commands_of import commands_of, files_of
from tests.conftest import ROOT, run_command

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
SMALLER = "--data.num-titles 300 --tokenizer.vocab-size 400 --model.n-layer 1 --model.d-model 16 --model.n-head 2 --train.epochs 1"
"""Flags with which a recipe trains in a second."""


@pytest.mark.slow
def test_its_commands_run_as_written(tmp_path: Path) -> None:
    for name, text in files_of(PAGE).items():
        (tmp_path / name).write_text(text)
    commands = commands_of(PAGE)
    assert {command.split()[1] for command in commands} == {"train", "export", "verify"}
    for command in commands:
        more = SMALLER if " train " in command else ""
        done = run_command(*shlex.split(command)[1:], *more.split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_its_table_of_fields_is_the_one_that_decides() -> None:
    rows = re.findall(r"^\| (`model\.[^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, flags=re.MULTILINE)
    found = {
        (field, name, cell)
        for fields, *cells in rows
        for field in re.findall(r"`model\.(\w+)`", fields)
        for name, cell in zip((GPT2, LLAMA), cells, strict=True)
    }
    told = {
        (need.field, name, ", ".join(f"`{toml_value(value)}`" for value in need.allowed))
        for name, needs in NEEDS.items()
        for need in needs
    }
    assert found == told
