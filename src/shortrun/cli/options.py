"""What can be asked for: each command's options, and those that follow from the recipe's types."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from shortrun.cli.flags import table_of_flags, taken_from
from shortrun.errors import UserError, did_you_mean
from shortrun.recipe import Recipe
from shortrun.recipe_file import load_recipe

SplitName = Literal["validation", "tuning", "heldout", "train"]
JsonFlag = Annotated[
    bool, arg(help="Print one JSON object on standard output and nothing else there."), FlagCreatePairsOff
]
Track = Annotated[
    tuple[str, ...],
    arg(help="Write numbers and samples to tensorboard, trackio, wandb or mlflow too; may be given several times."),
    UseAppendAction,
]
RunFolderArgument = Annotated[Positional[Path], arg(metavar="RUN", help="The run folder.")]

ChartFile = Annotated[Path | None, arg(help="Draw it into this file: .svg, .png, .pdf or .html.")]


@dataclasses.dataclass
class Common:
    """Options that several commands share."""

    json: JsonFlag = False


@dataclasses.dataclass
class MovedData:
    """Where the run's data lies now."""

    path: Annotated[tuple[str, ...], arg(help="The run's files, where they have moved; they must hold the same.")] = ()


@dataclasses.dataclass
class Resume(Common):
    """Go on with a run from its newest whole checkpoint, to the same end bit for bit.

    Refuses, with the differences, when the recipe, the data or the tokenizer are no longer those the run began with.
    """

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    max_steps: Annotated[int | None, arg(help="Stop after this many steps in all.")] = None
    track: Track = ()
    data: MovedData = dataclasses.field(default_factory=MovedData)


@dataclasses.dataclass
class Combine(Common):
    """Make one run folder of finished runs: an ensemble, whose probabilities are the mean of theirs. Nothing is trained.

    The runs may have any shapes, seeds and recipes over the same documents, splits and tokenizer. Every command reads the new
    folder; the first run's batches are the geometry of its official loss.
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN ...", help="Two or more run folders.")] = ()
    out: Annotated[Path, arg(help="The run folder to make.")] = dataclasses.field(kw_only=True)
    fit: Annotated[
        bool,
        arg(help="Weight the runs by what the tuning documents say, instead of equally."),
        FlagCreatePairsOff,
    ] = False
    data: MovedData = dataclasses.field(default_factory=MovedData)


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
class Show(Common):
    """Show a run at a glance, finished or not: what its recipe changes, its losses, budget, parameters and checkpoints, and
    its curve.

    Its recipe is set beside the shipped one that differs in the fewest fields.
    """

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    svg: Annotated[Path | None, arg(help="Draw its architecture into this .svg file.")] = None
    chart: Annotated[
        Path | None, arg(help="Draw its curves into this file: .svg, .png, .pdf or .html, which can be zoomed.")
    ] = None


@dataclasses.dataclass
class Compare(Common):
    """Compare runs with the first one: recipes, losses, paired differences over documents, evaluations, and the documents
    that make the difference.

    Nothing is scored anew but the text of --on. The noise that is shown is that of the documents; several seeds need a study.
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN ...", help="Two or more run folders.")] = ()
    show: Annotated[int, arg(help="How many documents to show that are better, and that are worse.")] = 5
    on: Annotated[str | None, arg(help="Compare the surprisals of each part of this text, by every run's model.")] = (
        None
    )
    markdown: Annotated[bool, arg(help="Print it all as Markdown."), FlagCreatePairsOff] = False
    chart: Annotated[
        Path | None, arg(help="Draw the curves of all runs into this file: .svg, .png, .pdf or .html.")
    ] = None


@dataclasses.dataclass
class Sample(Common):
    """Write new documents with a run's model."""

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    prefix: Annotated[str, arg(help="Text that every document begins with.")] = ""
    n: Annotated[int, arg(help="How many documents.")] = 5
    temperature: Annotated[float, arg(help="1 samples as the model was trained, lower is bolder, 0 is greedy.")] = 1.0
    top_k: Annotated[int | None, arg(help="Draw only from the so many likeliest tokens; left out, from all.")] = None
    top_p: Annotated[
        float, arg(help="Draw only from the fewest likeliest tokens that together have this probability; 1 is all.")
    ] = 1.0
    seed: Annotated[int, arg(help="The same seed writes the same documents.")] = 0


@dataclasses.dataclass
class Predict(Common):
    """Show what a run's model expects: the likeliest next tokens behind a text, and how surprising each token of it was.

    Without a text, what documents begin with. A document's end, <eos>, is a token like any other.
    """

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    text: Annotated[Positional[str], arg(metavar="TEXT", help="The text to read; a document begins with it.")] = ""
    val: Annotated[int | None, arg(help="Read the run's validation document of this number, from 0, instead.")] = None
    at: Annotated[int | None, arg(help="Stop after so many tokens, and show what really came next.")] = None
    top: Annotated[int, arg(help="How many of the likeliest tokens to show.")] = 10
    chart: ChartFile = None
    diagnose: Annotated[
        bool,
        arg(help="Say also whether the model has learnt more than how frequent each token is; takes some seconds."),
        FlagCreatePairsOff,
    ] = False


@dataclasses.dataclass
class Breakdown(Common):
    """Show where a run's loss lies: by place in the document, how often a token and its word were seen in training, kind of
    word, and upper or lower case; and the hardest documents.

    Each table divides up the same loss, so its parts add up to it.
    """

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    split: Annotated[str, arg(help="validation, tuning, heldout or train.")] = "validation"
    hardest: Annotated[int, arg(help="How many of the hardest documents to show.")] = 10


@dataclasses.dataclass
class TokenizerOptions(Common):
    """Show what a tokenizer does to training and validation documents: whether it gives them back, how long they get, which
    pieces it has and never uses.

    WHICH is a run folder, a tokenizer.json, or a recipe. Fields of a recipe are flags, `--section.field VALUE`: a run or
    recipe keeps its own documents unless --data.path names others, and a file needs --data.path to be looked at on documents.
    """

    which: Annotated[Positional[str], arg(metavar="WHICH", help="RUN, FILE or RECIPE.")] = dataclasses.field(
        kw_only=True
    )
    sizes: Annotated[
        tuple[int, ...], arg(help="Learn tokenizers of these vocabulary sizes too, and compare them.")
    ] = ()
    show: Annotated[int, arg(help="How many pieces to list of each kind.")] = 10
    chart: ChartFile = None


@dataclasses.dataclass
class Check(Common):
    """Say, rule by rule, what a run has kept or broken, and what can't be known, with the evidence.

    Exit code 1 when a rule is broken, or with --strict can't be checked. With --json, a list of `rule`, `verdict` (kept,
    broken, unknown) and `evidence`.
    """

    run: Annotated[Positional[Path | None], arg(metavar="RUN", help="The run folder.")] = None
    rules: Annotated[str, arg(help="A shipped set of rules, or a TOML file of your own.")] = "mainrun"
    official_log: Annotated[
        Path | None, arg(metavar="FILE", help="Check this Mainrun log (JSON lines) instead of a run folder.")
    ] = None
    reported: Annotated[float | None, arg(help="The loss that is reported of that log's run.")] = None
    quick: Annotated[
        bool, arg(help="Only what the folder's own record answers: no data, no model."), FlagCreatePairsOff
    ] = False
    strict: Annotated[
        bool, arg(help="Fail, with exit code 1, also where a rule can't be checked."), FlagCreatePairsOff
    ] = False
    data: MovedData = dataclasses.field(default_factory=MovedData)


@dataclasses.dataclass
class Export(Common):
    """Hand a run's model on: as a class of transformers with its tokenizer, or as an ONNX graph.

    Refuses, with every reason, a recipe that the format can't hold. The export is checked before it appears.
    """

    run: RunFolderArgument = dataclasses.field(kw_only=True)
    out: Annotated[Positional[Path], arg(metavar="DIR", help="The folder to make.")] = dataclasses.field(kw_only=True)
    format: Annotated[
        Literal["hf", "onnx"], arg(help="hf: GPT2LMHeadModel or LlamaForCausalLM; onnx: a graph, for every recipe.")
    ] = "hf"
    data: MovedData = dataclasses.field(default_factory=MovedData)


@dataclasses.dataclass
class Verify(Common):
    """Check an export: its files, ids, logits, losses, and what it writes.

    With RUN, the loss of 1,000 of its validation documents is computed by both models. Exit code 1 where anything differs.
    """

    export: Annotated[Positional[Path], arg(metavar="EXPORT", help="The folder that `shortrun export` made.")] = (
        dataclasses.field(kw_only=True)
    )
    run: Annotated[Positional[Path | None], arg(metavar="RUN", help="The run that it was made of.")] = None
    data: MovedData = dataclasses.field(default_factory=MovedData)


@dataclasses.dataclass
class Cache(Common):
    """Show what was prepared on this machine: corpora, tokenizers and ids, which all runs share.

    SHORTRUN_CACHE names another folder for it.
    """

    clear: Annotated[bool, arg(help="Remove it all; the next run makes what it needs."), FlagCreatePairsOff] = False


@dataclasses.dataclass
class DataPrepare(Common):
    """Make a corpus: clean documents from files of text or HTML, without duplicates, split, with a record of every step.

    Interrupted in any way, the same command goes on and ends in the same bytes.
    """

    file: Annotated[Positional[str], arg(metavar="FILE", help="A shipped corpus file's name, or a TOML file.")] = (
        dataclasses.field(kw_only=True)
    )
    root: Annotated[str | None, arg(help="Where relative paths of inputs begin; left out, as the file says.")] = None
    out: Annotated[Path | None, arg(help="The folder to make; left out, as the file says, or corpora/<its name>.")] = (
        None
    )
    workers: Annotated[int | None, arg(help="Processes; left out, as many as there are cores.")] = None
    replace: Annotated[
        bool, arg(help="Put this corpus in the place of one that lies in the folder."), FlagCreatePairsOff
    ] = False


@dataclasses.dataclass
class DataShow(Common):
    """Show what a prepared corpus is, and what each step rejected and changed."""

    folder: Annotated[Positional[Path], arg(metavar="FOLDER", help="The folder of the corpus.")] = dataclasses.field(
        kw_only=True
    )
    examples: Annotated[int, arg(help="How many rejected documents to show of each reason (at most 10 are kept).")] = 10
    html: Annotated[Path | None, arg(help="Write it as a page into this file, which needs no network.")] = None


@dataclasses.dataclass
class StudyOptions(Common):
    """What every command about a study is asked."""

    study: Annotated[Positional[str], arg(metavar="STUDY", help="A shipped study's name, or a TOML file.")] = (
        dataclasses.field(kw_only=True)
    )
    out: Annotated[Path, arg(help="Where runs are looked for and made.")] = Path("runs")


@dataclasses.dataclass
class StudyPlan(StudyOptions):
    """Say what a study would run, what is there already, and what its seeds can show. Nothing is trained."""

    workers: Annotated[int | None, arg(help="Runs at once; left out, as many as there are cores.")] = None


@dataclasses.dataclass
class StudyRun(StudyPlan):
    """Do the runs that a study lacks, then show its table."""

    cluster: Annotated[str | None, arg(help="The address of a Dask scheduler whose workers do the runs.")] = None


@dataclasses.dataclass
class StudyShow(StudyOptions):
    """Show what a study found."""

    final: Annotated[
        bool, arg(help="Compare on the validation documents, which is written down with its date."), FlagCreatePairsOff
    ] = False
    markdown: Annotated[bool, arg(help="Print the table as Markdown."), FlagCreatePairsOff] = False
    chart: ChartFile = None


@dataclasses.dataclass
class Serve(Common):
    """Open a playground for one run or two: a page on this machine, to be looked at with a browser.

    Type a headline and see what the model expects next; sample; move through checkpoints; browse the validation documents;
    look at curves. Nothing that is typed there is kept. Ctrl-C ends it.
    """

    runs: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="RUN [RUN]", help="One run folder, or two to compare.")
    ] = ()
    port: Annotated[int, arg(help="The port; 0 takes one that is free.")] = 8765
    host: Annotated[
        str, arg(help="Another address than 127.0.0.1, where others can reach the page too. It asks for no password.")
    ] = "127.0.0.1"


@dataclasses.dataclass
class Page(Common):
    """Write the playground of a run as one HTML file, with the model inside, which opens from disk and needs no network.

    Whoever has the file has the model and some of the validation documents.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN", help="A run folder.")] = dataclasses.field(kw_only=True)
    file: Annotated[Positional[Path], arg(metavar="FILE.html", help="The file to write.")] = dataclasses.field(
        kw_only=True
    )


@dataclasses.dataclass
class Report:
    """Write a report on runs, studies and sweeps: effects with their noise, curves, predictions, costs, what repeats it.

    Fields of a recipe (--data.path FILE) and --scale.* say which runs of a study are meant, as in `shortrun study`. Without a
    form, one HTML page is written.
    """

    subjects: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="RUN|STUDY|SWEEP", help="Run folders, and names or TOML files of studies and sweeps."),
    ] = dataclasses.field(kw_only=True)
    html: Annotated[Path | None, arg(help="One page with interactive charts, which needs no network.")] = None
    pdf: Annotated[Path | None, arg(help="A4 pages.")] = None
    myst: Annotated[Path | None, arg(help="A folder that sphinx-build makes a site of.")] = None
    json: Annotated[Path | None, arg(help="All text and the numbers behind it.")] = None
    out: Annotated[Path, arg(help="Where the runs of studies and sweeps lie.")] = Path("runs")
    storage: Annotated[str | None, arg(help="Where a sweep's trials are kept, if not beside its runs.")] = None
    final: Annotated[
        bool, arg(help="Compare on the validation documents, which is written down with its date."), FlagCreatePairsOff
    ] = False


@dataclasses.dataclass
class Sweep(Common):
    """What every command about a sweep is asked."""

    sweep: Annotated[Positional[str], arg(metavar="FILE", help="A shipped sweep's name, or a TOML file.")] = (
        dataclasses.field(kw_only=True)
    )
    out: Annotated[Path, arg(help="The folder of runs; the sweep's lie in a folder of its name there.")] = Path("runs")
    storage: Annotated[
        str | None,
        arg(
            help="Where the trials are kept, postgresql://... for several machines; left out, sweep.db beside the runs."
        ),
    ] = None


@dataclasses.dataclass
class SweepRun(Sweep):
    """Train until the sweep has as many finished trials as it asks for, over all processes that share its storage.

    What was interrupted is gone on with. Every field of a recipe is a flag, `--section.field VALUE`, that reaches all trials.
    """

    workers: Annotated[int, arg(help="How many trials to train at once; they share the machine's cores.")] = 1


@dataclasses.dataclass
class SweepShow(Sweep):
    """List a sweep's trials, best first, with what the search has cost."""

    html: Annotated[Path | None, arg(help="Write Optuna's plots into this file, which needs no network.")] = None


@dataclasses.dataclass
class SweepBest(Sweep):
    """Write the best trial as a recipe: the sweep's base, the found values, and no scale.

    Flags `--section.field VALUE` are written into the recipe too.
    """

    out_file: Annotated[Path | None, arg(help="The recipe file to write; left out, it is printed.")] = None


@dataclasses.dataclass
class RecipesShow(Common):
    """Print a recipe, resolved, with the meaning of every field."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="A shipped recipe's name, or a TOML file.")] = (
        "baseline"
    )


def recipe_command(
    name: str, description: str, argv: list[str], extra: dict[str, tuple[Any, str]], *, track: bool = False
) -> tuple[Any, Recipe]:
    """Parses `RECIPE [--section.field VALUE ...]` and a command's own options; returns the options and the recipe.

    extra: type and meaning of each of the command's own options, all of which may be left out. track: whether the
    command writes to trackers. Raises UserError with every mistake in the recipe and in the flags.
    """
    fields: list[Any] = [
        ("recipe", Annotated[Positional[str], arg(metavar="RECIPE", help="A shipped recipe's name, or a TOML file.")]),
        *((field, Annotated[kind | None, arg(help=text)], None) for field, (kind, text) in extra.items()),
        *([("track", Track, ())] if track else []),
        ("json", JsonFlag, False),
    ]
    kind = dataclasses.make_dataclass("Options", fields)
    rest, overrides, mistakes = taken_from(argv)
    if {"-h", "--help"} & set(rest):
        _help(name, description, kind, rest)
    own = {f"--{field[0].replace('_', '-')}" for field in fields[1:]}
    for word in [word for word in rest if word.startswith("--")]:
        flag = word.partition("=")[0].replace("_", "-")
        if flag not in own:
            mistakes.append(f"command line: {word}: there is no such flag; {did_you_mean(flag, own)}")
            at = rest.index(word)
            # what follows is its value, unless it is the recipe
            del rest[at : at + 1 + (len(_names(rest)) > 1 and _names(rest[at + 1 : at + 2]) != [])]
    if mistakes and not _names(rest):
        rest.append("baseline")  # only to say what else is wrong
    options: Any = tyro.cli(kind, prog=f"shortrun {name}", description=description, args=rest)
    if getattr(options, "seed", None) is not None:
        overrides.setdefault("train", {})["seed"] = options.seed
    return options, load_recipe(options.recipe, overrides, mistakes)


def _names(words: list[str]) -> list[str]:
    return [word for word in words if not word.startswith("-")]


def _help(name: str, description: str, kind: type[Any], rest: list[str]) -> NoReturn:
    """Shows a command's own options, then every field of the recipe as a flag."""
    with contextlib.suppress(SystemExit):
        tyro.cli(kind, prog=f"shortrun {name}", description=description, args=["--help"])
    names = _names(rest)
    Console(highlight=False).print(table_of_flags(load_recipe(names[0]) if names else Recipe()))
    raise SystemExit(0)


def utf8(text: str, what: str) -> str:
    """The text; raises UserError where the bytes of the command line were no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} is not valid UTF-8 text") from None
    return text
