"""`shortrun predict`: what a run's model expects behind a text, and how surprising each token of the text was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.bar import Bar
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shortrun.cli.options import Predict, utf8
from shortrun.cli.output import say, show
from shortrun.errors import ShortrunError, UserError, counted, positive
from shortrun.text.visible import shown_token, visible

if TYPE_CHECKING:  # these import torch
    from shortrun.runs.trained import Trained
    from shortrun.view.diagnosis import Diagnosis
    from shortrun.view.reading import Guess, Reading, ReadToken

COLOURS = ((1.0, "green"), (3.0, "cyan"), (6.0, "yellow"), (float("inf"), "bold red"))
"""Of a token by its surprisal: below so many nats."""
WIDTH = 30
"""Letters of the longest bar."""
MOST = 100
"""Tokens that are shown: the last ones that were read. --json has them all."""


def predict(argv: list[str]) -> None:
    options = tyro.cli(Predict, prog="shortrun predict", args=argv)
    top, text = positive(options.top, "--top") or 1, utf8(options.text, "TEXT")
    for flag, number in (("--val", options.val), ("--at", options.at)):
        if number is not None and number < 0:
            raise UserError(f"{flag} {number} must be at least 0")
    if text and options.val is not None:
        raise UserError("TEXT and --val both say what to read: give one of them")
    from shortrun.api import load
    from shortrun.view.charts import require_chart, save

    require_chart(options.chart)
    run = load(options.run)
    for note in run.notes:
        say(note)
    if options.val is not None:
        text = _validation_document(options.run, options.val)
    reading = run.predict(text, top=top)
    if options.at is not None and options.at >= len(reading.tokens):
        raise UserError(
            f"--at {options.at}: the text has {counted(len(reading.tokens) - 1, 'token')}, so the end comes at "
            f"{len(reading.tokens) - 1}"
        )
    if options.chart:
        from shortrun.view.reading_charts import reading_chart

        save(reading_chart(reading, options.at), options.chart)
    found = _diagnosis(options.run, run.trained) if options.diagnose else None
    if options.json:
        told = {"run": str(options.run), "validation_document": options.val, **reading.as_dict(options.at)}
        if options.diagnose:
            told["diagnosis"] = found.as_dict() if found else None
        print(json.dumps(told))
        return
    show_reading(reading, options.at)
    if found:
        show_diagnosis(found)


def _validation_document(run: Path, number: int) -> str:
    from shortrun.runs.folder import RunFolder

    documents = RunFolder.open(run).corpus().split("validation")
    if number >= len(documents):
        raise UserError(f"--val {number}: there are {len(documents):,} validation documents, 0 to {len(documents) - 1}")
    return documents[number]


def _diagnosis(run: Path, trained: Trained) -> Diagnosis | None:
    """None, and a sentence on standard error, where the run's documents can't be read any more."""
    from shortrun.runs.folder import RunFolder
    from shortrun.view.diagnosis import diagnose

    try:
        return diagnose(trained, RunFolder.open(run).corpus())
    except ShortrunError as error:
        say(f"No diagnosis, because it needs the run's documents. {error}")
        return None


def show_reading(reading: Reading, at: int | None) -> None:
    """The text in colours, its tokens, and what the model expects behind them."""
    told = reading.tokens[:at]
    read = told[-MOST:]
    console = Console(highlight=False, soft_wrap=True)
    if read:
        line = Text("… " if len(read) < len(told) else "")
        for token in read:
            text = token.token if token is reading.tokens[-1] else visible(token.text)
            line.append(text, style=_colour(token.surprisal))
        console.print(line)
        console.print(_legend())
        show(_tokens(read, f"the last {MOST} of {len(told):,} tokens" if len(read) < len(told) else "its tokens"))
    print(
        f"whole text: {reading.nats:.2f} nats, {reading.loss:.4f} nats per character "
        f"({counted(reading.characters, 'character')}, the end counted as 5)"
    )
    show(_bars("what comes next" if read else "what comes first", reading.guesses_at(at)))
    if at is not None:
        actual = reading.tokens[at]
        line = Text("what really came: ").append(shown_token(actual.token), style="bold")
        console.print(line.append(f", number {actual.rank} with a probability of {_percent(actual.probability)}"))


def show_diagnosis(found: Diagnosis) -> None:
    print(
        f"{found.verdict}\n"
        f"  {found.nats_per_token:.3f} nats per token, by frequencies alone {found.frequency_nats_per_token:.3f}; over the "
        f"first {found.documents:,} of {found.validation_documents:,} validation documents, {found.tokens:,} tokens\n"
        f"  <eos> is the top prediction at {found.top_is_end:.1%} of them, and comes at {found.ends:.1%}\n"
        f"  distance from the frequencies (total variation, 0 to 1): the average prediction {found.average_distance:.2f}, "
        f"single predictions {found.distance:.2f}"
    )


def _tokens(read: Sequence[ReadToken], title: str) -> Table:
    table = Table(box=SIMPLE, title_justify="left", title=title)
    table.add_column("token")
    for heading in ("nats", "probability", "rank"):
        table.add_column(heading, justify="right")
    table.add_column("surprisal")
    table.add_column("expected instead")
    most = max(token.surprisal for token in read)
    for token in read:
        best = token.guesses[0]
        instead = "" if token.rank == 1 else f"{shown_token(best.token)}  {_percent(best.probability)}"
        colour = _colour(token.surprisal)
        table.add_row(
            Text(shown_token(token.token), style=colour),
            f"{token.surprisal:.2f}",
            _percent(token.probability),
            f"{token.rank:,}",
            _bar(token.surprisal, most, colour),
            Text(instead),
        )
    return table


def _bars(title: str, guesses: Sequence[Guess]) -> Table:
    table = Table(box=SIMPLE, title_justify="left", title=title, show_header=False)
    for guess in guesses:
        share = _percent(guess.probability)
        table.add_row(Text(shown_token(guess.token)), share, _bar(guess.probability, guesses[0].probability, "cyan"))
    return table


def _bar(value: float, most: float, colour: str) -> Bar:
    return Bar(size=most or 1, begin=0, end=value, width=WIDTH, color=colour.removeprefix("bold "))


def _colour(surprisal: float) -> str:
    return next(colour for below, colour in COLOURS if surprisal < below)


def _legend() -> Text:
    line, above = Text("surprisal in nats: "), 0.0
    for below, colour in COLOURS:
        line.append(f"{above:g} to {below:g}" if below < float("inf") else f"{above:g} and more", style=colour)
        line.append("  ")
        above = below
    return line


def _percent(probability: float) -> str:
    return f"{probability:.1%}" if probability >= 0.001 else f"{probability:.1e}"
