"""What can be asked for: each command's options, and those that follow from the recipe's types."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from shortrun.errors import UserError
from shortrun.recipe import Recipe
from shortrun.recipe_file import load_recipe

SplitName = Literal["validation", "tuning", "heldout", "train"]
JsonFlag = Annotated[
    bool, arg(help="Print one JSON object on standard output and nothing else there."), FlagCreatePairsOff
]
RunFolderArgument = Annotated[Positional[Path], arg(metavar="RUN", help="The run folder.")]


@dataclasses.dataclass
class Common:
    """Options that several commands share."""

    json: JsonFlag = False


@dataclasses.dataclass
class Resume(Common):
    """Go on with a run from its newest whole checkpoint, to the same end bit for bit.

    Refuses, with the differences, when the recipe, the data or the tokenizer are no longer those the run began with.
    """

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    max_steps: Annotated[int | None, arg(help="Stop after this many steps in all.")] = None


@dataclasses.dataclass
class EvalData:
    """Other documents to score than the run's own."""

    path: Annotated[tuple[str, ...], arg(help="Files whose documents are scored, all of them and in order.")] = ()
    column: Annotated[str, arg(help="The column that holds the documents, where the files have columns.")] = "title"


@dataclasses.dataclass
class Eval(Common):
    """Score a run's model on documents, each on its own: losses with 95 % intervals over documents, the hardest and
    easiest of them, and the share that was trained on too.

    Without --data.path, the run's own validation documents are scored (or another split, by --split).
    """

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    split: Annotated[SplitName | None, arg(help="Which of the run's own splits; left out, validation.")] = None
    all: Annotated[
        bool, arg(help="Score every checkpoint the run has kept, not only the newest."), FlagCreatePairsOff
    ] = False
    show: Annotated[int, arg(help="How many of the hardest and easiest documents to show.")] = 5
    data: EvalData = dataclasses.field(default_factory=EvalData)


@dataclasses.dataclass
class Sample(Common):
    """Write new documents with a run's model."""

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    prefix: Annotated[str, arg(help="Text that every document begins with.")] = ""
    n: Annotated[int, arg(help="How many documents.")] = 5
    temperature: Annotated[float, arg(help="1 samples as the model was trained, lower is bolder, 0 is greedy.")] = 1.0
    seed: Annotated[int, arg(help="The same seed writes the same documents.")] = 0


@dataclasses.dataclass
class Cache(Common):
    """Show what was prepared on this machine: corpora, tokenizers and ids, which all runs share.

    SHORTRUN_CACHE names another folder for it.
    """

    clear: Annotated[bool, arg(help="Remove it all; the next run makes what it needs."), FlagCreatePairsOff] = False


@dataclasses.dataclass
class RecipesShow(Common):
    """Print a recipe, resolved, with the meaning of every field."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="A shipped recipe's name, or a TOML file.")] = (
        "baseline"
    )


def recipe_command(
    name: str, description: str, argv: list[str], extra: dict[str, tuple[Any, str]], guess: str = ""
) -> tuple[Any, Recipe]:
    """Parses `RECIPE [--section.field VALUE ...]` and a command's own options; returns the options and the recipe.

    `extra`: type and meaning of each of the command's own options, all of which may be left out. The flags are made from
    the recipe's types, without its range checks: what differs from the file then goes through the same validation as
    the file, so that every mistake is reported at once and in the same words. `guess` is the recipe whose values stand
    as defaults; when it turns out to be another, the line is parsed once more.
    """
    guess = guess or (argv[0] if argv and not argv[0].startswith("-") else "baseline")
    base = load_recipe(guess)
    options: Any = tyro.cli(_options_type(base, extra), prog=f"shortrun {name}", description=description, args=argv)
    if options.recipe != guess:
        return recipe_command(name, description, argv, extra, guess=options.recipe)
    overrides: dict[str, dict[str, Any]] = {}
    for section, fields in base:
        given = vars(getattr(options, section))
        overrides[section] = {field: value for field, value in given.items() if value != getattr(fields, field)}
    if any(
        word.partition("=")[0] == "--data.source" for word in argv
    ):  # said, so it counts even where it changes nothing
        overrides["data"]["source"] = options.data.source
    if getattr(options, "seed", None) is not None:
        overrides["train"]["seed"] = options.seed
    return options, load_recipe(guess, overrides)


def _options_type(base: Recipe, extra: dict[str, tuple[Any, str]]) -> type[Any]:
    """A dataclass of all options, from which tyro makes flags and help: the recipe's sections with `base` as defaults."""
    fields: list[Any] = [
        ("recipe", Annotated[Positional[str], arg(metavar="RECIPE", help="A shipped recipe's name, or a TOML file.")]),
        *((field, Annotated[kind | None, arg(help=text)], None) for field, (kind, text) in extra.items()),
        ("json", JsonFlag, False),
    ]
    for section, values in base:
        kind = type(values)
        flags: list[Any] = [
            (field, Annotated[about.annotation, arg(help=about.description)], getattr(values, field))
            for field, about in kind.model_fields.items()
        ]
        made = dataclasses.make_dataclass(section, flags, namespace={"__doc__": kind.__doc__})
        fields.append((section, made, dataclasses.field(default_factory=made)))
    return dataclasses.make_dataclass("Options", fields)


def positive(number: int | None, flag: str) -> int | None:
    if number is not None and number < 1:
        raise UserError(f"{flag} {number} must be at least 1")
    return number
