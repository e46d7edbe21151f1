"""What is answered, as plain data: readings, samples as they end, and the report's sections on the runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from shortrun.model.generate import Draw
from shortrun.report.blocks import Section, Table
from shortrun.report.run_section import comparison_section, curves_section, results_section
from shortrun.report.subjects import NamedRun
from shortrun.runs.trained import Trained
from shortrun.serve.models import Models
from shortrun.serve.questions import ReadQuestion, SampleQuestion
from shortrun.tokens.factored import Factored
from shortrun.view.alignment import aligned
from shortrun.view.reading import Guess, Reading, read

SLICE_SECONDS = 0.02
"""For which sampling computes before others get their turn."""


def reading_answer(models: Models, question: ReadQuestion) -> dict[str, Any]:
    """The readings of a text by each reader; of two, their surprisals part by part too.

    On one thread: a headline is too short for two to save time, and where other programs compute too, two wait for each
    other. On two busy cores a 7M model took 18 ms with one and 790 ms with two.
    """
    found: list[tuple[Trained, Reading]] = []
    for reader in question.readers:
        trained = _on_one_thread(models.trained(reader.run, reader.step))
        found.append((trained, read(trained, question.text, question.top)))
    spans = aligned([reading for _, reading in found]) if len(found) > 1 else []
    return {
        "readings": [
            {"run": reader.run, **_reading(trained, reading)}
            for reader, (trained, reading) in zip(question.readers, found, strict=True)
        ],
        "spans": [{"text": span.text, "nats": span.nats} for span in spans],
    }


def _on_one_thread(trained: Trained) -> Trained:
    return replace(trained, recipe=trained.recipe.changed("train", threads=1))


def _reading(trained: Trained, reading: Reading) -> dict[str, Any]:
    ids = [token.id for token in reading.tokens]
    tokens = [
        {**token.as_dict(), "guesses": [_guess(trained, guess, ids[:at]) for guess in token.guesses]}
        for at, token in enumerate(reading.tokens)
    ]
    told = {"step": reading.step, "nats": reading.nats, "characters": reading.characters, "loss": reading.loss}
    return {**told, "tokens": tokens}


def _guess(trained: Trained, guess: Guess, before: Sequence[int]) -> dict[str, Any]:
    """A guess, with the text that it adds to the ids before: None where that is a part of a character, a mark, or the
    document's end."""
    tokenizer = trained.tokenizer
    special = guess.id in (tokenizer.eos, tokenizer.pad, tokenizer.unk)
    text = None
    if not special and not tokenizer.is_fallback(guess.id):
        text = tokenizer.text_after(before, guess.id)
        if not text and isinstance(tokenizer, Factored):  # a mark
            text = None
    told = {"id": guess.id, "token": guess.token, "probability": guess.probability}
    return {**told, "text": text, "end": guess.id == tokenizer.eos}


class Sampling:
    """New documents as they end: those that `shortrun sample` writes too, a moment of computing at a time."""

    def __init__(self, models: Models, question: SampleQuestion) -> None:
        self.models, self.question = models, question
        self._steps: Iterator[list[tuple[int, str]]] | None = None

    def go_on(self) -> tuple[list[dict[str, Any]], bool]:
        """Computes for a moment. The documents that have ended in it, and whether there are more to come.

        Raises UserError, the first time, for a checkpoint that is gone and for a prefix that can't be given back.
        """
        if self._steps is None:
            asked = self.question
            trained = self.models.trained(asked.run, asked.step)
            draw = Draw(asked.temperature, asked.top_k, asked.top_p)
            self._steps = trained.sample_steps(prefix=asked.prefix, count=asked.count, draw=draw, seed=asked.seed)
        begun = time.monotonic()
        for ended in self._steps:
            if ended or time.monotonic() - begun > SLICE_SECONDS:
                return [{"number": number, "text": text} for number, text in ended], True
        return [], False


def run_sections(runs: Sequence[NamedRun]) -> list[dict[str, Any]]:
    """The report's curves, results and comparison of the runs."""
    command = "shortrun report " + " ".join(str(run.folder.path) for run in runs)
    sections = [curves_section(runs, "validation", command), results_section(runs, "validation")]
    if len(runs) > 1:
        sections.append(comparison_section(runs[0], runs[1], "validation"))
    return [_section(section) for section in sections]


def _section(section: Section) -> dict[str, Any]:
    blocks = []
    for block in section.blocks:
        more = {"right": block.right} if isinstance(block, Table) else {}
        blocks.append({"kind": type(block).__name__.lower(), **asdict(block), **more})
    return {"title": section.title, "blocks": blocks}
