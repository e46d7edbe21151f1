"""What the files of studies and of sweeps share: a base recipe, how much smaller its runs are, and what is set in all of them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from shortrun.errors import UserError, did_you_mean
from shortrun.recipe import Recipe, Section
from shortrun.recipe_file import COMMAND_LINE, Layers, layers_of, recipe_beside

Overrides = Mapping[str, Mapping[str, Any]]
File = TypeVar("File", bound=Section)


class Scale(Section):
    """How much smaller the runs of a study are than its base."""

    titles: float = Field(1.0, gt=0, le=1)
    """Share of the base's documents."""
    width: float = Field(1.0, gt=0)
    """Share of the base's d_model; the heads keep their width, so that there are fewer of them."""
    epochs: int | None = Field(None, gt=0)
    """Instead of the base's."""
    tuning: float = Field(0.1, gt=0, lt=1)
    """Share of the documents that is cut from the training documents to compare on, where the base cuts none."""

    def over(self, base: Recipe) -> dict[str, dict[str, Any]]:
        """The values that it lays over a base; raises UserError where the base can't be scaled."""
        data, model = base.data, base.model
        values: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "train": {}}
        if isinstance(data.num_titles, int):
            values["data"]["num_titles"] = titles = round(data.num_titles * self.titles)
            if not data.tuning_titles:
                values["data"]["tuning_titles"] = round(titles * self.tuning)
        elif self.titles != 1 or not data.tuning_titles:
            raise UserError('data.num_titles = "all" can\'t be scaled and cut: give it a number')
        if data.tuning_titles:
            values["data"]["tuning_titles"] = round(data.tuning_titles * self.titles)
        if self.width != 1:
            heads = max(1, round(model.n_head * self.width))
            values["model"] = {"n_head": heads, "d_model": heads * (model.d_model // model.n_head)}
        if self.epochs:
            values["train"]["epochs"] = self.epochs
        return values

    def __str__(self) -> str:
        told = [f"{self.titles:.0%} of the documents"] * (self.titles != 1)
        told += [f"{self.width:.0%} of the width"] * (self.width != 1)
        told += [f"{self.epochs} epochs"] * (self.epochs is not None)
        return ", ".join(told) or "full scale"


class Scaled(Section):
    """What the files of studies and of sweeps both hold."""

    about: str
    base: str
    scale: Scale = Scale()
    every: dict[str, Any] = Field(default_factory=dict)


def toml_of(path: Path, what: str) -> dict[str, Any]:
    """The values of a TOML file that is to be a study or a sweep."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"The {what} {path} can't be read: {error}") from None


def checked_file(path: Path, kind: type[File], what: str, values: Mapping[str, Any]) -> File:
    """The values of a file as what they are; raises UserError with all that is wrong, a line each."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            *above, last = (str(part) for part in item["loc"])
            fields = Scale.model_fields if above else kind.model_fields
            near = f"; {did_you_mean(last, fields)}" if item["type"] == "extra_forbidden" else ""
            lines.append(f"  {'.'.join([*above, last])}: {item['msg'][0].lower()}{item['msg'][1:]}{near}")
        raise UserError("\n".join([f"{path} is no {what}:", *lines])) from None


def scaled_base(path: Path, file: Scaled, overrides: Overrides | None, also: Sequence[str] = ()) -> Layers:
    """The layers that all runs of a file share: the base, the command line, the scale, and what is set in every run."""
    base = layers_of(recipe_beside(path, file.base, "base"))
    if overrides:
        base.lay(overrides, COMMAND_LINE)
    recipe = base.recipe(also)
    try:
        base.lay(file.scale.over(recipe), f"{path}: [scale]")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if file.every:
        base.lay(file.every, f"{path}: [every]")
    return base


def nested(fields: Sequence[tuple[str, str]], values: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """{section: {field: value}} of fields given as (section, field)."""
    sections: dict[str, dict[str, Any]] = {}
    for (section, name), value in zip(fields, values, strict=True):
        sections.setdefault(section, {})[name] = value
    return sections
