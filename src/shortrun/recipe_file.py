"""Recipe files: TOML to a recipe and back, with every mistake reported at once.

A file may name one other recipe in `extends`, whose values it starts from. Values come from the defaults in `recipe`, then
the file, then the command line, each overriding the one before. They are laid over one another first and checked once, so
a flag can mend what a file has wrong. All that is wrong is reported before any data is read.

    shortrun recipes                  the shipped recipes
    shortrun recipes show baseline    one of them, resolved, with the meaning of every field
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from shortrun.errors import UserError, did_you_mean
from shortrun.limits import TOML_BYTES, is_file, parse_toml, read_bounded, read_toml
from shortrun.recipe import Reader, Recipe

COMMAND_LINE = "command line"
SHIPPED = Path(__file__).parent / "recipes"

Place = tuple[str, str]
"""Section and field; the field of a section as a whole, and of what should be one, is ""."""


@dataclass
class Layers:
    """The values of several layers, the later over the earlier, and where each was written."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    """The layers' names, the first one lowest."""

    def lay(self, content: Mapping[str, Any], origin: str) -> None:
        """Lays {section: {field: value}} over what is there."""
        self.order.append(origin)
        for section, fields in content.items():
            self.origins[section, ""] = origin
            if not isinstance(fields, Mapping):
                self.values[section] = fields
                continue
            if not isinstance(self.values.get(section), dict):
                self.values[section] = {}
            if section == "data":
                fields = _source_or_path(fields, self.values["data"].get("source"))
            for name, value in fields.items():
                self.values[section][name] = value
                self.origins[section, name] = origin
                self._keep(f"{section}.{name}")

    def _keep(self, field_name: str) -> None:
        """Lets a value stand that a layer below leaves to the data."""
        train = self.values.get("train")
        below = self.origins.get(("train", "from_data")) != self.order[-1]
        if below and isinstance(train, dict) and isinstance(train.get("from_data"), list | tuple):
            train["from_data"] = [name for name in train["from_data"] if name != field_name]

    def recipe(self, also: Sequence[str] = ()) -> Recipe:
        """The recipe that the values make; raises UserError with all that is wrong, `also` before the rest."""
        recipe, problems = _checked(self, self.order[-1])
        problems = [*also, *problems]
        if problems:
            count = "One thing is" if len(problems) == 1 else f"{len(problems)} things are"
            raise UserError(f"{count} wrong with the recipe:\n" + "\n".join(f"  {problem}" for problem in problems))
        return recipe

    def origin(self, place: Place, otherwise: str) -> str:
        return self.origins.get(place) or self.origins.get((place[0], "")) or otherwise


def shipped_recipes() -> dict[str, Path]:
    """Name and file of each recipe that comes with the package."""
    return toml_files(SHIPPED)


def toml_files(folder: Path) -> dict[str, Path]:
    """The TOML files of a folder, by their names without the ending."""
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def headline(path: Path) -> str:
    """What a shipped file says of itself: its first line, which is a comment."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def named_file(name: str, shipped: Mapping[str, Path]) -> Path | None:
    """The file that a name stands for: a shipped one, or a path with or without .toml; None where it is neither."""
    paths = [shipped[name]] if name in shipped else [Path(name), Path(f"{name}.toml")]
    path = next((path for path in paths if is_file(path)), None)
    if path and path.stem in (".", ".."):  # what it makes is called as it is, and would lie in the folder above
        raise UserError(f"{path} needs a name before its ending")
    return path


def toml_of(path: Path, what: str) -> dict[str, Any]:
    """The values of a TOML file that is to be a study, a sweep, or another `what`."""
    try:
        return read_toml(path)
    except (OSError, ValueError) as error:
        raise UserError(f"The {what} {path} can't be read: {error}") from None


def sentences(error: ValidationError, kind: type[BaseModel], inside: tuple[str, ...] = ()) -> Iterator[str]:
    """What is wrong with a file that is no recipe: where, what was expected, the nearest valid name."""
    for item in error.errors(include_url=False):
        where = (*inside, *map(str, item["loc"]))
        message = (item["msg"][0].lower() + item["msg"][1:]).replace("tuple", "list").removeprefix("value error, ")
        if item["type"] == "extra_forbidden":
            message = f"there is no such key; {did_you_mean(where[-1], _known(kind, where[:-1]))}"
        elif item["type"] == "literal_error":
            choices = re.findall("'([^']*)'", item["ctx"]["expected"])
            message += f" ({did_you_mean(str(item['input']), choices)})"
        yield f"{'.'.join(where)}: {message}" if where else message


def _known(kind: type[BaseModel], where: Sequence[str]) -> Iterable[str]:
    """The keys that a section may have, found from the whole by its names; a list's numbers are passed over."""
    for name in where:
        annotation: Any = kind.model_fields[name].annotation if name in kind.model_fields else None
        for found in (annotation, *get_args(annotation)):
            if isinstance(found, type) and issubclass(found, BaseModel):
                kind = found
    return kind.model_fields


def recipe_path(name: str) -> Path:
    """The file of a recipe given by its shipped name or as a path, with or without .toml; raises UserError if it is neither."""
    shipped = shipped_recipes()
    if path := named_file(name, shipped):
        return path
    near = did_you_mean(Path(name).stem, shipped)
    if name.endswith(".toml") or "/" in name:
        raise UserError(f"There is no recipe file {name}; of the shipped recipes, {near}")
    raise UserError(f"There is no shipped recipe '{name}': {near} (or give a .toml file)")


def load_recipe(
    name: str,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    also: Sequence[str] = (),
    origin: str = COMMAND_LINE,
) -> Recipe:
    """Reads a recipe and lays overrides ({section: {field: value}}, from `origin`) over it.

    Raises UserError with every mistake in the file and the overrides, each with where it stands. `also` are mistakes that
    were found before, in the flags.
    """
    layers = layers_of(recipe_path(name))
    if overrides:
        layers.lay(overrides, origin)
    return layers.recipe(also)


def parse_recipe(content: str | Mapping[str, Any], origin: str) -> tuple[Recipe, list[str]]:
    """A resolved recipe, as TOML text or as its values, and the fields in it that are not known.

    An older run may have fields that no longer exist; they are left out and named, "section.name".
    """
    values = _toml(content, origin) if isinstance(content, str) else content
    if not isinstance(values, Mapping):
        raise UserError(f"{origin} is damaged: its recipe is no object")
    known = {section: type(fields).model_fields for section, fields in Recipe()}
    unknown = [section for section, fields in values.items() if section not in known or not isinstance(fields, dict)]
    kept: dict[str, Any] = {}
    for section in values.keys() - set(unknown):
        unknown += [f"{section}.{name}" for name in values[section].keys() - known[section].keys()]
        kept[section] = {name: value for name, value in values[section].items() if name in known[section]}
    try:
        return Recipe.model_validate(kept), sorted(unknown)
    except ValidationError as error:
        problems = "\n".join(f"  {_sentence(item, origin)}" for item in error.errors(include_url=False))
        raise UserError(f"{origin} does not hold a recipe:\n{problems}") from None


def to_toml(recipe: Recipe, explain: bool = False) -> str:
    """The recipe as TOML text that `load_recipe` takes; with `explain`, each field's meaning stands above it as a comment.

    A field that nothing reads is a comment too, because a file that sets one is refused.
    """
    unread = dict(recipe.unread())
    lines: list[str] = []
    for section, fields in recipe:
        about = type(fields)
        lines += [f"[{section}]" + (f"  # {about.__doc__}" if explain else "")]
        for name, value in fields:
            if explain:
                lines.append("# " + " ".join(str(about.model_fields[name].description).split()))
            if value is None:  # TOML has no null
                lines.append(f"# {name} is not set")
            elif reader := unread.get(f"{section}.{name}"):
                lines.append(f"# {name} = {toml_value(value)}  # {_only(reader)}")
            else:
                lines.append(f"{name} = {toml_value(value)}")
        lines.append("")
    return "\n".join(lines)


class FieldChange(NamedTuple):
    """A field, "section.name", in which two recipes differ."""

    field: str
    old: Any
    new: Any


def changed_fields(old: Recipe, new: Recipe) -> list[FieldChange]:
    """The fields in which two recipes differ, but for those that nothing reads in either."""
    unread = dict(old.unread()).keys() & dict(new.unread()).keys()
    return [
        FieldChange(f"{section}.{name}", value, getattr(getattr(new, section), name))
        for section, fields in old
        for name, value in fields
        if value != getattr(getattr(new, section), name) and f"{section}.{name}" not in unread
    ]


def differences(old: Recipe, new: Recipe) -> list[str]:
    """One line for each of the changed fields."""
    return [f"{field}: {before!r} -> {after!r}" for field, before, after in changed_fields(old, new)]


def toml_value(value: Any) -> str:
    """A value as TOML spells it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value)  # shortest text that reads back as the same float
    told = json.dumps(value, ensure_ascii=False)
    # TOML allows no DEL, and what is not printable could steer the terminal that shows it
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in told)


def _toml(text: str, origin: str) -> dict[str, Any]:
    try:
        return parse_toml(text)
    except ValueError as error:
        raise UserError(f"{origin} is not valid TOML: {error}") from None


def layers_of(path: Path, seen: tuple[Path, ...] = ()) -> Layers:
    """The layers of a recipe file: what it extends, and over that its own values."""
    if path.resolve() in seen:
        raise UserError(f"{path} extends itself, by way of {' -> '.join(str(p) for p in seen)}")
    try:
        text = read_bounded(path, TOML_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The recipe {path} can't be read: {error}") from None
    own = _toml(text, str(path))
    base = own.pop("extends", None)
    layers = Layers() if base is None else layers_of(recipe_beside(path, base), (*seen, path.resolve()))
    layers.lay(own, str(path))
    return layers


def recipe_beside(path: Path, base: Any, key: str = "extends") -> Path:
    """The recipe file that another file names under `key`: a shipped recipe, or a file beside it."""
    if not isinstance(base, str):
        raise UserError(f"{path}: {key} = {base!r} must be one recipe's name or file")
    beside = path.parent / base
    if is_file(beside) and (base.endswith(".toml") or base not in shipped_recipes()):
        return beside
    try:
        return recipe_path(str(beside) if base.endswith(".toml") else base)
    except UserError as error:
        raise UserError(f'{path}: {key} = "{base}": {error}') from None


def _source_or_path(data: Mapping[str, Any], below: Any) -> Mapping[str, Any]:
    """Where one layer names a source or a path, the other must not linger from the layer below.

    A path alone leaves a corpus a corpus.
    """
    if data.get("path") and "source" not in data and below != "corpus":
        return {**data, "source": "file"}
    if data.get("source") in ("hackernews", "synthetic") and "path" not in data:
        return {**data, "path": ()}
    return data


def _checked(layers: Layers, otherwise: str) -> tuple[Recipe, list[str]]:
    """The recipe, or the nearest one that is valid, and a sentence for everything that is wrong.

    Checks of several fields only run once each is valid by itself. So what is wrong is set aside, and the rest is checked
    again, until nothing new is found; a later finding counts unless it is about what was set aside.
    """
    values = {section: dict(each) if isinstance(each, dict) else each for section, each in layers.values.items()}
    problems: list[str] = []
    aside: set[str] = set()
    while True:
        try:
            recipe = Recipe.model_validate(values)
            break
        except ValidationError as error:
            items = error.errors(include_url=False)
        for place, same in _by_place(items).items():
            sentence = _sentence(same[0], _blamed(same[0], place, layers, otherwise), same)
            if not any(name in sentence for name in aside):
                problems.append(sentence)
        for place in _by_place(items):
            aside |= _set_aside(values, place)
    useless = [sentence for sentence in _useless(recipe, layers) if not any(name in sentence for name in aside)]
    return recipe, list(dict.fromkeys([*problems, *useless]))


def _by_place(items: Sequence[Any]) -> dict[Place, list[Any]]:
    found: dict[Place, list[Any]] = {}
    for item in items:
        section, name = (*(str(part) for part in item["loc"][:2]), "", "")[:2]
        found.setdefault((section, name), []).append(item)
    return found


def _set_aside(values: dict[str, Any], place: Place) -> set[str]:
    """Takes a field out, or a section, or all sections that a check of the whole may have meant; returns their names."""
    section, name = place
    if name and isinstance(values.get(section), dict):
        values[section].pop(name, None)
        return {f"{section}.{name} "}
    gone = [section] if section else list(values)
    for each in gone:
        values.pop(each, None)
    return {f"{each}." for each in gone}


def _blamed(item: Any, place: Place, layers: Layers, otherwise: str) -> str:
    """Where what is wrong was written; of a check of several fields, wherever any of those it names was."""
    if item["type"] != "value_error":
        return layers.origin(place, otherwise)
    text = str(item["ctx"]["error"])
    named = [where for (section, name), where in layers.origins.items() if name and f"{section}.{name} " in f"{text} "]
    return " and ".join(dict.fromkeys(named)) or layers.origin(place, otherwise)


def _sentence(item: Any, origin: str, same: Sequence[Any] = ()) -> str:
    """What is wrong: where, which, its value, what was expected, the nearest valid name."""
    section, name = (*(str(part) for part in item["loc"][:2]), "", "")[:2]
    if item["type"] == "value_error":
        return f"{origin}: {item['ctx']['error']}"
    if item["type"] == "extra_forbidden" and name:
        given = f"{section}.{name} = {item['input']!r}"
        return f"{origin}: {given}: there is no such field; {nearest_field(section, name)}"
    if item["type"] == "extra_forbidden":
        return f"{origin}: [{section}]: there is no such section; {did_you_mean(section, [*Recipe.model_fields, 'extends'])}"
    if not name:
        return f"{origin}: {section} = {item['input']!r} must be a table, [{section}]"
    if item["type"] == "missing":
        return f"{origin}: {section}.{name} = {item['input']!r} has too few values"
    wanted = " or ".join(dict.fromkeys(_wanted(each) for each in same or [item]))
    return f"{origin}: {section}.{name} = {item['input']!r}: {wanted}"


def _wanted(item: Any) -> str:
    message = str(item["msg"])
    message = message[0].lower() + message[1:]
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        choices = str(item["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        message += f" ({did_you_mean(item['input'], choices)})"
    return message


def nearest_field(section: str, name: str) -> str:
    """The nearest field of that section, or, where the same name stands in another section, that one."""
    homes = {each: type(fields).model_fields for each, fields in Recipe()}
    elsewhere = [each for each, fields in homes.items() if name in fields]
    if elsewhere:
        return f"did you mean '{elsewhere[0]}.{name}'?"
    return did_you_mean(name, homes.get(section, {}))


def _useless(recipe: Recipe, layers: Layers) -> Iterator[str]:
    """A sentence for each field that somebody gave although nothing reads it.

    A field that a recipe inherits is none of these: what reads it has been switched off by a later layer than gave it.
    """
    for name, reader in recipe.unread():
        given, gate = (layers.origins.get(_place(each)) for each in (name, reader.gate))
        if given and layers.order.index(given) >= (layers.order.index(gate) if gate else 0):
            yield f"{given}: {name} = {recipe.value(name)!r} does nothing here: it is {_only(reader)}"


def _place(name: str) -> Place:
    section, _, field_name = name.partition(".")
    return section, field_name


def _only(reader: Reader) -> str:
    values = " or ".join(json.dumps(value) for value in reader.values)
    return f"only read with {reader.gate} " + (f"= {values}" if values else "above 0")
