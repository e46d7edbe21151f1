"""The fields that a sweep searches: a range or a list of values each, as Optuna's distributions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, get_args, get_origin

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial
from pydantic import ValidationError

from shortrun.errors import UserError, did_you_mean
from shortrun.recipe import WITHOUT_EFFECT, Recipe, Section
from shortrun.recipe_file import nearest_field, toml_value

FEW = 64
"""Whole numbers of a range that are all tried in a recipe before anything is trained; of more, the two ends."""


class Range(Section):
    """From where to where; log: small and large values equally often; step: only these."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None


@dataclass(frozen=True)
class Searched:
    """A field and the values that it may take."""

    name: str
    """section.field"""
    distribution: BaseDistribution
    """Lists stand in it as TOML spells them, because Optuna stores numbers, words and truth values."""
    choices: tuple[Any, ...] = ()
    """The values of a list, as the file has them."""

    def suggest(self, trial: Trial) -> Any:
        """What Optuna draws."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.name, choices)
            case IntDistribution(low=low, high=high, log=log, step=step):
                return trial.suggest_int(self.name, low, high, log=log, step=step)
            case FloatDistribution(low=low, high=high, log=log, step=step):
                return trial.suggest_float(self.name, low, high, log=log, step=step)
        raise TypeError(self.distribution)

    def value(self, drawn: Any) -> Any:
        """What the recipe gets: a list as a list, a step without its last bits."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.choices[self.distribution.choices.index(drawn)]
        stepped = isinstance(self.distribution, FloatDistribution) and self.distribution.step
        return float(f"{drawn:.12g}") if stepped else drawn

    def corners(self) -> tuple[Any, ...]:
        """The values that a recipe is tried with: all of a list, the ends of a range, and all whole numbers of a short one."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return choices
            case IntDistribution(low=low, high=high, step=step) if self.count and self.count <= FEW:
                return tuple(range(low, high + 1, step))
            case IntDistribution(low=low, high=high) | FloatDistribution(low=low, high=high):
                return (low, high)
        raise TypeError(self.distribution)

    @property
    def count(self) -> int | None:
        """How many values there are; None where they are too many to count."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return len(choices)
            case IntDistribution(low=low, high=high, step=step):
                return (high - low) // step + 1
            case FloatDistribution(low=low, high=high, step=step) if step:
                return round((high - low) / step) + 1
        return None

    def __str__(self) -> str:
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return ", ".join(map(str, choices))
            case (
                IntDistribution(low=low, high=high, log=log, step=step)
                | FloatDistribution(low=low, high=high, log=log, step=step)
            ):
                how = ", logarithmic" if log else f", step {step:g}" if step else ""
                return f"{low:g} to {high:g}{how}"
        raise TypeError(self.distribution)


def searched(search: Any) -> tuple[tuple[Searched, ...], list[str]]:
    """The fields of a file's [search], and a sentence for each that can't be searched."""
    found, problems = [], []
    for section, fields in search.items() if isinstance(search, dict) else ():
        if section not in Recipe.model_fields:
            problems.append(
                f"[search] {section}: there is no such section; {did_you_mean(section, Recipe.model_fields)}"
            )
        elif not isinstance(fields, dict):
            problems.append(f"[search] {section} = {fields!r} must name fields, as {section}.field = [...]")
        else:
            for name, given in fields.items():
                try:
                    found.append(_field(section, name, given))
                except (UserError, ValueError) as error:
                    problems.append(f"[search] {section}.{name}: {error}")
    return tuple(found), problems


def _field(section: str, name: str, given: Any) -> Searched:
    known = type(Recipe.model_fields[section].default).model_fields
    field = f"{section}.{name}"
    if name not in known:
        raise UserError(f"there is no such field; {nearest_field(section, name)}")
    if section == "data":
        raise UserError("trials are compared on the same documents, so that no field of [data] can be searched")
    if field in WITHOUT_EFFECT:
        raise UserError("it has no effect on what a run learns")
    if isinstance(given, list):
        return _list(field, given)
    if isinstance(given, dict):
        return Searched(field, _distribution(_range(given), set(_kinds(known[name].annotation))))
    raise UserError(f"{given!r} must be a list of values or a range, {{ low = ..., high = ... }}")


def _list(field: str, given: list[Any]) -> Searched:
    if not all(isinstance(each, str | bool | int | float) for value in given for each in _items(value)):
        raise UserError(f"{given!r} must hold numbers, words, truth values or lists of them")
    labels = [toml_value(tuple(value)) if isinstance(value, list) else value for value in given]
    if len(given) < 2:
        raise UserError(f"{given!r} needs two values at least; one value belongs into [every]")
    if len({(type(label), label) for label in labels}) < len(labels):
        raise UserError(f"{given!r} has a value twice")
    return Searched(field, CategoricalDistribution(labels), tuple(given))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _range(given: Mapping[str, Any]) -> Range:
    try:
        return Range.model_validate(given)
    except ValidationError as error:
        told = []
        for item in error.errors(include_url=False):
            key = str(item["loc"][0])
            unknown = item["type"] == "extra_forbidden"
            told.append(f"{key}: {did_you_mean(key, Range.model_fields) if unknown else item['msg'].lower()}")
        raise UserError("; ".join(dict.fromkeys(told))) from None


def _distribution(given: Range, kinds: set[Any]) -> BaseDistribution:
    """Raises UserError, or ValueError as Optuna words it, where the range is none."""
    low, high, step = given.low, given.high, given.step
    if not kinds & {int, float}:
        raise UserError("it is no number, so that it needs a list of values")
    if low >= high:
        raise UserError(f"low = {low} must be below high = {high}")
    if given.log and low <= 0:
        raise UserError(f"log = true needs low above 0, not {low}")
    if step is not None and (step <= 0 or given.log):
        raise UserError(f"step = {step} must be above 0" if step <= 0 else "give log or step, not both")
    if step is not None and (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
        raise UserError(f"from low = {low} to high = {high} is no whole number of steps of {step}")
    whole = all(isinstance(value, int) for value in (low, high, step or 1))
    if whole and int in kinds:
        return IntDistribution(int(low), int(high), log=given.log, step=int(step or 1))
    if float not in kinds:
        raise UserError("it takes whole numbers")
    return FloatDistribution(float(low), float(high), log=given.log, step=None if step is None else float(step))


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that a field's annotation allows."""
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif options := get_args(annotation):
        for option in options:
            yield from _kinds(option)
    else:
        yield annotation
