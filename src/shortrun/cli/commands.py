"""The command line: one thin function per command, each a few calls into the rooms.

Results go to standard output, progress and messages to standard error; with --json, standard output holds one JSON
object and nothing else. Exit codes: 0 done, 1 stopped by something foreseeable (a full disk, a diverged run), 2 a
mistake in what was asked for, 130 and 143 interrupted. Torch is only imported by the commands that compute.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import tyro
from rich.console import Console

from shortrun import __version__, cache
from shortrun.cards import techniques
from shortrun.cli.dispatch import Command, chosen, elsewhere
from shortrun.cli.options import Cache, Common, Eval, RecipesShow, Resume, Sample, recipe_command, utf8
from shortrun.cli.output import (
    is_first_process,
    message,
    say,
    show_cache,
    show_evaluation,
    show_pairs,
    show_plan,
    show_run,
    show_techniques,
    visible,
)
from shortrun.cli.signals import stopping
from shortrun.errors import ShortrunError, UserError, positive
from shortrun.recipe_file import headline, load_recipe, shipped_recipes, to_toml

USAGE = f"""shortrun {__version__}: train the best small language model a small corpus allows, and prove it.

usage: shortrun COMMAND ...

  train RECIPE        train a recipe into a new run folder; RECIPE is a shipped name or a TOML file
  resume RUN          go on with a run, to the same end bit for bit
  combine RUN RUN     one run folder of finished runs: an ensemble, whose probabilities are the mean of theirs
  eval RUN            score a run's model on its validation documents or on others
  sample RUN          write new documents with a run's model
  predict RUN TEXT    the likeliest next tokens, and how surprising each token of the text was
  breakdown RUN       where a run's loss lies: places, rare words, kinds of words, case, the hardest documents
  tokenizer WHICH     what a run's, a file's or a recipe's tokenizer does to documents; --sizes compares vocabularies
  show RUN            a run at a glance: what its recipe changes, losses, parameters, checkpoints, its curve
  compare RUN RUN     runs side by side: recipes, losses, paired differences, the documents that make them
  check RUN           say which rules a run has kept, with the evidence; --official-log FILE judges a Mainrun log
  export RUN DIR      hand a run's model on: a class of transformers with its tokenizer, or an ONNX graph
  verify EXPORT       check that an export gives what the trained model gave
  study COMMAND       plan, run or show a study: changes compared with their noise; alone, list the shipped ones
  sweep COMMAND       search a recipe's fields; `sweep show` lists the trials, `sweep best` writes the best as a recipe
  serve RUN [RUN]     a page on this machine: type and see what a model expects, sample, compare, browse
  page RUN FILE.html  the same view of one run as one file that opens from disk: mail a model to a friend
  report RUN...       runs, studies and sweeps as one document: a page, a PDF, a site
  recipes             list the shipped recipes; `recipes show NAME` prints one with every field's meaning
  plan RECIPE         what a recipe will take: parameters, memory, arithmetic, time
  techniques          list what a recipe can switch on: what has a card, then the rest
  data info RECIPE    what a recipe's data is: counts, splits, duplicates, fingerprints
  data prepare FILE   clean documents from files of text or HTML, without duplicates, split; `data show` says what was done
  cache               what was prepared on this machine and is shared by all runs; --clear removes it

`shortrun COMMAND --help` explains a command. Start with `shortrun train quickstart`."""


def run(argv: list[str]) -> int:
    """Runs one command line; returns the exit code."""
    commands: dict[str, Command] = {
        "train": _train,
        "resume": _resume,
        "combine": elsewhere("combine", "combine"),
        "eval": _eval,
        "sample": _sample,
        "predict": elsewhere("predict", "predict"),
        "breakdown": elsewhere("breakdown", "breakdown"),
        "tokenizer": elsewhere("tokenizer", "tokenizer"),
        "show": elsewhere("look", "show_command"),
        "compare": elsewhere("look", "compare_command"),
        "check": elsewhere("check", "check"),
        "export": elsewhere("export", "export_command"),
        "verify": elsewhere("export", "verify_command"),
        "study": elsewhere("study", "study"),
        "sweep": elsewhere("sweep", "sweep"),
        "serve": elsewhere("serve", "serve"),
        "page": elsewhere("page", "page"),
        "report": elsewhere("report", "report"),
        "recipes": _recipes,
        "plan": _plan,
        "techniques": _techniques,
        "data": elsewhere("data", "data"),
        "cache": _cache,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    try:
        chosen(commands, argv[0])(argv[1:])
    except ShortrunError as error:
        # what every process meets, one of them says: what was asked for, before they joined, and what is shared
        if is_first_process() or (error.process is not None and not error.shared):
            where = f" (process {error.process})" if error.process else ""
            told = message(f"shortrun{where}: {error}")
            Console(stderr=True, highlight=False).print(told, markup=False, soft_wrap=True)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        say(f"shortrun: {error}")
        return 1
    except KeyboardInterrupt:
        print("shortrun: interrupted before anything was saved", file=sys.stderr)
        return 130
    return 0


def _train(argv: list[str]) -> None:
    options, recipe = recipe_command(
        "train",
        "Train a recipe into a new run folder.\n\nA value comes from the defaults, then the recipe file, then the command "
        "line, each overriding the one before; the defaults shown here are the recipe's.",
        argv,
        {
            "out": (Path, "The run folder to make; left out, runs/<recipe>-<seed>."),
            "max_steps": (int, "Stop after this many steps of the same run; `resume` goes on with it."),
            "seed": (int, "Short for --train.seed."),
        },
        track=True,
    )
    from shortrun import api
    from shortrun.cli.display import Display
    from shortrun.track.tracking import Tracking, trackers

    path = options.out or api.new_path(options.recipe, recipe.train.seed)
    max_steps = positive(options.max_steps, "--max-steps")
    chosen = trackers(options.track)
    with Display() as display, stopping(path, display.say) as stop, Tracking(chosen, display) as tracking:
        result = api.train(recipe, out=path, max_steps=max_steps, on_event=tracking, stop=stop)
    show_run(result, options.json)


def _resume(argv: list[str]) -> None:
    options = tyro.cli(Resume, prog="shortrun resume", args=argv)
    from shortrun import api
    from shortrun.cli.display import Display
    from shortrun.track.tracking import Tracking, trackers

    max_steps = positive(options.max_steps, "--max-steps")
    chosen = trackers(options.track)
    with Display() as display, stopping(options.run, display.say) as stop, Tracking(chosen, display) as tracking:
        result = api.resume(options.run, data_path=options.data.path, max_steps=max_steps, on_event=tracking, stop=stop)
    show_run(result, options.json)


def _eval(argv: list[str]) -> None:
    options = tyro.cli(Eval, prog="shortrun eval", args=argv)
    from shortrun.runs.folder import RunFolder
    from shortrun.text.cleaning import cleaning_notes
    from shortrun.text.sources import documents_from_files
    from shortrun.view.evaluate import evaluate_run

    if options.data.path and options.split:
        raise UserError("--split names one of the run's own splits, --data.path other documents: give one of them")
    if options.show < 0:
        raise UserError(f"--show {options.show} must be at least 0")
    documents, notes = None, []
    if options.data.path:
        data = RunFolder.open(options.run).recipe().data  # cleaned as its own documents were
        titles = data.source == "hackernews"
        source = documents_from_files(options.data.path, options.data.column, data.normalise, one_line=titles)
        documents, notes = source.documents, cleaning_notes(source.changes)
    report = evaluate_run(options.run, documents, split=options.split or "validation", every=options.all)
    for note in [*notes, *report.notes]:
        say(note)
    if options.json:
        print(json.dumps(report.as_dict(options.show)))
        return
    show_evaluation(report, options.show)


def _plan(argv: list[str]) -> None:
    options, recipe = recipe_command(
        "plan",
        "Estimate what training a recipe will take. Files are counted, the hub is not asked.",
        argv,
        {"gpus": (int, "Plan for this many GPUs; left out, for this machine's CPU.")},
    )
    from shortrun.train.plan import plan

    found = plan(recipe, positive(options.gpus, "--gpus") or 0)
    if options.json:
        print(json.dumps(found.as_dict()))
        return
    show_plan(options.recipe, found)


def _sample(argv: list[str]) -> None:
    options = tyro.cli(Sample, prog="shortrun sample", args=argv)
    from shortrun.api import load

    prefix = utf8(options.prefix, "--prefix")
    run = load(options.run)
    for note in run.notes:
        say(note)
    documents = run.sample(
        options.n,
        prefix=prefix,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=options.seed,
    )
    print(json.dumps({"documents": documents}) if options.json else "\n".join(map(visible, documents)))


def _recipes(argv: list[str]) -> None:
    if argv and argv[0] == "show":
        shown = tyro.cli(RecipesShow, prog="shortrun recipes show", args=argv[1:])
        recipe = load_recipe(shown.recipe)
        print(json.dumps(recipe.model_dump(mode="json")) if shown.json else to_toml(recipe, explain=True), end="")
        return
    options = tyro.cli(Common, prog="shortrun recipes", description="List the shipped recipes.", args=argv)
    about = {name: headline(path) for name, path in shipped_recipes().items()}
    if options.json:
        print(json.dumps({"recipes": about}))
    else:
        show_pairs("shipped recipes: shortrun train NAME", about)


def _techniques(argv: list[str]) -> None:
    about = "List the techniques that a recipe can switch on, with their switches and costs."
    options = tyro.cli(Common, prog="shortrun techniques", description=about, args=argv)
    found = techniques()
    if options.json:
        print(json.dumps({"techniques": [dataclasses.asdict(one) for one in found]}))
        return
    show_techniques(found)


def _cache(argv: list[str]) -> None:
    options = tyro.cli(Cache, prog="shortrun cache", args=argv)
    if options.clear:
        cache.clear()
    found = list(cache.entries())
    if options.json:
        entries = [{**dataclasses.asdict(entry), "path": str(entry.path)} for entry in found]
        print(json.dumps({"root": str(cache.cache_root()), "entries": entries}))
        return
    show_cache(cache.cache_root(), found)
