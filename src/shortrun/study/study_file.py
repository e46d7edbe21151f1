"""A study: a list of runs that differ on purpose, times seeds, declared in a TOML file.

    about = "AdamW, then rotary positions"     what it asks, for the report
    base = "baseline"                          a shipped recipe, or a file beside this one
    form = "ladder"                            each change on top of the last; "ablation": each alone; "grid": all combinations
    seeds = [1, 2, 3]

    [scale]                                    what makes it affordable, printed with every result
    titles = 0.1
    width = 0.5
    epochs = 2

    [every]                                    recipe fields of all runs
    train.evals_per_epoch = 1

    [[change]]
    name = "AdamW"
    reason = "It scales each weight's step by that weight's own gradients."
    optim.name = "adamw"
    optim.lr = 1e-3

In a grid, a field's value is a list of the values it takes. Layers are laid over one another in this order: the base, the
command line, the scale, `every`, the changes, the seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from shortrun.errors import UserError, did_you_mean
from shortrun.recipe import Recipe
from shortrun.recipe_file import Layers, toml_value
from shortrun.study.scaled import Overrides, Scale, Scaled, checked_file, nested, scaled_base, toml_of

SHIPPED = Path(__file__).parents[1] / "studies"


@dataclass(frozen=True)
class Row:
    """One line of a study's table: a recipe under each seed, and what it is compared with."""

    change: str
    """What was changed; in the first row the name of the base."""
    reason: str
    reference: int | None
    """The row that it is compared with; None for the base."""
    recipes: dict[int, Recipe]
    """By seed."""


@dataclass(frozen=True)
class Study:
    """A study, decided."""

    name: str
    about: str
    base: str
    form: Literal["ladder", "ablation", "grid"]
    scale: Scale
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _Change:
    name: str
    reason: str
    values: dict[str, dict[str, Any]]


class _File(Scaled):
    """What a study file holds."""

    form: Literal["ladder", "ablation", "grid"]
    seeds: tuple[int, ...] = Field(min_length=1)
    change: tuple[dict[str, Any], ...] = Field(min_length=1)


def shipped_studies() -> dict[str, Path]:
    """Name and file of each study that comes with the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def study_path(name: str) -> Path:
    """The file of a study given by its shipped name or as a path; raises UserError if it is neither."""
    shipped = shipped_studies()
    if name in shipped:
        return shipped[name]
    for path in (Path(name), Path(f"{name}.toml")):
        if path.is_file():
            return path
    raise UserError(f"There is no study '{name}': {did_you_mean(Path(name).stem, shipped)} (or give a .toml file)")


def load_study(name: str, overrides: Overrides | None = None, also: Sequence[str] = ()) -> Study:
    """Reads a study and makes every recipe of it.

    overrides: {section: {field: value}} of the command line, which reach every run. `also` are mistakes found in the flags.
    Raises UserError with all that is wrong.
    """
    path = study_path(name)
    file = checked_file(path, _File, "study", toml_of(path, "study"))
    base = scaled_base(path, file, overrides, also)
    rows: list[tuple[str, str, int | None, list[_Change]]] = [(Path(file.base).stem, file.about, None, [])]
    changes = [_change(path, number, dict(values)) for number, values in enumerate(file.change, 1)]
    if file.form == "grid":
        rows += [(_combined_name(combined), "", 0, combined) for combined in _combinations(path, changes)]
    else:
        for number, change in enumerate(changes, 1):
            before = rows[-1][3] if file.form == "ladder" else []
            rows.append((change.name, change.reason, number - 1 if file.form == "ladder" else 0, [*before, change]))
    problems: list[str] = []
    made = []
    for title, reason, reference, laid in rows:
        try:
            made.append(Row(title, reason, reference, dict(_recipes(path, base, laid, file.seeds))))
        except UserError as error:
            problems += [line for line in str(error).splitlines()[1:] if line not in problems]
    if problems:
        raise UserError("\n".join([f"{path} asks for what can't be:", *problems]))
    return Study(path.stem, file.about, file.base, file.form, file.scale, file.seeds, tuple(made))


def _change(path: Path, number: int, values: dict[str, Any]) -> _Change:
    name, reason = values.pop("name", ""), values.pop("reason", "")
    if not (isinstance(name, str) and name and isinstance(reason, str) and reason):
        raise UserError(f'{path}: change {number} needs a name and a reason, a sentence for the report: reason = "..."')
    if not values or not all(isinstance(fields, dict) for fields in values.values()):
        raise UserError(f'{path}: change "{name}" sets no field of a recipe, such as optim.lr = 1e-3')
    return _Change(name, reason, values)


def _combinations(path: Path, changes: Sequence[_Change]) -> Iterator[list[_Change]]:
    """Every combination of one value of each change's fields."""
    choices = []
    for change in changes:
        fields = [(section, name) for section, given in change.values.items() for name in given]
        lists = [change.values[section][name] for section, name in fields]
        if not all(isinstance(values, list) and values for values in lists):
            raise UserError(f'{path}: change "{change.name}": in a grid each field has a list of values')
        if len({len(values) for values in lists}) > 1:
            raise UserError(f'{path}: change "{change.name}": its fields have lists of different lengths')
        choices.append(
            [_Change(change.name, change.reason, nested(fields, values)) for values in zip(*lists, strict=True)]
        )
    yield from (list(combined) for combined in itertools.product(*choices))


def _combined_name(combined: Sequence[_Change]) -> str:
    return ", ".join(
        f"{section}.{name} = {toml_value(tuple(value) if isinstance(value, list) else value)}"
        for change in combined
        for section, fields in change.values.items()
        for name, value in fields.items()
    )


def _recipes(path: Path, base: Layers, laid: Sequence[_Change], seeds: Sequence[int]) -> Iterator[tuple[int, Recipe]]:
    layers = deepcopy(base)
    for change in laid:
        layers.lay(change.values, f'{path}: change "{change.name}"')
    recipe = layers.recipe()
    for seed in seeds:
        yield seed, recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})
