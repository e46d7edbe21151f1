"""Recipe files: TOML to a recipe and back, with every mistake reported at once.

A file may name one other recipe in `extends`, whose values it starts from. Values come from the defaults in `recipe`, then
the file, then the command line, each overriding the one before. All that is wrong is reported before any data is read.

    shortrun recipes                  the shipped recipes
    shortrun recipes show baseline    one of them, resolved, with the meaning of every field
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shortrun.errors import UserError, did_you_mean
from shortrun.recipe import Reader, Recipe

COMMAND_LINE = "command line"
SHIPPED = Path(__file__).parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Name and file of each recipe that comes with the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def recipe_path(name: str) -> Path:
    """The file of a recipe given by its shipped name or as a path."""
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    if name.endswith(".toml") or "/" in name:
        return Path(name)
    raise UserError(f"There is no shipped recipe '{name}': {did_you_mean(name, shipped)} (or give a .toml file)")


def load_recipe(name: str, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Recipe:
    """Reads a recipe and lays overrides ({section: {field: value}}, from the command line) over it.

    Raises UserError with every mistake in the file and the overrides, each with where it stands.
    """
    values, origins = _read_values(recipe_path(name))
    for section, fields in (overrides or {}).items():
        if section == "data":
            fields = _source_or_path(fields)
        for field, value in fields.items():
            values.setdefault(section, {})[field] = value
            _came_from(origins, section, field, COMMAND_LINE)
    recipe = _validated(values, origins, str(recipe_path(name)))
    useless = list(_useless(recipe, origins))
    if useless:
        raise UserError(_listed(useless))
    return recipe


def parse_recipe(text: str | dict[str, Any], origin: str) -> tuple[Recipe, list[str]]:
    """A resolved recipe, as TOML text or as its values, and the fields in it that are not known.

    An older run may have fields that no longer exist; they are left out and named, "section.name".
    """
    values = _toml(text, origin) if isinstance(text, str) else text
    unknown = []
    for section, fields in list(values.items()):
        known = Recipe.model_fields.get(section)
        if known is None or not isinstance(fields, dict):
            unknown.append(section)
            del values[section]
            continue
        for field in fields.keys() - type(known.default).model_fields.keys():
            unknown.append(f"{section}.{field}")
            del fields[field]
    return _validated(values, {}, origin), sorted(unknown)


def to_toml(recipe: Recipe, explain: bool = False) -> str:
    """The recipe as TOML text that `load_recipe` takes; with `explain`, each field's meaning stands above it as a comment.

    A field that nothing reads is a comment too, because a file that sets one is refused.
    """
    unread = dict(recipe.unread())
    lines: list[str] = []
    for section, fields in recipe:
        about = type(fields)
        lines += [f"[{section}]" + (f"  # {about.__doc__}" if explain else "")]
        for field, value in fields:
            if explain:
                lines.append("# " + " ".join(str(about.model_fields[field].description).split()))
            if value is None:  # TOML has no null
                lines.append(f"# {field} is not set")
            elif reader := unread.get(f"{section}.{field}"):
                lines.append(f"# {field} = {_toml_value(value)}  # {_only(reader)}")
            else:
                lines.append(f"{field} = {_toml_value(value)}")
        lines.append("")
    return "\n".join(lines)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """One line for each field in which two recipes differ, but for those that nothing reads in either."""
    unread = dict(old.unread()).keys() & dict(new.unread()).keys()
    return [
        f"{section}.{field}: {value!r} -> {getattr(getattr(new, section), field)!r}"
        for section, fields in old
        for field, value in fields
        if value != getattr(getattr(new, section), field) and f"{section}.{field}" not in unread
    ]


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value)  # shortest text that reads back as the same float
    return json.dumps(value, ensure_ascii=False)


def _toml(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{origin} is not valid TOML: {error}") from None


def _read_values(path: Path, seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], dict[tuple[str, str], str]]:
    """The values of a recipe file and of what it extends, and where each was written."""
    if path.resolve() in seen:
        raise UserError(f"{path} extends itself, by way of {' -> '.join(str(p) for p in seen)}")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = did_you_mean(path.stem, shipped_recipes())
        raise UserError(f"There is no recipe file {path}; of the shipped recipes, {near}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The recipe {path} can't be read: {error}") from None
    own = _toml(text, str(path))
    base = own.pop("extends", None)
    values: dict[str, Any] = {}
    origins: dict[tuple[str, str], str] = {}
    if base is not None:
        if not isinstance(base, str):
            raise UserError(f"{path}: extends = {base!r} must be one recipe's name or file")
        beside = path.parent / base
        target = beside if base.endswith(".toml") else recipe_path(base)
        values, origins = _read_values(target, (*seen, path.resolve()))
    for section, fields in own.items():
        if not isinstance(fields, dict):
            values[section] = fields
            _came_from(origins, section, "", str(path))
            continue
        if not isinstance(values.get(section), dict):
            values[section] = {}
        _came_from(origins, section, "", str(path))
        if section == "data":
            fields = _source_or_path(fields)
        for field, value in fields.items():
            values[section][field] = value
            _came_from(origins, section, field, str(path))
    return values, origins


def _came_from(origins: dict[tuple[str, str], str], section: str, field: str, where: str) -> None:
    """Remembers which layer gave a field, or a section, last; layers stand in the order in which they override."""
    origins.pop((section, field), None)
    origins[section, field] = where


def _source_or_path(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where one layer names a source or a path, the other must not linger from the layer below."""
    if data.get("path") and "source" not in data:
        return {**data, "source": "file"}
    if data.get("source") in ("hackernews", "synthetic") and "path" not in data:
        return {**data, "path": ()}
    return data


def _validated(values: dict[str, Any], origins: Mapping[tuple[str, str], str], default_origin: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = list(_problems(error, origins, default_origin))
    raise UserError(_listed(problems))


def _listed(problems: list[str]) -> str:
    count = "One thing is" if len(problems) == 1 else f"{len(problems)} things are"
    return f"{count} wrong with the recipe:\n" + "\n".join(f"  {problem}" for problem in problems)


def _useless(recipe: Recipe, origins: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """A sentence for each field that somebody gave although nothing reads it.

    A field that a recipe inherits is none of these: what reads it has been switched off by a later layer than gave it.
    """
    layers = list(dict.fromkeys(origins.values()))  # base files first, the command line last
    for field, reader in recipe.unread():
        given, gate = _place(field), _place(reader.gate)
        if given in origins and layers.index(origins[given]) >= layers.index(origins.get(gate, layers[0])):
            yield f"{origins[given]}: {field} = {recipe.value(field)!r} does nothing here: it is {_only(reader)}"


def _place(field: str) -> tuple[str, str]:
    section, _, name = field.partition(".")
    return section, name


def _only(reader: Reader) -> str:
    values = " or ".join(json.dumps(value) for value in reader.values)
    return f"only read with {reader.gate} = {values}"


def _problems(error: ValidationError, origins: Mapping[tuple[str, str], str], default_origin: str) -> Iterator[str]:
    """One sentence per field that is wrong: where, which, its value, what was expected, the nearest valid name."""
    by_field: dict[tuple[str, str], list[Any]] = {}
    for item in error.errors(include_url=False):
        section, field = (*(str(part) for part in item["loc"][:2]), "", "")[:2]
        by_field.setdefault((section, field), []).append(item)
    for (section, field), items in by_field.items():
        origin = origins.get((section, field)) or origins.get((section, "")) or default_origin
        first = items[0]
        if first["type"] == "extra_forbidden":
            if field:
                yield f"{origin}: {section}.{field} = {first['input']!r}: there is no such field; " + _nearest_field(
                    section, field
                )
            else:
                yield f"{origin}: [{section}]: there is no such section; {did_you_mean(section, Recipe.model_fields)}"
        elif (
            first["type"] == "value_error"
        ):  # of a section, or of the whole: any of the values' origins may be to blame
            blamed = [where for (part, _), where in origins.items() if section in ("", part)]
            yield f"{' and '.join(dict.fromkeys(blamed)) or origin}: {first['ctx']['error']}"
        elif not field:
            yield f"{origin}: {section} = {first['input']!r} must be a table, [{section}]"
        else:
            wanted = " or ".join(dict.fromkeys(_wanted(item) for item in items))
            yield f"{origin}: {section}.{field} = {first['input']!r}: {wanted}"


def _wanted(item: Any) -> str:
    message = str(item["msg"])
    message = message[0].lower() + message[1:]
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        choices = str(item["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        message += f" ({did_you_mean(item['input'], choices)})"
    return message


def _nearest_field(section: str, field: str) -> str:
    """The nearest field of that section, or, where the same name stands in another section, that one."""
    homes = {name: type(fields).model_fields for name, fields in Recipe()}
    elsewhere = [name for name, fields in homes.items() if field in fields]
    if elsewhere:
        return f"did you mean '{elsewhere[0]}.{field}'?"
    return did_you_mean(field, homes[section])
