"""Every field of a recipe as a flag: `--section.field VALUE`, from the types in `recipe`.

A flag's words become the value that a recipe file would hold; it is checked together with the file's values, in the same
words. `--model.bias` is true, `--model.no-bias` and `--model.bias false` are false; `none` takes a value away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from rich.table import Table

from shortrun.errors import did_you_mean
from shortrun.recipe import Recipe
from shortrun.recipe_file import nearest_field, toml_value

TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
Overrides = dict[str, dict[str, Any]]


def taken_from(
    argv: list[str], more: Mapping[str, type[BaseModel]] | None = None
) -> tuple[list[str], Overrides, list[str]]:
    """The words that are no recipe flags, the overrides that the flags make, and a sentence for each flag there is not.

    more: sections that are no recipe's and that have flags too.
    """
    sections = {name: type(about.default) for name, about in Recipe.model_fields.items()} | dict(more or {})
    rest: list[str] = []
    overrides: Overrides = {}
    mistakes = []
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, attached = word.removeprefix("--").partition("=")
        section, dot, field = name.replace("-", "_").partition(".")
        if not (word.startswith("--") and dot):
            rest.append(word)
            continue
        negated = field.removeprefix("no_")
        known = sections[section].model_fields if section in sections else {}
        if field not in known and negated in known and known[negated].annotation is bool:
            overrides.setdefault(section, {})[negated] = False
            continue
        given = [attached] if equals else _words_of(known.get(field), words)
        if field in known:
            overrides.setdefault(section, {})[field] = _value(given, known[field])
        else:
            if section in Recipe.model_fields:
                near = nearest_field(section, field)
            else:
                near = did_you_mean(field, known) if known else did_you_mean(section, sections)
            mistakes.append(f"command line: --{name}: there is no such flag; {near}")
    return rest, overrides, mistakes


def table_of_flags(recipe: Recipe) -> Table:
    """All flags with the recipe's values and their meaning."""
    table = Table("flag", "value", "meaning", title="flags of the recipe", title_justify="left", show_lines=False)
    for section, fields in recipe:
        for name, about in type(fields).model_fields.items():
            value = getattr(fields, name)
            shown = "none" if value is None else toml_value(value)
            table.add_row(f"--{section}.{name.replace('_', '-')}", shown, " ".join(str(about.description).split()))
    return table


def _words_of(about: FieldInfo | None, words: list[str]) -> list[str]:
    """Takes a flag's values off the front of the words behind it."""
    annotation: Any = about.annotation if about else None
    if about is None:  # no such flag: whatever could be its value goes with it
        found = list(_until_flag(words[:1]))
    elif get_origin(annotation) is tuple:
        most = None if get_args(annotation)[-1] is ... else len(get_args(annotation))
        found = list(_until_flag(words[:most]))
    elif annotation is bool:
        found = words[:1] if words and words[0].lower() in TRUTH else []
    else:
        found = words[:1]
    del words[: len(found)]
    return found


def _until_flag(words: list[str]) -> Iterator[str]:
    for word in words:
        if word.startswith("--"):
            return
        yield word


def _value(words: list[str], about: FieldInfo) -> Any:
    """What a recipe file would hold; a word that can't be that stays text, which the recipe's checks then refuse."""
    annotation: Any = about.annotation
    if get_origin(annotation) is tuple:
        return tuple(_typed(word, get_args(annotation)[0]) for word in words)
    if annotation is bool and not words:
        return True
    return _typed(words[0], annotation) if words else ""


def _typed(word: str, annotation: Any) -> Any:
    options = get_args(annotation) if get_origin(annotation) is not Literal else ()
    if word.lower() == "none" and type(None) in options:
        return None
    if annotation is bool:
        return TRUTH.get(word.lower(), word)
    for kind in [option for option in options if option is not type(None)] or [annotation]:
        try:
            return TypeAdapter(kind).validate_strings(word)
        except ValidationError:
            continue
    return word
