"""The command line: one thin function per command, each a few calls into the rooms.

Results go to standard output, progress and messages to standard error; with --json, standard output holds one JSON
object and nothing else. Exit codes: 0 done, 1 stopped by something foreseeable (a full disk, a diverged run), 2 a
mistake in what was asked for, 130 and 143 interrupted. Torch is only imported by the commands that compute.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import FlagCreatePairsOff, Positional, arg

from shortrun import __version__
from shortrun.cards import CARDS, technique_cards
from shortrun.errors import ShortrunError, UserError, did_you_mean
from shortrun.recipe import Recipe
from shortrun.recipe_file import load_recipe, recipe_path, shipped_recipes, to_toml

SplitName = Literal["validation", "tuning", "heldout", "train"]
JsonFlag = Annotated[
    bool, arg(help="Print one JSON object on standard output and nothing else there."), FlagCreatePairsOff
]
RunFolderArgument = Annotated[Positional[Path], arg(metavar="RUN", help="The run folder.")]


@dataclasses.dataclass
class _Common:
    """Options that several commands share."""

    json: JsonFlag = False


@dataclasses.dataclass
class Resume(_Common):
    """Go on with a run from its newest whole checkpoint, to the same end bit for bit.

    Refuses, with the differences, when the recipe, the data or the tokenizer are no longer those the run began with.
    """

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    max_steps: Annotated[int | None, arg(help="Stop after this many steps in all.")] = None


@dataclasses.dataclass
class EvalData:
    """Other titles to score than the run's own."""

    path: Annotated[tuple[str, ...], arg(help="Files whose titles are scored, all of them and in order.")] = ()
    column: Annotated[str, arg(help="The column that holds the titles, where the files have columns.")] = "title"


@dataclasses.dataclass
class Eval(_Common):
    """Score a run's model on titles, each title on its own: losses with 95 % intervals over titles, the hardest and
    easiest titles, and the share that was trained on too.

    Without --data.path, the run's own validation titles are scored (or another split, by --split).
    """

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    split: Annotated[SplitName | None, arg(help="Which of the run's own splits; left out, validation.")] = None
    all: Annotated[
        bool, arg(help="Score every checkpoint the run has kept, not only the newest."), FlagCreatePairsOff
    ] = False
    show: Annotated[int, arg(help="How many of the hardest and easiest titles to show.")] = 5
    data: EvalData = dataclasses.field(default_factory=EvalData)


@dataclasses.dataclass
class Sample(_Common):
    """Write new titles with a run's model."""

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    prefix: Annotated[str, arg(help="Text that every title begins with.")] = ""
    n: Annotated[int, arg(help="How many titles.")] = 5
    temperature: Annotated[float, arg(help="1 samples as the model was trained, lower is bolder, 0 is greedy.")] = 1.0
    seed: Annotated[int, arg(help="The same seed writes the same titles.")] = 0


@dataclasses.dataclass
class RecipesShow(_Common):
    """Print a recipe, resolved, with the meaning of every field."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="A shipped recipe's name, or a TOML file.")] = (
        "baseline"
    )


USAGE = f"""shortrun {__version__}: train the best small language model a small corpus allows, and prove it.

usage: shortrun COMMAND ...

  train RECIPE        train a recipe into a new run folder; RECIPE is a shipped name or a TOML file
  resume RUN          go on with a run, to the same end bit for bit
  eval RUN            score a run's model on its validation titles or on others
  sample RUN          write new titles with a run's model
  recipes             list the shipped recipes; `recipes show NAME` prints one with every field's meaning
  plan RECIPE         what a recipe will take: parameters, memory, arithmetic, time
  techniques          list what a recipe can switch on, each with its card
  data info RECIPE    what a recipe's data is: counts, splits, duplicates, fingerprints

`shortrun COMMAND --help` explains a command. Start with `shortrun train quickstart`."""


def run(argv: list[str]) -> int:
    """Runs one command line; returns the exit code."""
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "resume": _resume,
        "eval": _eval,
        "sample": _sample,
        "recipes": _recipes,
        "plan": _plan,
        "techniques": _techniques,
        "data": _data,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    try:
        if argv[0] not in commands:
            raise UserError(f"There is no command '{argv[0]}': {did_you_mean(argv[0], commands)}")
        commands[argv[0]](argv[1:])
    except ShortrunError as error:
        # what every process meets, one of them says: what was asked for, before they joined, and what is shared
        if _first_process() or (error.process is not None and not error.shared):
            where = f" (process {error.process})" if error.process else ""
            Console(stderr=True, highlight=False).print(f"shortrun{where}: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"shortrun: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("shortrun: interrupted before there was anything to save", file=sys.stderr)
        return 130
    return 0


def _train(argv: list[str]) -> None:
    options, recipe = _recipe_command(
        "train",
        "Train a recipe into a new run folder.\n\nA value comes from the defaults, then the recipe file, then the command "
        "line, each overriding the one before; the defaults shown here are the recipe's.",
        argv,
        {
            "out": (Path, "The run folder to make; left out, runs/<recipe>-<seed>."),
            "max_steps": (int, "Stop after this many steps of the same run; `resume` goes on with it."),
            "seed": (int, "Short for --train.seed."),
        },
    )
    from shortrun.train.folder import free_path
    from shortrun.train.loop import train

    path = options.out or free_path(Path("runs") / f"{recipe_path(options.recipe).stem}-{recipe.train.seed}")
    scores = train(recipe, path, _positive(options.max_steps, "--max-steps"))
    _report_run(scores, options.json)


def _resume(argv: list[str]) -> None:
    options = tyro.cli(Resume, prog="shortrun resume", args=argv)
    from shortrun.train.loop import resume

    scores = resume(options.run, _positive(options.max_steps, "--max-steps"))
    _report_run(scores, options.json)


def _eval(argv: list[str]) -> None:
    options = tyro.cli(Eval, prog="shortrun eval", args=argv)
    from shortrun.text.sources import titles_from_files
    from shortrun.train.folder import RunFolder
    from shortrun.view.heldout import evaluate_run

    if options.data.path and options.split:
        raise UserError("--split names one of the run's own splits, --data.path other titles: give one of them")
    titles = None
    if options.data.path:
        normalise = RunFolder.open(options.run).recipe().data.normalise  # as its own titles were
        titles = titles_from_files(options.data.path, options.data.column, normalise).titles
    result = evaluate_run(
        options.run, titles, split=options.split or "validation", every=options.all, show=options.show
    )
    if options.json:
        print(json.dumps(result))
        return
    table = Table(title=f"{options.run}: {result['titles']:,} titles", title_justify="left")
    for heading in (
        "step",
        "loss",
        "95 % interval",
        "official",
        "coverage",
        "exp(official)",
        "bits/byte",
        "perplexity",
    ):
        table.add_column(heading, justify="right")
    for row in result["checkpoints"]:
        low, high = row["interval"]
        table.add_row(
            str(row["step"]),
            f"{row['loss']:.4f}",
            f"{low:.4f} to {high:.4f}",
            f"{row['official_loss']:.4f}",
            f"{row['coverage']:.1%}",
            "too large" if row["exp_loss"] is None else f"{row['exp_loss']:.4f}",
            f"{row['bits_per_byte']:.4f}",
            _perplexity(row),
        )
    _show(table)
    share = result["share_in_training"]
    print("the training titles can't be read any more" if share is None else f"{share:.2%} of them were trained on too")
    for kind in ("hardest", "easiest"):
        print(f"\n{kind} titles (nats per character):")
        for title in result[kind]:
            print(f"  {title['loss']:.3f}  {_visible(title['title'])}")


def _plan(argv: list[str]) -> None:
    options, recipe = _recipe_command(
        "plan",
        "Estimate what training a recipe will take, without reading any data.",
        argv,
        {"gpus": (int, "Plan for this many GPUs; left out, for this machine's CPU.")},
    )
    from shortrun.train.plan import plan

    found = plan(recipe, _positive(options.gpus, "--gpus") or 0)
    if options.json:
        print(json.dumps(found))
        return
    memory = {part: f"{size / 1e9:.2f} GB" for part, size in found["memory_bytes"].items()}
    where = f"each of {found['processes']} GPUs" if options.gpus else "the CPU"
    _table(
        f"plan for {options.recipe} on {where}",
        {
            "parameters": f"{found['parameters']:,}",
            "tokens, steps": f"about {found['tokens']:,} targets in {found['steps']:,} steps",
            "memory": f"about {memory.pop('total')}: " + ", ".join(f"{part} {size}" for part, size in memory.items()),
            "arithmetic": f"{found['flops']:.3g} FLOP, {found['passes_per_step']} forward and backward passes a step",
            "time": f"about {_duration(found['seconds'])} at {found['flops_per_second'] / 1e9:,.0f} GFLOP/s "
            f"({found['flops_per_second_from']})",
        },
    )


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"


def _sample(argv: list[str]) -> None:
    options = tyro.cli(Sample, prog="shortrun sample", args=argv)
    from shortrun.train.trained import load_trained

    if not 0 <= options.seed < 2**63:
        raise UserError(f"--seed {options.seed} must be at least 0 and below 2^63")
    try:
        options.prefix.encode()
    except UnicodeEncodeError:
        raise UserError("--prefix is not valid UTF-8 text") from None
    if not 0 <= options.temperature < math.inf:
        raise UserError(f"--temperature {options.temperature} must be a number from 0")
    trained = load_trained(options.run)
    titles = trained.sample(
        prefix=options.prefix,
        count=_positive(options.n, "--n") or 0,
        temperature=options.temperature,
        seed=options.seed,
    )
    print(json.dumps({"titles": titles}) if options.json else "\n".join(map(_visible, titles)))


def _recipes(argv: list[str]) -> None:
    if argv and argv[0] == "show":
        shown = tyro.cli(RecipesShow, prog="shortrun recipes show", args=argv[1:])
        recipe = load_recipe(shown.recipe)
        print(json.dumps(recipe.model_dump(mode="json")) if shown.json else to_toml(recipe, explain=True), end="")
        return
    options = tyro.cli(_Common, prog="shortrun recipes", description="List the shipped recipes.", args=argv)
    about = {
        name: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        for name, path in shipped_recipes().items()
    }
    if options.json:
        print(json.dumps({"recipes": about}))
    else:
        _table("shipped recipes: shortrun train NAME", about)


def _techniques(argv: list[str]) -> None:
    about = "List the techniques that a recipe can switch on, with their switches and costs."
    options = tyro.cli(_Common, prog="shortrun techniques", description=about, args=argv)
    cards = technique_cards()
    if options.json:
        print(json.dumps({"techniques": [dataclasses.asdict(card) for card in cards]}))
        return
    table = Table("technique", "switch", "cost", title=f"techniques; their cards are in {CARDS}", title_justify="left")
    for card in cards:
        table.add_row(card.title, "\n".join(card.switches), card.cost)
    _show(table)


def _data(argv: list[str]) -> None:
    if not argv or argv[0] != "info":
        if argv and argv[0] not in ("-h", "--help"):
            raise UserError(f"There is no command 'data {argv[0]}': {did_you_mean(argv[0], ['info'])}")
        print("usage: shortrun data info RECIPE [--data.path FILE ...] [--json]")
        return
    options, recipe = _recipe_command(
        "data info",
        "Show what a recipe's data is: counts, splits, duplicates, what cleaning changed, fingerprints.",
        argv[1:],
        {},
    )
    from shortrun.text.corpus import load_corpus

    manifest = load_corpus(recipe.data).manifest
    if options.json:
        print(json.dumps(manifest))
        return
    table = Table(title=f"{manifest['source']}, sha256 {manifest['sha256']}")
    for heading in ("split", "titles", "characters", "bytes", "repeated inside", "sha256"):
        table.add_column(heading, justify="right" if heading not in ("split", "sha256") else "left")
    for name, split in manifest["splits"].items():
        numbers = (split[key] for key in ("titles", "characters", "bytes", "duplicates_inside"))
        table.add_row(name, *(f"{number:,}" for number in numbers), split["sha256"][:12])
    _show(table)
    for name, count in {**manifest["duplicates_across"], **manifest["cleaning"]}.items():
        print(f"{name.replace('_', ' ')}: {count:,}")


def _recipe_command(
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
        return _recipe_command(name, description, argv, extra, guess=options.recipe)
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


def _report_run(scores: dict[str, Any], as_json: bool) -> None:
    """The end of a run: its losses, five titles, and where it lies."""
    if not _first_process():
        return
    if as_json:
        print(json.dumps(scores))
        return
    from shortrun.train.trained import load_trained

    rows = {
        "loss (nats per character)": f"{scores['loss']:.4f}",
        "official loss, coverage": f"{scores['official_loss']:.4f}, {scores['coverage']:.1%} of the targets scored"
        if scores["coverage"]
        else "none: the validation titles are shorter than one span",
        "bits per byte": f"{scores['bits_per_byte']:.4f}",
        "perplexity (per token)": _perplexity(scores),
    }
    if "floor" in scores:
        rows["floor of this corpus"] = f"{scores['floor']:.4f}; the loss is {scores['excess']:.4f} above it"
    if scores["tuning_loss"] is not None:
        rows["tuning loss"] = f"{scores['tuning_loss']:.4f}"
    rows["budget"] = (
        f"{scores['steps']:,} steps, {scores['epochs']:g} epochs, {scores['tokens']:,} tokens, {scores['flops']:.3g} FLOP, "
        f"{scores['seconds']:.0f} s, {scores['tokens_per_second'] or 0:,.0f} tokens/s"
    )
    _table("scores" if scores["complete"] else f"scores after {scores['steps']} steps (not finished)", rows)
    print("\nfive titles it writes:")
    for title in load_trained(Path(scores["run"])).sample(prefix="", count=5, temperature=1.0, seed=0):
        shown = _visible(title)
        print(f"  {shown[:200]}{'…' * (len(shown) > 200)}")
    print(f"\nrun folder: {scores['run']}")


def _first_process() -> bool:
    """Whether this process, of those that torchrun may have started, is the one that speaks."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def _perplexity(scores: dict[str, Any]) -> str:
    return "too large" if scores["perplexity"] is None else f"{scores['perplexity']:.2f}"


def _visible(title: str) -> str:
    """The title with control characters escaped, so that what a model writes can't steer a terminal."""
    return "".join(
        c if c.isprintable() or c == "\N{ZERO WIDTH JOINER}" else c.encode("unicode_escape").decode() for c in title
    )


def _table(title: str, rows: dict[str, str]) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    _show(table)


def _show(table: Table) -> None:
    """Prints a table as wide as the terminal, and wide enough for every column where there is none."""
    terminal = sys.stdout.isatty()
    Console(highlight=False, width=None if terminal else 140).print(table)


def _positive(number: int | None, flag: str) -> int | None:
    if number is not None and number < 1:
        raise UserError(f"{flag} {number} must be at least 1")
    return number
