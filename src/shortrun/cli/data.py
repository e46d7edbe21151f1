"""`shortrun data`: what a recipe's data is; a corpus prepared from files; what preparing it did."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import tyro

from shortrun.cli.dispatch import Command, chosen
from shortrun.cli.options import DataPrepare, DataShow, recipe_command
from shortrun.cli.output import show_data
from shortrun.cli.signals import StoppedAtOnce, catching
from shortrun.errors import UserError, positive

USAGE = """usage: shortrun data info RECIPE [--data.path FILE ...]          what a recipe's data is
       shortrun data prepare FILE [--root DIR] [--out DIR]       make a corpus from files of text or HTML
       shortrun data show FOLDER [--html FILE] [--examples N]    what is in it, and what each step rejected

FILE is a corpus file's shipped name or a TOML file (docs/corpora.md)."""


def data(argv: list[str]) -> None:
    actions: dict[str, Command] = {"info": _info, "prepare": _prepare, "show": _show}
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    chosen(actions, argv[0], "data")(argv[1:])


def _info(argv: list[str]) -> None:
    options, recipe = recipe_command(
        "data info",
        "Show what a recipe's data is: counts, splits, duplicates, what cleaning changed, fingerprints.",
        argv,
        {},
    )
    from shortrun.text.corpus import load_corpus

    manifest = load_corpus(recipe.data).manifest
    if options.json:
        print(json.dumps(manifest))
        return
    show_data(manifest)


def _prepare(argv: list[str]) -> None:
    options = tyro.cli(DataPrepare, prog="shortrun data prepare", args=argv)
    from shortrun.cli.data_display import Preparing, show_corpus
    from shortrun.pipeline.corpus_file import load_corpus_file
    from shortrun.pipeline.prepare import prepare_corpus
    from shortrun.pipeline.runner import Crew

    name, file = load_corpus_file(options.file, {"root": options.root})
    out = options.out or Path(file.out or Path("corpora") / name)
    workers = positive(options.workers, "--workers") or os.cpu_count() or 1
    with (
        Preparing() as display,
        catching(display.say, "Finishing the pieces in hand; once more to stop at once.") as stop,
    ):
        try:
            manifest = prepare_corpus(name, file, out, Crew(workers, display, stop), replace=options.replace)
        except KeyboardInterrupt:
            raise StoppedAtOnce("Stopped at once; the same command goes on from the finished pieces") from None
    if options.json:
        print(json.dumps(manifest))
        return
    show_corpus(out, manifest, examples=0)


def _show(argv: list[str]) -> None:
    options = tyro.cli(DataShow, prog="shortrun data show", args=argv)
    from shortrun.cli.data_display import show_corpus
    from shortrun.text.prepared import open_manifest

    if options.examples < 0:
        raise UserError(f"--examples {options.examples} must be at least 0")
    manifest = open_manifest(options.folder)
    if options.html:
        _write_page(options.folder, manifest, options.examples, argv, options.html)
    if options.json:
        print(json.dumps(manifest))
        return
    if options.html:
        return
    show_corpus(options.folder, manifest, options.examples)


def _write_page(folder: Path, manifest: dict[str, Any], examples: int, argv: list[str], path: Path) -> None:
    from shortrun.report.corpus import write_corpus_page

    command = shlex.join(["shortrun", "data", "show", *argv])
    try:
        shown = write_corpus_page(folder, manifest, examples, command, path)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror or error}") from None
    fewer = f" with {shown} examples of each reason, because more would make it too large" if shown < examples else ""
    print(f"wrote {path}{fewer}", file=sys.stderr)
