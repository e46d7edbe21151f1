"""A sweep: which fields of a recipe are searched, over what, and by whom, declared in a TOML file.

    about = "Learning rate and dropout of a small model"
    base = "baseline"                          a shipped recipe, or a file beside this one
    n_trials = 20                              finished trials, pruned ones among them
    sampler = "tpe"                            or "gp", a Gaussian process, or "random"
    seed = 1                                   of the sampler; the runs keep their base's train.seed
    pruner = "median"                          or "none"; it looks at the end of each epoch

    [scale]                                    as in a study
    titles = 0.1

    [every]                                    recipe fields of all trials
    optim.name = "adamw"

    [search]
    optim.lr = { low = 1e-4, high = 1e-2, log = true }
    model.dropout = { low = 0.0, high = 0.3, step = 0.05 }
    batches.block_size = [64, 128, 256]

A field that only some values of another one make use of is searched where these are drawn, such as optim.muon_lr beside
optim.name = ["adamw", "muon"].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from shortrun.errors import UserError
from shortrun.recipe import READ_BY, Recipe
from shortrun.recipe_file import Layers, toml_files, toml_of
from shortrun.study.scaled import Overrides, Scaled, base_of, checked_file, nested, scaled, shipped_or_mine
from shortrun.study.search_space import Searched, searched

SHIPPED = Path(__file__).parents[1] / "sweeps"
MANY = 1000
"""Combinations of corners that are all checked; of more, each pair of fields is."""
MOST = 20_000
"""Combinations that are tried at most, which takes a minute."""
GATES = {reader.gate for reader in READ_BY.values()}

Draw = Callable[[Searched], Any]


class SweepFile(Scaled):
    """What a sweep file holds."""

    n_trials: int = Field(gt=0)
    sampler: Literal["tpe", "gp", "random"] = "tpe"
    seed: int = Field(0, ge=0, lt=2**32)
    pruner: Literal["median", "none"] = "median"
    prune_after: int = Field(5, ge=1)
    """Trials that must have been completed before any is pruned."""
    search: dict[str, Any] = Field(min_length=1)


@dataclass(frozen=True)
class Sweep:
    """A sweep, decided."""

    name: str
    path: Path
    file: SweepFile
    layers: Layers
    """What all trials share, but for the scale."""
    base: Recipe
    """What these make under the scale."""
    search: tuple[Searched, ...]

    def assign(self, draw: Draw) -> dict[str, Any]:
        """Draws a value of every searched field that is read with those drawn before it; returns them by name."""
        drawn: dict[str, Any] = {}
        for field in sorted(self.search, key=lambda field: field.name not in GATES):
            reader = READ_BY.get(field.name)
            if reader is None or reader.reads(drawn.get(reader.gate, self.base.value(reader.gate))):
                drawn[field.name] = draw(field)
        return drawn

    def values(self, drawn: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """{section: {field: value}} of what was drawn."""
        fields = {field.name: field for field in self.search}
        places = [(section, name) for section, _, name in (field.partition(".") for field in drawn)]
        return nested(places, [fields[name].value(value) for name, value in drawn.items()])

    def recipe(self, drawn: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial; raises UserError where it can't work."""
        layers = deepcopy(self.layers)
        layers.lay(self.values(drawn), f"{self.path}: [search]")
        return scaled(layers, self.file.scale, self.path)

    def described(self) -> dict[str, Any]:
        """What may not change while a sweep goes on, besides the base."""
        kept: dict[str, Any] = {"sampler": self.file.sampler, "seed": self.file.seed, "pruner": self.file.pruner}
        if self.file.pruner != "none":
            kept["prune_after"] = self.file.prune_after
        return {**kept, "search": {field.name: str(field) for field in self.search}}


def shipped_sweeps() -> dict[str, Path]:
    """Name and file of each sweep that comes with the package."""
    return toml_files(SHIPPED)


def sweep_path(name: str) -> Path:
    """The file of a sweep given by its shipped name or as a path; raises UserError if it is neither."""
    return shipped_or_mine(name, shipped_sweeps(), "sweep")


def read_sweep(name: str) -> tuple[Path, SweepFile]:
    """A sweep's file as it stands, without a look at what its recipes would be."""
    path = sweep_path(name)
    return path, checked_file(path, SweepFile, "sweep", toml_of(path, "sweep"))


def load_sweep(name: str, overrides: Overrides | None = None, also: Sequence[str] = ()) -> Sweep:
    """Reads a sweep and tries the corners of its search space.

    overrides: {section: {field: value}} of the command line, which reach every trial. `also` are mistakes found in the
    flags. Raises UserError with all that is wrong.
    """
    path = sweep_path(name)
    values = toml_of(path, "sweep")
    search, problems = searched(values.get("search"))
    try:
        file = checked_file(path, SweepFile, "sweep", values)
    except UserError as error:
        raise _wrong(path, [*also, *_lines(error), *problems]) from None
    problems = [*also, *problems, *_too_few(file, search)]
    try:
        layers = base_of(path, _once_an_epoch(file, overrides), overrides)
        base = scaled(deepcopy(layers), file.scale, path)
    except UserError as error:
        raise _wrong(path, [*(_lines(error) or [str(error)]), *problems]) from None
    sweep = Sweep(path.stem, path, file, layers, base, search)
    if not base.data.tuning_titles:
        problems.append(
            "data.tuning_titles = 0, but trials are compared on tuning documents: a larger [scale] has some"
        )
    problems += list(dict.fromkeys(_refused(sweep)))
    if problems:
        raise _wrong(path, problems)
    return sweep


def _once_an_epoch(file: SweepFile, overrides: Overrides | None) -> SweepFile:
    """The file with one evaluation an epoch, unless it or the command line asks for more."""
    train = {**file.every.get("train", {})} if isinstance(file.every.get("train", {}), dict) else None
    if train is None or "evals_per_epoch" in {**train, **(overrides or {}).get("train", {})}:
        return file
    return file.model_copy(update={"every": {**file.every, "train": {**train, "evals_per_epoch": 1}}})


def _too_few(file: SweepFile, search: Sequence[Searched]) -> list[str]:
    """A sentence where there are fewer combinations than trials."""
    counts = [field.count for field in search]
    if search and None not in counts and (combinations := prod(count for count in counts if count)) < file.n_trials:
        return [f"n_trials = {file.n_trials}, but [search] has {combinations} combinations"]
    return []


def _refused(sweep: Sweep) -> Iterator[str]:
    """What is wrong with the recipes at the corners of the search space, and a sentence for each field that none of them reads."""
    never_read = {field.name for field in sweep.search}
    for number, corner in enumerate(_corners(sweep.search)):
        if number == MOST:
            yield f"[search] has more than {MOST:,} combinations of values to try: give ranges, or shorter lists"
            return
        drawn = _at(sweep, corner)
        never_read -= drawn.keys()
        try:
            sweep.recipe(drawn)
        except UserError as error:
            yield from _lines(error)
    for name in sorted(never_read):
        reader = READ_BY[name]
        wanted = f"one of {', '.join(map(str, reader.values))}" if reader.values else "above 0"
        yield f"{name} is searched, but nothing reads it: {reader.gate} is never {wanted}"


def _at(sweep: Sweep, corner: Mapping[str, Any]) -> dict[str, Any]:
    return sweep.assign(lambda field: corner[field.name])


def _corners(search: Sequence[Searched]) -> Iterator[dict[str, Any]]:
    """Combinations of the fields' outermost values: all of them, or where they are too many, those of each pair of fields."""
    corners = {field.name: field.corners() for field in search}
    if prod(map(len, corners.values())) <= MANY:
        for values in itertools.product(*corners.values()):
            yield dict(zip(corners, values, strict=True))
        return
    first = {name: values[0] for name, values in corners.items()}
    for one, other in itertools.combinations(corners, 2):
        for values in itertools.product(corners[one], corners[other]):
            yield {**first, one: values[0], other: values[1]}


def _lines(error: UserError) -> list[str]:
    """The sentences of an error that lists several."""
    return [line.strip() for line in str(error).splitlines()[1:]]


def _wrong(path: Path, problems: Sequence[str]) -> UserError:
    return UserError("\n  ".join([f"{path} is a sweep that can't be run:", *dict.fromkeys(problems)]))
