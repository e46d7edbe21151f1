"""The changes of a study file, and the combinations that a grid makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import Any

from shortrun.errors import UserError, did_you_mean
from shortrun.recipe import Recipe
from shortrun.recipe_file import toml_value
from shortrun.study.scaled import nested


@dataclass(frozen=True)
class Change:
    """Values of recipe fields, with a name and a reason for the report."""

    name: str
    reason: str
    values: dict[str, dict[str, Any]]
    """By section and field; in a grid, before it is combined, each is a list of values."""
    more_seeds: tuple[int, ...] = ()
    """Seeds beyond the study's, of this step and of what it is compared with."""

    @property
    def values_each(self) -> int:
        """How many values each of its fields takes in a grid."""
        return len(next(value for fields in self.values.values() for value in fields.values()))


def read_changes(given: Sequence[Mapping[str, Any]], *, is_grid: bool) -> tuple[list[Change], list[str]]:
    """The changes that a study file may have, and a sentence for each that it may not."""
    changes, wrong = [], []
    for number, values in enumerate(given, 1):
        try:
            changes.append(_change(number, dict(values), is_grid))
        except UserError as error:
            wrong.append(str(error))
    return changes, wrong


def _change(number: int, values: dict[str, Any], is_grid: bool) -> Change:
    name, reason = values.pop("name", ""), values.pop("reason", "")
    if not (isinstance(name, str) and name and isinstance(reason, str) and reason):
        raise UserError(f'change {number} needs a name and a reason, a sentence for the report: reason = "..."')
    more_seeds = values.pop("more_seeds", [])
    if not isinstance(more_seeds, list) or not all(type(seed) is int and 0 <= seed < 2**63 for seed in more_seeds):
        raise UserError(f'change "{name}": more_seeds is a list of seeds, such as [4, 5, 6]')
    if is_grid and more_seeds:
        raise UserError(f'change "{name}": a grid has the same seeds everywhere, so more_seeds has no place in one')
    for key, fields in values.items():
        if not isinstance(fields, dict):
            near = did_you_mean(key, ["name", "reason", "more_seeds", *Recipe.model_fields])
            raise UserError(f'change "{name}": {key} = {fields!r} is no section of a recipe; {near}')
    if not any(values.values()):
        raise UserError(f'change "{name}" sets no field of a recipe, such as optim.lr = 1e-3')
    for section, fields in values.items():
        for field, value in fields.items():
            if any(isinstance(each, date | time) for each in _leaves(value)):  # a datetime is a date
                raise UserError(f'change "{name}": {section}.{field} is given a date or a time, which no field takes')
    lists = [value for fields in values.values() for value in fields.values()]
    if is_grid and not all(isinstance(each, list) and each for each in lists):
        raise UserError(f'change "{name}": in a grid each field has a list of values')
    if is_grid and len({len(each) for each in lists}) > 1:
        raise UserError(f'change "{name}": its fields have lists of different lengths')
    return Change(name, reason, values, tuple(more_seeds))


def _leaves(value: Any) -> Iterator[Any]:
    """The values that a value is made of, where it is a list or a table."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


def combinations(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Every combination of one value of each change's fields; the fields of one change go together."""
    choices = []
    for change in changes:
        fields = [(section, name) for section, given in change.values.items() for name in given]
        lists = (change.values[section][name] for section, name in fields)
        choices.append([Change(change.name, change.reason, nested(fields, each)) for each in zip(*lists, strict=True)])
    yield from (list(combined) for combined in itertools.product(*choices))


def name_of(combined: Sequence[Change]) -> str:
    """What a combination sets, as a recipe file would."""
    return ", ".join(
        f"{section}.{name} = {toml_value(tuple(value) if isinstance(value, list) else value)}"
        for change in combined
        for section, fields in change.values.items()
        for name, value in fields.items()
    )
