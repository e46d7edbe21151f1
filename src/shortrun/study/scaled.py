"""What the files of studies and of sweeps share: a base recipe, how much smaller its runs are, and what is set in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from shortrun.errors import UserError, did_you_mean
from shortrun.recipe import Recipe, Section
from shortrun.recipe_file import COMMAND_LINE, Layers, layers_of, named_file, recipe_beside, sentences
from shortrun.study.scale import Scale

Overrides = Mapping[str, Mapping[str, Any]]
File = TypeVar("File", bound=Section)


class Scaled(Section):
    """What the files of studies and of sweeps both hold."""

    about: str
    base: str
    scale: Scale = Scale()
    every: dict[str, Any] = Field(default_factory=dict)


def shipped_or_mine(name: str, shipped: Mapping[str, Path], what: str) -> Path:
    """The file of a study or a sweep given by its shipped name or as a path; raises UserError if it is neither."""
    if path := named_file(name, shipped):
        return path
    raise UserError(f"There is no {what} '{name}': {did_you_mean(Path(name).stem, shipped)} (or give a .toml file)")


def checked_file(path: Path, kind: type[File], what: str, values: Mapping[str, Any]) -> File:
    """The values of a file as what they are; raises UserError with all that is wrong, a line each."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError("\n  ".join([f"{path} is no {what}:", *sentences(error, kind)])) from None


def base_of(path: Path, file: Scaled, flags: Overrides | None, origin: str = COMMAND_LINE) -> Layers:
    """The layers that all runs of a file share but for the scale: the base, what is set in every run, the flags."""
    base = layers_of(recipe_beside(path, file.base, "base"))
    if file.every:
        base.lay(file.every, f"{path}: [every]")
    if flags:
        base.lay(flags, origin)
    return base


def scaled(layers: Layers, scale: Scale, path: Path) -> Recipe:
    """The recipe of some layers, with the scale over them."""
    layers.lay(scale.over(layers.recipe()), f"{path}: [scale]")
    return layers.recipe()


def nested(fields: Sequence[tuple[str, str]], values: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """{section: {field: value}} of fields given as (section, field)."""
    sections: dict[str, dict[str, Any]] = {}
    for (section, name), value in zip(fields, values, strict=True):
        sections.setdefault(section, {})[name] = value
    return sections
