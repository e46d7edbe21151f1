"""The run folder: a public format that everything else reads and only this room writes (see docs/run-folder.md).

recipe.toml         the resolved recipe, written before step 0
manifest.json       data and tokenizer fingerprints, versions, machine, determinism
metrics.jsonl       one JSON object a line, one line an event
tokenizer.json      the tokenizer
checkpoints/<step>/ model.safetensors, state.pt, checkpoint.json
scores.json         the losses and the budget of the finished (or stopped) run
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shortrun.errors import UserError
from shortrun.recipe import Recipe
from shortrun.recipe_file import differences, parse_recipe, to_toml
from shortrun.tokens.kinds import load_tokenizer
from shortrun.tokens.tokenizer import Tokenizer


class RunFolder:
    """Paths and contents of one run. Build it with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.toml"
        self.manifest_file = path / "manifest.json"
        self.metrics_file = path / "metrics.jsonl"
        self.tokenizer_file = path / "tokenizer.json"
        self.scores_file = path / "scores.json"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, path: Path, recipe: Recipe, tokenizer: Tokenizer, manifest: dict[str, Any]) -> RunFolder:
        """Makes the folder of a new run; refuses one that already holds something."""
        require_free(path)
        folder = cls(path)
        folder.checkpoints.mkdir(parents=True)
        tokenizer.save(folder.tokenizer_file)
        write_json(folder.manifest_file, manifest)
        # written last: a folder without recipe.toml was never a run
        write_atomically(folder.recipe_file, to_toml(recipe).encode())
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run; raises UserError when `path` is none."""
        folder = cls(path)
        if not folder.recipe_file.is_file():
            what = "it has no recipe.toml" if path.is_dir() else "there is no such folder"
            near = sorted(found.parent for found in path.parent.glob("*/recipe.toml"))
            hint = f"; runs beside it: {', '.join(str(run) for run in near[:5])}" if near else ""
            raise UserError(f"{path} is not a run: {what}{hint}")
        return folder

    def recipe(self) -> Recipe:
        """The run's recipe; raises UserError, with the differences, if it is no longer the one the run began with."""
        try:
            text = self.recipe_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.recipe_file} can't be read: {error}") from None
        recipe = parse_recipe(text, str(self.recipe_file))
        began = Recipe.model_validate(self.manifest()["recipe"])
        if recipe.fingerprint() != began.fingerprint():
            lines = "\n".join(f"  {line}" for line in differences(began, recipe))
            raise UserError(f"{self.recipe_file} has changed since the run began; undo this to go on:\n{lines}")
        return recipe

    def manifest(self) -> dict[str, Any]:
        manifest = read_json(self.manifest_file)
        missing = {"recipe", "data", "tokenizer", "machine"} - manifest.keys()
        if missing:
            raise UserError(f"{self.manifest_file} is damaged: it lacks {', '.join(sorted(missing))}")
        return manifest

    def require_same_data(self, now: dict[str, Any]) -> None:
        """Raises UserError, with the splits that differ, unless the data's manifest is that of the run's data."""
        before = self.manifest()["data"]
        if before["sha256"] == now["sha256"]:
            return
        lines = "\n".join(
            f"  {name}: {split['titles']:,} titles, sha256 {split['sha256'][:12]} -> "
            f"{now['splits'][name]['titles']:,} titles, sha256 {now['splits'][name]['sha256'][:12]}"
            for name, split in before["splits"].items()
            if name in now["splits"] and split["sha256"] != now["splits"][name]["sha256"]
        )
        raise UserError(f"The data is not what this run was trained on; bring it back to go on:\n{lines}")

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer; raises UserError if the file is not the one the run was made with."""
        tokenizer = load_tokenizer(self.tokenizer_file)
        expected = self.manifest()["tokenizer"]["sha256"]
        if tokenizer.sha256 != expected:
            raise UserError(
                f"{self.tokenizer_file} has changed since the run began:\n"
                f"  sha256 then: {expected}\n  sha256 now:  {tokenizer.sha256}"
            )
        return tokenizer

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Every event of metrics.jsonl, in order."""
        with self.metrics_file.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def require_free(path: Path) -> None:
    """Raises UserError unless a new run can be made at `path`."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        is_run = (path / "recipe.toml").exists()
        hint = (
            f"go on with it by `shortrun resume {path}`, or choose another --out" if is_run else "choose another --out"
        )
        raise UserError(f"{path} already exists and is not empty: {hint}")


def free_path(base: Path) -> Path:
    """`base`, or the first of base-2, base-3, ... that does not exist yet."""
    number, path = 1, base
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that at any moment either the old or the whole new content is on disk."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from None
    return content
