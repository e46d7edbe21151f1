"""`shortrun page`: the playground of one run as one HTML file."""

from __future__ import annotations

import json

import tyro
from rich.console import Console

from shortrun.cli.options import Page
from shortrun.cli.output import say
from shortrun.view.charts import altair_library


def page(argv: list[str]) -> None:
    options = tyro.cli(Page, prog="shortrun page", args=argv)
    altair_library()  # what it lacks is better said before a model is read
    from shortrun.serve.page import write_page

    with Console(stderr=True, highlight=False).status("reading the run"):
        made = write_page(options.run, options.file)
    for note in made.notes:
        say(note)
    if options.json:
        print(json.dumps(made.as_dict()))
        return
    print(
        f"{made.path}: {made.bytes / 1e6:.1f} MB, {made.parameters:,} parameters of step {made.step:,}, {made.titles:,} titles"
    )
    print("open it with a browser; it needs no network")
