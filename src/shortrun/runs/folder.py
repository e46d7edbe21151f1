"""The run folder: a public format that everything reads and only `train/` writes (docs/run-folder.md).

recipe.toml         the resolved recipe, written before step 0
manifest.json       format, fingerprints of recipe, data and tokenizer, versions, machine
metrics.jsonl       one JSON object a line, one line an event
tokenizer.json      the tokenizer
checkpoints/<step>/ model.safetensors, state.pt, checkpoint.json
scores.json         the losses and the budget of the finished (or stopped) run
nats.npz            -log p of each validation and tuning document at that moment, and its characters, in order
"""

from __future__ import annotations

import difflib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from shortrun.disk import json_sha256, make_folders, read_json, sync, write_atomically, write_json
from shortrun.errors import UserError, reason_of
from shortrun.limits import TOML_BYTES, read_bounded, require_no_link, shortened
from shortrun.recipe import Recipe
from shortrun.recipe_file import differences, parse_recipe, to_toml
from shortrun.runs.arrays import read_arrays
from shortrun.runs.events import numbered_events
from shortrun.runs.result import Result
from shortrun.runs.shapes import require_manifest, require_scores
from shortrun.text.corpus import Corpus, load_corpus
from shortrun.tokens.kinds import load_tokenizer
from shortrun.tokens.tokenizer import Tokenizer

FORMAT = 3
"""Counted up when a reader of the old format could not read the new one. Format 1 had no number."""


def run_fingerprint(recipe: Recipe, data_sha256: str, tokenizer_sha256: str) -> str:
    """The identity of a run: what its result follows from."""
    return json_sha256([recipe.fingerprint(), data_sha256, tokenizer_sha256])


def ensemble_fingerprint(members: Sequence[tuple[str, float]]) -> str:
    """The identity of an ensemble of finished runs: their fingerprints and weights, in order."""
    return json_sha256(["ensemble", [list(member) for member in members]])


class Nats(NamedTuple):
    """How a model scored each document of a split."""

    nats_D: NDArray[np.float64]
    """-log p of each document and its end."""
    characters_D: NDArray[np.int64]
    """Of each document, its end counted as 5."""

    @property
    def loss(self) -> float:
        """Nats per character."""
        return float(self.nats_D.sum() / self.characters_D.sum())


class RunFolder:
    """Paths and contents of one run. Build it with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.toml"
        self.manifest_file = path / "manifest.json"
        self.metrics_file = path / "metrics.jsonl"
        self.tokenizer_file = path / "tokenizer.json"
        self.scores_file = path / "scores.json"
        self.nats_file = path / "nats.npz"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, path: Path, recipe: Recipe, tokenizer: Tokenizer, manifest: dict[str, Any]) -> RunFolder:
        """Makes the folder of a new run, whole or not at all; raises UserError where that can't be."""
        require_free(path)
        made = cls(path.with_name(f"{path.name}.{uuid4().hex[:8]}.tmp"))  # another process may be making the same run
        try:
            make_folders(path.parent)
            made.checkpoints.mkdir(parents=True)
            tokenizer.save(made.tokenizer_file)
            write_json(made.manifest_file, {"format": FORMAT, **manifest})
            write_atomically(made.recipe_file, to_toml(recipe).encode())
            made.path.rename(path)
            sync(path.parent)
        except OSError as error:
            shutil.rmtree(made.path, ignore_errors=True)
            raise UserError(f"The run folder {path} can't be made: {error.strerror or error}") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run; raises UserError when `path` is none, or one of another format."""
        folder = cls(path)
        if not folder.recipe_file.is_file():
            what = "it has no recipe.toml" if path.is_dir() else "there is no such folder"
            hint = runs_near(path) or _listed("runs beside it", _runs_beside(path))
            raise UserError(f"{path} is not a run: {what}{hint and '; '}{hint}")
        manifest = read_json(folder.manifest_file)
        found = manifest.get("format", 1)
        if found != FORMAT:
            age = "an older" if isinstance(found, int) and found < FORMAT else "a newer"
            found = shortened(found)
            raise UserError(
                f"{path} is a run of format {found}, made by {age} shortrun; this one reads format {FORMAT}. Train its "
                "recipe anew, or read it by the version that made it"
            )
        require_manifest(manifest, folder.manifest_file)
        return folder

    def recipe(self) -> Recipe:
        """The run's recipe; raises UserError, with the differences, if it is no longer the one the run began with."""
        return self._recipe()[0]

    def unknown_fields(self) -> list[str]:
        """Fields of the run's recipe that this version does not know: the run can be read, but not gone on with."""
        return self._recipe()[1]

    def _recipe(self) -> tuple[Recipe, list[str]]:
        try:
            text = read_bounded(self.recipe_file, TOML_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.recipe_file} can't be read: {reason_of(error)}") from None
        recipe, unknown = parse_recipe(text, str(self.recipe_file))
        began, _ = parse_recipe(self.manifest()["recipe"], str(self.manifest_file))
        lines = [line for line in differences(began, recipe) if not line.startswith(("data.path:", "tokenizer.path:"))]
        if lines:
            told = "\n".join(f"  {line}" for line in lines)
            raise UserError(f"{self.recipe_file} has changed since the run began; undo this to go on:\n{told}")
        return recipe, unknown

    def manifest(self) -> dict[str, Any]:
        """What manifest.json holds; raises UserError where it is damaged."""
        manifest = read_json(self.manifest_file)
        require_manifest(manifest, self.manifest_file)
        return manifest

    def fingerprint(self) -> str:
        """The identity of the run: of its recipe, its data and its tokenizer."""
        return str(self.manifest().get("fingerprint", ""))

    def corpus(self) -> Corpus:
        """The run's documents, read again; raises UserError where they can't be or are no longer the same."""
        corpus = load_corpus(self.recipe().data)
        self.require_same_data(corpus.manifest)
        return corpus

    def require_same_data(self, now: dict[str, Any]) -> None:
        """Raises UserError, with the splits that differ, unless the data's manifest is that of the run's data."""
        before = self.manifest()["data"]
        if before["sha256"] == now["sha256"]:
            return
        lines = "\n".join(
            f"  {name}: {split['documents']:,} documents, sha256 {split['sha256'][:12]} -> "
            f"{now['splits'][name]['documents']:,} documents, sha256 {now['splits'][name]['sha256'][:12]}"
            for name, split in before["splits"].items()
            if name in now["splits"] and split["sha256"] != now["splits"][name]["sha256"]
        )
        raise UserError(
            f"The data is not what this run was trained on; bring it back to go on (--data.path names where it lies now):\n"
            f"{lines}"
        )

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
        """Every event of metrics.jsonl, in order; raises UserError at a line that holds none, and OSError."""
        for place, event in numbered_events(self.metrics_file):
            if event is None:
                raise UserError(f"{self.metrics_file}, line {place}: it holds no event")
            yield event

    def require_own(self) -> None:
        """Raises UserError where something that training writes to is a link: it may only write inside the folder."""
        inside = [*self.path.iterdir(), *(self.checkpoints.iterdir() if self.checkpoints.is_dir() else ())]
        for path in sorted(inside):
            require_no_link(path)

    def write_result(self, result: Result) -> None:
        """Writes nats.npz and then scores.json, so that scores are never there without their nats."""
        arrays: dict[str, Any] = {}
        for split, evaluation in (("validation", result.evaluation), ("tuning", result.tuning)):
            if evaluation:
                arrays[split] = evaluation.nats_D
                arrays[f"{split}_characters"] = evaluation.characters_D
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_atomically(self.nats_file, content.getvalue())
        write_json(self.scores_file, result.as_dict())

    def remove_result(self) -> None:
        """Takes away scores that further steps are about to make untrue, for good, whatever happens to those steps."""
        self.scores_file.unlink(missing_ok=True)
        self.nats_file.unlink(missing_ok=True)
        sync(self.path)

    def scores(self) -> dict[str, Any] | None:
        """What scores.json holds; None while there is none. Raises UserError where it is damaged."""
        if not self.scores_file.exists():
            return None
        scores = read_json(self.scores_file)
        require_scores(scores, self.scores_file)
        return scores

    def nats(self, split: str = "validation") -> Nats:
        """The scores of each document of `validation` or `tuning` at the last step; raises UserError while there are none."""
        names = {split: "f", f"{split}_characters": "i"}
        try:
            # they are stored as they are, so that what they take is in the file
            arrays = read_arrays(self.nats_file, names, self.nats_file.stat().st_size)
        except OSError as error:
            raise UserError(f"{self.nats_file} can't be read: {reason_of(error)}") from None
        except KeyError:
            raise UserError(f"{self.nats_file} holds no {split} documents") from None
        except ValueError as error:
            raise UserError(f"{self.nats_file} is damaged: {error}") from None
        nats_D, characters_D = arrays.values()
        if nats_D.ndim != 1 or nats_D.shape != characters_D.shape or not len(nats_D):
            raise UserError(
                f"{self.nats_file} is damaged: it holds {nats_D.shape} nats and {characters_D.shape} characters"
            )
        if not (np.isfinite(nats_D).all() and (characters_D > 0).all()):
            raise UserError(f"{self.nats_file} is damaged: it holds what is no loss of a document")
        return Nats(nats_D.astype(np.float64), characters_D.astype(np.int64))

    def finished_scores(self) -> dict[str, Any] | None:
        """What scores.json holds of a run that has taken all its steps; None where it or nats.npz is missing or damaged.

        Such a run goes on from its checkpoint, and writes both anew.
        """
        try:
            scores = self.scores()
            if not scores or scores.get("complete") is not True:
                return None
            self.nats("tuning" if scores.get("tuning_loss") is not None else "validation")
        except UserError:
            return None
        return scores


def runs_in(root: Path) -> Iterator[RunFolder]:
    """Every readable run in a folder or below it, by path; one that is still being made is none."""
    for place, folders, files in os.walk(root):  # one that is renamed meanwhile is passed over
        folders[:] = sorted(name for name in folders if not name.endswith(".tmp"))
        if "recipe.toml" in files:
            folders.clear()
            with suppress(UserError):
                yield RunFolder.open(Path(place))


def runs_by_fingerprint(root: Path) -> dict[str, RunFolder]:
    """The run of each identity in a folder or below it; a finished one before others."""
    found: dict[str, RunFolder] = {}
    for run in runs_in(root):
        name = run.fingerprint()
        if name not in found or (run.finished_scores() and not found[name].finished_scores()):
            found[name] = run
    return found


def find_run(root: Path, fingerprint: str) -> RunFolder | None:
    """The run of that identity in a folder or below it; a finished one before others."""
    return runs_by_fingerprint(root).get(fingerprint)


def runs_near(path: Path) -> str:
    """A clause that says which runs may be meant by a path that is none: those in it, or the one beside it whose name is
    nearest; "" where there is neither."""
    inside = sorted(path.glob("*/recipe.toml")) or sorted(path.glob("*/*/recipe.toml"))
    if inside:
        return _listed("runs in it", [found.parent for found in inside])
    beside = {run.name: run for run in _runs_beside(path)}
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"did you mean {beside[near[0]]}?" if near else ""


def _runs_beside(path: Path) -> list[Path]:
    return [found.parent for found in sorted(path.parent.glob("*/recipe.toml"))]


def _listed(what: str, runs: list[Path], most: int = 5) -> str:
    more = f" and {len(runs) - most:,} more" if len(runs) > most else ""
    return f"{what}: {', '.join(map(str, runs[:most]))}{more}" if runs else ""


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
