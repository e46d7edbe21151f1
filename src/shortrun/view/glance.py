"""A run at a glance: what its recipe changes, how large its model is, its losses, what it cost, its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shortrun.errors import UserError
from shortrun.model.language_model import LanguageModel
from shortrun.model.make import model_without_weights
from shortrun.recipe import WITHOUT_EFFECT, Recipe
from shortrun.recipe_file import FieldChange, changed_fields, load_recipe, shipped_recipes
from shortrun.runs.checkpoints import StoredCheckpoint, stored_checkpoints
from shortrun.runs.folder import RunFolder
from shortrun.runs.members import Member, members_of
from shortrun.score.intervals import bootstrap_interval
from shortrun.view.curves import Curves, read_curves
from shortrun.view.epochs import epochs
from shortrun.view.parts import parameters_by_part

DEFAULTS = "the defaults"
SCORES = (
    "loss", "bits_per_byte", "perplexity", "official_loss", "coverage", "tuning_loss", "floor", "excess", "steps", "epochs",
    "tokens", "passes", "flops", "seconds", "step_seconds", "tokens_per_second", "documents",
)  # fmt: skip
"""What is told of scores.json."""


@dataclass(frozen=True)
class Glance:
    """What `shortrun show` shows."""

    run: Path
    recipe: Recipe
    model: LanguageModel
    """On the meta device."""
    manifest: Mapping[str, Any]
    nearest: str
    """The shipped recipe from which the run's differs in the fewest fields, or DEFAULTS where these are as near."""
    differences: list[FieldChange]
    """From that one; fields that decide nothing are left out."""
    from_data: dict[str, Any]
    """The fields that the nearest recipe leaves to the data, and what they are in the run."""
    default_differences: list[FieldChange]
    scores: Mapping[str, Any] | None
    """What scores.json holds; None of a run without it."""
    interval: tuple[float, float] | None
    """95 %, of the loss over documents."""
    checkpoints: list[StoredCheckpoint]
    curves: Curves
    members: tuple[Member, ...]
    """Of an ensemble that was combined of finished runs."""
    notes: tuple[str, ...]

    @property
    def state(self) -> str:
        """How far the run is."""
        if self.scores and self.scores.get("complete"):
            return "finished"
        steps = int(self.curves.steps_N[-1]) if len(self.curves.steps_N) else 0
        of = f"{steps:,} of {self.curves.max_steps:,} steps" if self.curves.max_steps else "no step"
        return f"stopped after {of}" if self.scores else f"unfinished: {of} in its log, and no scores.json"

    @property
    def parameters(self) -> dict[str, int]:
        """Of each part that the model has, and of all."""
        counts = parameters_by_part(self.model)
        return {**{part: count for part, count in counts.items() if count}, "total": self.model.count_parameters()}

    def as_dict(self) -> dict[str, Any]:
        """What `shortrun show --json` prints."""
        scores = self.scores or {}
        return {
            "run": str(self.run),
            "state": self.state,
            "complete": bool(scores.get("complete")),
            "fingerprint": self.manifest.get("fingerprint"),
            "base": self.nearest,
            "recipe_differences": [_as_dict(each) for each in self.differences],
            "from_data": self.from_data,
            "default_differences": [_as_dict(each) for each in self.default_differences],
            "vocab_size": self.model.vocab_size,
            "parameters": self.parameters,
            **{key: scores.get(key) for key in SCORES if key in scores or key not in ("floor", "excess")},
            "interval": self.interval,
            "max_steps": self.curves.max_steps,
            "seed": self.recipe.train.seed,
            "data": {key: self.manifest["data"][key] for key in ("source", "sha256")},
            "machine": self.manifest["machine"],
            "checkpoints": [{**asdict(each), "whole": each.damage is None} for each in self.checkpoints],
            "curve": [asdict(each) for each in self.curves.evaluations],
            "by_epoch": [asdict(each) for each in epochs(self.curves)],
            "members": [each.told() for each in self.members],
            "notes": list(self.notes),
        }


def glance(path: Path) -> Glance:
    """Reads a run folder, of a run that is finished or not; raises UserError where it is none."""
    folder = RunFolder.open(path)
    recipe, manifest = folder.recipe(), folder.manifest()
    notes = []
    if unknown := folder.unknown_fields():
        notes.append(f"it was made by an older shortrun; this one does not know {', '.join(unknown)}")
    scores, interval = folder.scores(), None
    if scores:
        try:
            interval = bootstrap_interval(*folder.nats())
        except UserError as error:
            notes.append(f"the loss has no interval: {error}")
    bases = base_recipes()
    nearest, differences = nearest_recipe(recipe, bases)
    curves, members = read_curves(path), members_of(manifest)
    return Glance(
        run=path,
        recipe=recipe,
        model=model_without_weights(recipe, manifest["tokenizer"]["vocab_size"], [member.recipe for member in members]),
        manifest=manifest,
        nearest=nearest,
        differences=differences,
        from_data={field: recipe.value(field) for field in bases[nearest].train.from_data},
        default_differences=deciding(changed_fields(Recipe(), recipe)),
        scores=scores,
        interval=interval,
        checkpoints=stored_checkpoints(folder),
        curves=curves,
        members=members,
        notes=(*notes, *curves.notes),
    )


def base_recipes() -> dict[str, Recipe]:
    """What a run's recipe may be set beside, by name."""
    return {DEFAULTS: Recipe(), **{name: load_recipe(name) for name in shipped_recipes()}}


def nearest_recipe(recipe: Recipe, bases: Mapping[str, Recipe]) -> tuple[str, list[FieldChange]]:
    """The one of `bases` from which a run's recipe differs in the fewest fields, and these fields.

    A run keeps its resolved recipe and not what that extended, so its base is looked for. What a base leaves to the data is no
    difference: a run of it has some value there.
    """
    found = {name: _changes(base, recipe) for name, base in bases.items()}
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest, found[nearest]


def _changes(base: Recipe, recipe: Recipe) -> list[FieldChange]:
    left = ("train.from_data", *base.train.from_data)
    return [change for change in deciding(changed_fields(base, recipe)) if change.field not in left]


def deciding(changes: list[FieldChange]) -> list[FieldChange]:
    """Those that decide what a run learns."""
    return [change for change in changes if change.field not in WITHOUT_EFFECT]


def _as_dict(change: FieldChange) -> dict[str, Any]:
    return {"field": change.field, "base": change.old, "run": change.new}
