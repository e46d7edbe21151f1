"""Runs side by side: what differs in their recipes, their losses, and which documents make the difference.

The first run is what the others are compared with. Documents are paired by the nats that run folders keep, so nothing is
scored anew. What needs pairing is left out, and said, where validation documents are not the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shortrun.errors import ShortrunError, UserError, counted
from shortrun.recipe import WITHOUT_EFFECT, Recipe
from shortrun.recipe_file import changed_fields
from shortrun.runs.folder import Nats, RunFolder
from shortrun.runs.trained import load_trained
from shortrun.score.intervals import bootstrap_interval
from shortrun.view.alignment import Span, aligned
from shortrun.view.curves import Curves, read_curves
from shortrun.view.paired_documents import DocumentDifference, RunDifference, paired_difference
from shortrun.view.paired_steps import StepRow, paired_steps
from shortrun.view.reading import read

BUDGET = ("parameters", "steps", "epochs", "tokens", "passes", "flops", "seconds", "step_seconds", "tokens_per_second")
MACHINE = {"shortrun": "versions of shortrun", "torch": "versions of torch", "precision": "precisions"}
"""What the manifests say of how a run was made that may move its losses."""
SPEED = {"processor": "processors", "device": "devices", "threads": "numbers of threads", "processes": "numbers of processes"}  # fmt: skip
"""What moves its seconds."""


@dataclass(frozen=True)
class FieldValues:
    """A field of the recipe, "section.name", and its value in each run."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs. The scores are None while it has none."""

    name: str
    """Of its folder, or the whole path where two have the same."""
    run: Path
    recipe: Recipe
    manifest: dict[str, Any]
    scores: dict[str, Any] | None
    nats: Nats | None
    """Of the documents that are compared, at its last step."""
    curves: Curves
    """Their evaluations are of the same documents."""
    split: str = "validation"
    """The documents that are compared."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %, of the loss over documents."""
        return bootstrap_interval(*self.nats) if self.nats else None

    @property
    def documents_sha256(self) -> str:
        """Of its documents that are compared."""
        return str(self.manifest["data"]["splits"].get(self.split, {}).get("sha256"))

    def as_dict(self) -> dict[str, Any]:
        scores = self.scores or {}
        told = ("loss", "official_loss", "coverage", "bits_per_byte", "perplexity", "tuning_loss", *BUDGET, "complete")
        return {
            "run": str(self.run),
            "name": self.name,
            "seed": self.recipe.train.seed,
            "interval": self.interval,
            **{key: scores.get(key) for key in told},
        }


@dataclass(frozen=True)
class Comparison:
    """What `shortrun compare` shows."""

    runs: tuple[ComparedRun, ...]
    recipe_differences: list[FieldValues]
    differences: list[RunDifference]
    """Of each run but the first that can be paired with it."""
    steps: list[StepRow]
    on: str | None
    """The text that was read by all models."""
    spans: list[Span]
    """Of that text."""
    notes: list[str]

    @property
    def documents(self) -> dict[str, list[DocumentDifference]]:
        """The documents that have become better and worse, of all runs, those of each with the largest difference first."""
        return {
            kind: [each for found in self.differences for each in found.extremes[number]]
            for number, kind in enumerate(("better", "worse"))
        }

    def as_dict(self) -> dict[str, Any]:
        """What `shortrun compare --json` prints."""
        return {
            "recipe_differences": [asdict(each) for each in self.recipe_differences],
            "runs": [run.as_dict() for run in self.runs],
            "differences": [{**each.as_dict(), "reference": str(self.runs[0].run)} for each in self.differences],
            "steps": [asdict(row) for row in self.steps],
            "documents": {kind: [asdict(each) for each in found] for kind, found in self.documents.items()},
            "on": None if self.on is None else {"text": self.on, "spans": [asdict(span) for span in self.spans]},
            "notes": self.notes,
        }


def compare_runs(
    paths: Sequence[Path],
    *,
    show: int = 5,
    on: str | None = None,
    split: str = "validation",
    names: Sequence[str] | None = None,
) -> Comparison:
    """Compares runs with the first one; `show` documents at either end, and token by token on a text.

    split: the documents, "validation" or "tuning". names: what the runs are called, if not as their folders.

    Raises UserError for fewer than two runs, for one given twice, and where one is no run folder of this format. Of runs
    without scores, recipes and curves are compared, and a note says so.
    """
    if len(paths) < 2:
        raise UserError("A comparison needs two runs at least; `shortrun show RUN` looks at one")
    for number, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:number]]:
            raise UserError(f"{path} is given twice, and a run does not differ from itself: leave one of them out")
    notes: list[str] = []
    runs = tuple(_read(path, name, notes, split) for path, name in zip(paths, names or run_names(paths), strict=True))
    _note_sameness(runs, notes)
    alike = [_same_documents(run, runs[0], notes) for run in runs]
    differences = []
    for run, same in zip(runs, alike, strict=True):
        if run is not runs[0] and same and run.nats and runs[0].nats and _same_nats(run, runs[0], notes):
            differences.append(paired_difference(run.name, run.run, run.nats, runs[0].nats, show))
    if differences and show:
        differences = _with_texts(differences, runs[0], notes)
    rows, sentence = paired_steps([run.curves for run in runs], [run.name for run in runs], alike)
    spans = _spans(runs, on, notes) if on is not None else []
    return Comparison(
        runs=runs,
        recipe_differences=_recipe_differences([run.recipe for run in runs]),
        differences=differences,
        steps=rows,
        on=on,
        spans=spans,
        notes=[*notes, *sentence],
    )


def _spans(runs: Sequence[ComparedRun], text: str, notes: list[str]) -> list[Span]:
    """A text, read by the model of each run's newest checkpoint."""
    models = [load_trained(run.run) for run in runs]
    for run, trained in zip(runs, models, strict=True):
        notes += [f"{run.name}: {note}" for note in trained.notes if note not in notes]
        if not (run.scores and run.scores.get("complete")):
            notes.append(f"The text was read by the model of {run.name} after {counted(trained.step, 'step')}.")
    return aligned([read(trained, text, top=1) for trained in models])


def _read(path: Path, name: str, notes: list[str], split: str) -> ComparedRun:
    folder = RunFolder.open(path)
    recipe, scores, nats = folder.recipe(), folder.scores(), None
    if unknown := folder.unknown_fields():
        notes.append(f"{name} was made by an older shortrun; this one does not know {', '.join(unknown)}.")
    if scores is None:
        notes.append(
            f"{name} has no scores.json yet: it is still training, or `shortrun resume {path}` goes on with it."
        )
    else:
        if not scores.get("complete"):
            notes.append(f"{name} has stopped after {scores.get('steps')} steps and has not taken all of them.")
        try:
            nats = folder.nats(split)
        except UserError as error:
            notes.append(f"{name} has no nats of its documents: {error}.")
    curves = read_curves(path).on(split)
    notes += [f"{note}." for note in curves.notes]
    return ComparedRun(name, path, recipe, folder.manifest(), scores, nats, curves, split)


def run_names(paths: Sequence[Path]) -> list[str]:
    """The names of their folders, or the whole paths where two have the same."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _note_sameness(runs: Sequence[ComparedRun], notes: list[str]) -> None:
    """Says what besides the recipes may make the difference, or that nothing does."""
    first = runs[0]
    for run in runs[1:]:
        if run.manifest.get("fingerprint") == first.manifest.get("fingerprint"):
            notes.append(
                f"{run.name} has the recipe, the data and the tokenizer of {first.name}: it is the same run again."
            )
    for told, what in ((MACHINE, "so that their difference may be partly that"), (SPEED, "so that their seconds don't compare")):  # fmt: skip
        for key, name in told.items():
            values = [str(run.manifest["machine"].get(key)) for run in runs]
            if len(set(values)) > 1:
                notes.append(f"The runs were made with different {name} ({', '.join(values)}), {what}.")


def _recipe_differences(recipes: Sequence[Recipe]) -> list[FieldValues]:
    """The fields in which any run differs from the first, in the order of the recipe."""
    changed = {change.field for recipe in recipes[1:] for change in changed_fields(recipes[0], recipe)}
    fields = (f"{section}.{name}" for section, values in recipes[0] for name in type(values).model_fields)
    return [
        FieldValues(field, tuple(recipe.value(field) for recipe in recipes))
        for field in fields
        if field in changed and field not in WITHOUT_EFFECT
    ]


def _same_documents(run: ComparedRun, first: ComparedRun, notes: list[str]) -> bool:
    """Whether both have the same validation documents, scored or not yet; says what follows if not."""
    if run.documents_sha256 == first.documents_sha256:
        return True
    notes.append(
        f"{run.name} and {first.name} have different {run.split} documents (sha256 {run.documents_sha256[:12]} and "
        f"{first.documents_sha256[:12]}), so nothing that pairs documents is compared, and their losses are of different "
        "texts."
    )
    return False


def _same_nats(run: ComparedRun, first: ComparedRun, notes: list[str]) -> bool:
    """Whether the nats of both are of documents of the same lengths; says so if not."""
    assert run.nats
    assert first.nats
    if np.array_equal(run.nats.characters_D, first.nats.characters_D):
        return True
    notes.append(f"The nats of {run.name} and {first.name} are not of the same documents: one nats.npz is damaged.")
    return False


def _with_texts(differences: list[RunDifference], first: ComparedRun, notes: list[str]) -> list[RunDifference]:
    """The same with the texts of their documents, where these can still be read."""
    try:
        documents = RunFolder.open(first.run).corpus().split(first.split)
    except ShortrunError as error:
        notes.append(f"The documents can't be read any more, so they have numbers and no texts: {error}")
        return differences

    def named(side: list[DocumentDifference]) -> list[DocumentDifference]:
        return [replace(each, document=documents[each.index]) for each in side]

    return [replace(found, extremes=(named(found.extremes[0]), named(found.extremes[1]))) for found in differences]
