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

A change that is near a tie can have `more_seeds = [4, 5, 6]`, which what it is compared with then has too.

In a grid, a field's value is a list of the values it takes. Layers are laid over one another in this order: the base,
`every`, the command line, the changes, the scale, the seed. So changes are written at full size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from shortrun.errors import UserError
from shortrun.recipe import Recipe
from shortrun.recipe_file import COMMAND_LINE, Layers, sentences, toml_files, toml_of
from shortrun.study.changes import Change, combinations, name_of, read_changes
from shortrun.study.scale import Scale
from shortrun.study.scaled import Overrides, Scaled, base_of, checked_file, scaled, shipped_or_mine

SHIPPED = Path(__file__).parents[1] / "studies"

MOST_RUNS = 10_000

Form = Literal["ladder", "ablation", "grid"]


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
    form: Form
    scale: Scale
    seeds: tuple[int, ...]
    """Of every row; some rows have more."""
    rows: tuple[Row, ...]


class _File(Scaled):
    """What a study file holds."""

    form: Form
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(min_length=1)
    change: tuple[dict[str, Any], ...] = Field(min_length=1)


def shipped_studies() -> dict[str, Path]:
    """Name and file of each study that comes with the package."""
    return toml_files(SHIPPED)


def study_path(name: str) -> Path:
    """The file of a study given by its shipped name or as a path; raises UserError if it is neither."""
    return shipped_or_mine(name, shipped_studies(), "study")


def load_study(
    name: str, overrides: Overrides | None = None, also: Sequence[str] = (), origin: str = COMMAND_LINE
) -> Study:
    """Reads a study and makes every recipe of it.

    overrides: {section: {field: value}} from `origin`, which reach every run; those of the section "scale" stand above
    the file's own. `also` are mistakes found in the flags. Raises UserError with all that is wrong.
    """
    path = study_path(name)
    file = checked_file(path, _File, "study", toml_of(path, "study"))
    flags = {section: fields for section, fields in (overrides or {}).items() if section != "scale"}
    problems = list(also)
    scale = _scale(file, (overrides or {}).get("scale", {}), problems, origin)
    problems += _without_effect(path, file, flags, scale, origin)
    base = base_of(path, file, flags, origin)
    made: list[Row] = []
    rows = list(_rows(path, file, problems))
    seeds = _seeds(file, rows)
    for number, (title, reason, reference, laid) in enumerate(rows):
        try:
            made.append(Row(title, reason, reference, dict(_recipes(path, base, laid, scale, seeds[number]))))
        except UserError as error:
            first, *rest = str(error).splitlines()
            problems += rest or [f"{path}: {first}"]
    if not problems:
        problems += [*_empty(path, file, made), *_uncut(path, made)]
    if problems:
        lines = list(dict.fromkeys(line.strip() for line in problems))  # the rows share most of theirs
        count = "One thing is" if len(lines) == 1 else f"{len(lines)} things are"
        raise UserError("\n  ".join([f"{count} wrong with the study {path}:", *lines]))
    return Study(path.stem, file.about, file.base, file.form, scale, file.seeds, tuple(made))


def _scale(file: _File, flags: Mapping[str, Any], problems: list[str], origin: str) -> Scale:
    """The file's scale under that of `origin`."""
    try:
        return Scale.model_validate({**file.scale.model_dump(exclude_unset=True), **flags})
    except ValidationError as error:
        problems += [f"{origin}: {sentence}" for sentence in sentences(error, Scale, ("scale",))]
        return file.scale


def _without_effect(path: Path, file: _File, flags: Mapping[str, Any], scale: Scale, asked: str) -> Iterator[str]:
    """A sentence for each value that what lies above it would hide."""
    if len(set(file.seeds)) < len(file.seeds):
        yield f"{path}: seeds: the same one twice is one run"
    layers = [(f"{path}: [every]", file.every), (asked, flags)]
    layers += [(f'{path}: change "{each.get("name")}"', each) for each in file.change]
    for origin, values in layers:
        train = values.get("train")
        if isinstance(train, dict) and "seed" in train:
            yield f"{origin}: train.seed does nothing here: a study's seeds are its own"
        if isinstance(train, dict) and "epochs" in train and scale.epochs:
            yield f"{origin}: train.epochs does nothing here: the scale's epochs stand above it"


def _rows(path: Path, file: _File, problems: list[str]) -> Iterator[tuple[str, str, int | None, list[Change]]]:
    """Title, reason, reference and changes of each row, the base first."""
    base = Path(file.base).stem
    yield base, "", None, []
    changes, wrong = read_changes(file.change, is_grid=file.form == "grid")
    problems += [f"{path}: {sentence}" for sentence in wrong]
    names = Counter([base, *(change.name for change in changes)])
    problems += [f'{path}: {count} rows are called "{name}"' for name, count in names.items() if count > 1]
    if file.form == "grid":
        if prod(change.values_each for change in changes) * len(file.seeds) > MOST_RUNS:
            raise UserError(f"{path} asks for more than {MOST_RUNS:,} runs")
        yield from ((name_of(combined), "", 0, combined) for combined in combinations(changes))
        return
    for number, change in enumerate(changes, 1):
        if file.form == "ladder":
            yield change.name, change.reason, number - 1, changes[:number]
        else:
            yield change.name, change.reason, 0, [change]


def _seeds(file: _File, rows: Sequence[tuple[str, str, int | None, list[Change]]]) -> list[tuple[int, ...]]:
    """Of each row: the study's, its own further ones, and those of the rows that are compared with it."""
    seeds = [list(file.seeds) for _ in rows]
    for number, (_, _, reference, laid) in enumerate(rows):
        more = laid[-1].more_seeds if laid else ()
        for row in (number,) if reference is None else (number, reference):
            seeds[row] += more
    return [tuple(dict.fromkeys(each)) for each in seeds]


def _recipes(
    path: Path, base: Layers, laid: Sequence[Change], scale: Scale, seeds: Sequence[int]
) -> Iterator[tuple[int, Recipe]]:
    layers = deepcopy(base)
    for change in laid:
        layers.lay(change.values, f'{path}: change "{change.name}"')
    recipe = scaled(layers, scale, path)
    for seed in seeds:
        yield seed, recipe.changed("train", seed=seed)


def _uncut(path: Path, rows: Sequence[Row]) -> Iterator[str]:
    """A sentence where rows have no documents to be compared on."""
    if any(not recipe.data.tuning_titles for row in rows for recipe in row.recipes.values()):
        yield f"{path}: data.tuning_titles = 0, but rows are compared on tuning documents: a larger [scale] has some"


def _empty(path: Path, file: _File, rows: Sequence[Row]) -> Iterator[str]:
    """A sentence for each change after which a run learns the same as before."""
    for row in rows:
        if file.form == "grid" or row.reference is None:  # of a grid, one combination may be the base
            continue
        before, after = (each.recipes[file.seeds[0]].fingerprint() for each in (rows[row.reference], row))
        if before == after:
            yield f'{path}: change "{row.change}" changes nothing of what a run learns'
