"""Rules from a TOML file: which checks are made, with which values.

about = "The house rules of our course"

[[rule]]                                   of a run folder
name = "5 epochs"
demands = "The run makes exactly 5 passes over its training documents."
check = "epochs"
epochs = 5                                 what the check asks for

[[log_rule]]                               of a Mainrun log
name = "epochs"
demands = "The steps make 5 passes."
check = "epochs"
epochs = 5
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from shortrun.check.registry import LOG_CHECKS, RUN_CHECKS, Check
from shortrun.errors import UserError, did_you_mean
from shortrun.recipe_file import named_file, toml_files, toml_of

SHIPPED = Path(__file__).parents[1] / "rules"
OWN_KEYS = ("name", "demands", "check")
LISTS: dict[str, Mapping[str, Check]] = {"rule": RUN_CHECKS, "log_rule": LOG_CHECKS}


@dataclass(frozen=True)
class Rule:
    """A rule, and how it is checked."""

    name: str
    demands: str
    """One sentence."""
    check: Check
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Rules:
    """What a file of rules holds."""

    about: str
    run: tuple[Rule, ...]
    log: tuple[Rule, ...]


def shipped_rules() -> dict[str, Path]:
    """Name and file of each set of rules that comes with the package."""
    return toml_files(SHIPPED)


def load_rules(name: str) -> Rules:
    """Rules by their shipped name, or from a TOML file; raises UserError with all that is wrong."""
    path = named_file(name, shipped_rules())
    if path is None:
        near = did_you_mean(Path(name).stem, shipped_rules())
        raise UserError(f"There is no set of rules '{name}': {near} (or give a .toml file)")
    content = toml_of(path, "set of rules")
    problems: list[str] = []
    for key in content.keys() - {"about", *LISTS}:
        problems.append(f"{key}: there is no such key; {did_you_mean(key, ['about', *LISTS])}")
    about = content.get("about", "")
    if not isinstance(about, str):
        problems.append(f"about = {about!r} must be a sentence")
    found = {kind: _rules(content.get(kind, []), kind, problems) for kind in LISTS}
    if not problems and not any(found.values()):
        problems.append("it has no [[rule]] and no [[log_rule]]")
    if problems:
        raise UserError("\n  ".join([f"{path} is no set of rules:", *problems]))
    return Rules(str(about), tuple(found["rule"]), tuple(found["log_rule"]))


def _rules(tables: Any, kind: str, problems: list[str]) -> list[Rule]:
    if not isinstance(tables, list):
        problems.append(f"{kind} must be a list of tables: write [[{kind}]] above each")
        return []
    found: list[Rule] = []
    for place, table in enumerate(tables, 1):
        where = f"{kind} {place}"
        if not isinstance(table, dict):
            problems.append(f"{where} = {table!r} must be a table")
            continue
        if isinstance(table.get("name"), str):
            where += f' ("{table["name"]}")'
        wrong = [f"{where}: {sentence}" for sentence in _wrong(table, kind)]
        problems += wrong
        if not wrong:
            if any(rule.name == table["name"] for rule in found):
                problems.append(f"{where}: two rules have this name")
            check = LISTS[kind][table["check"]]
            values = {key: value for key, value in table.items() if key not in OWN_KEYS}
            found.append(Rule(table["name"], table["demands"], check, values))
    return found


def _wrong(table: Mapping[str, Any], kind: str) -> list[str]:
    """What is wrong with one rule's table, a sentence each."""
    problems = []
    for key in OWN_KEYS:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip():
            problems.append(f"{key} = {value!r} must be text" if key in table else f"it has no {key}")
    if not isinstance(table.get("check"), str):
        return problems
    check = LISTS[kind].get(table["check"])
    if check is None:
        other = next(each for each in LISTS if each != kind)
        hint = (
            f"that is one of a [[{other}]]"
            if table["check"] in LISTS[other]
            else did_you_mean(table["check"], LISTS[kind])
        )
        return [*problems, f'check = "{table["check"]}": there is no such check; {hint}']
    try:
        _values_of(check).model_validate({key: value for key, value in table.items() if key not in OWN_KEYS})
    except ValidationError as error:
        for item in error.errors(include_url=False):
            name = ".".join(map(str, item["loc"]))
            if item["type"] == "extra_forbidden":
                choices = [*_values_of(check).model_fields, *OWN_KEYS]
                problems.append(f"{name}: the check {table['check']} has no such value; {did_you_mean(name, choices)}")
            elif item["type"] == "missing":
                problems.append(f"the check {table['check']} needs {name}")
            else:
                message = item["msg"][0].lower() + item["msg"][1:]
                problems.append(f"{name} = {item['input']!r}: {message}")
    return problems


def _values_of(check: Check) -> Any:
    """A model of the values that a check takes: its keyword arguments."""
    types = get_type_hints(check.judge)
    fields: dict[str, Any] = {
        name: (types[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(check.judge).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return create_model("Values", __config__=ConfigDict(extra="forbid", strict=True), **fields)
