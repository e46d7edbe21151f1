"""Looking into the models: what they expect, what they have learnt, what they write."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from shortrun.errors import ShortrunError, counted
from shortrun.report.blocks import Block, Code, Figure, Items, Paragraph, Section, Table
from shortrun.report.names import anchor
from shortrun.report.plain import spec
from shortrun.report.subjects import NamedRun, Split
from shortrun.report.tokenizer_section import tokenizer_section
from shortrun.runs.trained import Trained, load_trained
from shortrun.score.evaluate import ScoringSet
from shortrun.text.corpus import Corpus
from shortrun.text.visible import shown_token
from shortrun.view.diagnosis import Diagnosis, diagnose
from shortrun.view.diagnosis_chart import frequencies_chart
from shortrun.view.reading import Guess, Reading, read_each
from shortrun.view.reading_charts import next_chart

TITLES = 3
"""Validation documents whose predictions are shown."""
TOP = 10
SAMPLES = 10
LONGEST = 200
"""Letters of a document that are shown."""


@dataclass(frozen=True)
class Looked:
    """A model that is looked into, with its run's documents."""

    run: NamedRun
    trained: Trained
    corpus: Corpus

    @property
    def name(self) -> str:
        return self.run.name


def model_sections(chosen: Sequence[NamedRun], split: Split, command: str) -> Iterator[Section]:
    """Predictions, frequencies and samples of one run's model, or of two beside each other.

    The last run is what the report is about. The first is beside it only where it was scored on the same documents.
    """
    notes: list[str] = []
    models = [(run, trained) for run in chosen if (trained := _loaded(run, notes))]
    looked = [
        Looked(run, trained, corpus)
        for run, trained in models
        if (corpus := _corpus(run, notes)) and split in corpus.ranges
    ]
    same = [each for each in looked if _sha256(each, split) == _sha256(looked[-1], split)]
    notes += [
        f"{each.name} is not looked into here, because its {split} documents are not those of {looked[-1].name}."
        for each in looked
        if each not in same
    ]
    told = [Paragraph(note) for note in notes]
    if not same:
        yield Section("Predictions", (*told, Paragraph("No model can be looked into together with its documents.")))
    else:
        last = same[-1]
        yield Section.of("Predictions", chain(told, _predictions(same, split, command)))
        yield Section.of("Token frequencies", _frequencies(same, split, command))
        yield tokenizer_section(last.run, last.trained, last.corpus, split, command)
        if split == "validation" and "heldout" in last.corpus.ranges:
            yield Section.of("Held-out documents", _heldout(same))
    if models:
        yield Section.of("Samples", _samples(*models[-1]))


def _loaded(run: NamedRun, notes: list[str]) -> Trained | None:
    """The model of a run's newest whole checkpoint, with what has to be said of it; None where there is none."""
    try:
        trained = load_trained(run.folder.path)
    except ShortrunError as error:
        notes.append(f"The model of {run.name} can't be read: {error}")
        return None
    notes += [f"{run.name}: {note}." for note in trained.notes]
    if not run.finished or trained.step != run.steps:
        notes.append(f"The model of {run.name} is that of step {trained.step:,}.")
    return trained


def _corpus(run: NamedRun, notes: list[str]) -> Corpus | None:
    try:
        return run.folder.corpus()
    except ShortrunError as error:
        notes.append(f"The documents of {run.name} can't be read any more: {error}")
        return None


def _sha256(looked: Looked, split: Split) -> str:
    """Of the documents that its model is shown."""
    return str(looked.corpus.manifest["splits"][split]["sha256"])


def _predictions(models: Sequence[Looked], split: Split, command: str) -> Iterator[Block]:
    documents = models[-1].corpus.split(split)
    titles = [documents[index] for index in range(min(TITLES, len(documents)))]
    yield Paragraph(
        f"The first {counted(len(titles), f'{split} document')}, each read to its middle. Bars are the likeliest next tokens "
        "(\N{OPEN BOX} is a space). The green one is what came next; "
        f"where it is not among the {TOP} likeliest, it is the last bar, below them."
    )
    readings: dict[str, list[Reading]] = {}
    for model in models:
        try:
            readings[model.name] = read_each(model.trained, titles, TOP)
        except ShortrunError as error:
            yield Paragraph(f"{model.name} can't read them: {error}")
    for number in range(len(titles) if readings else 0):
        each = {name: found[number] for name, found in readings.items()}
        # each in its own tokens: tokenizers differ in where a token ends, and in what its id stands for
        middles = {name: reading.tokens[_middle(reading)] for name, reading in each.items()}
        told = [
            f"{name} reads “{_text(reading)}”; then comes {shown_token(middles[name].token)}, which it gives "
            f"{_share(middles[name].probability)} (place {middles[name].rank:,})"
            for name, reading in each.items()
        ]
        chart = next_chart(
            {name: token.guesses for name, token in middles.items()},
            {name: Guess(token.id, token.token, token.probability) for name, token in middles.items()},
        )
        yield Figure(
            name=anchor("prediction", str(number)),
            caption=". ".join(told) + ".",
            chart=spec(chart),
            runs=tuple(readings),
            command=command,
        )
    if readings:
        rows = tuple(
            (title[:LONGEST], *(f"{found[number].loss:.3f}" for found in readings.values()))
            for number, title in enumerate(titles)
        )
        yield Table(("document", *readings), rows, caption="Nats per character of each document")


def _frequencies(models: Sequence[Looked], split: Split, command: str) -> Iterator[Block]:
    found: dict[str, Diagnosis] = {each.name: diagnose(each.trained, each.corpus, split=split) for each in models}
    yield Items(tuple((name, each.verdict) for name, each in found.items()))
    yield Figure(
        name="frequencies",
        caption=(
            "The tokens that are most frequent in a run's training documents: their share there, and the mean of the "
            f"probabilities that the run's model gave them on {split} documents. A good model's mean comes near the frequencies; "
            "its single predictions do not."
        ),
        chart=spec(frequencies_chart({name: each.most_frequent for name, each in found.items()})),
        runs=tuple(found),
        command=command,
    )
    rows = tuple(
        (
            name,
            f"{each.tokens:,}",
            f"{each.top_is_end:.2%}",
            f"{each.ends:.2%}",
            f"{each.average_distance:.3f}",
            f"{each.distance:.3f}",
            f"{each.nats_per_token:.3f}",
            f"{each.frequency_nats_per_token:.3f}",
        )
        for name, each in found.items()
    )
    yield Table(
        (
            "run", "tokens", "end is likeliest", "end comes", "distance of the mean", "distance of single ones", "nats per token",
            "by frequencies alone",
        ),
        rows,
        caption=(
            f"Over the tokens of the first {split} documents; distances are total variation from the frequencies of tokens in the "
            "run's training documents"
        ),
    )  # fmt: skip


def _heldout(models: Sequence[Looked]) -> Iterator[Block]:
    yield Paragraph(
        "Documents that no choice was made on. A loss far above that on the validation documents says that a search has been "
        "fitted to those."
    )
    rows = []
    corpus = models[-1].corpus
    for each in models:
        scoring = ScoringSet.of_split(corpus, "heldout", each.trained.tokenizer)
        with each.trained.computing():
            found = scoring.evaluate(each.trained.model, each.trained.recipe.batches)
        low, high = found.interval()
        validation = each.run.loss("validation")
        told = "-" if validation is None else f"{validation:.4f}"
        rows.append((each.name, f"{found.loss.loss:.4f}", f"{low:.4f} to {high:.4f}", told))
    documents = counted(len(corpus.split("heldout")), "held-out document")
    yield Table(("run", "loss", "95 % interval", "on validation"), tuple(rows), caption=documents)


def _samples(run: NamedRun, trained: Trained) -> Iterator[Block]:
    documents = trained.sample(prefix="", count=SAMPLES, temperature=1.0, seed=0)
    yield Paragraph(f"What {run.name} writes, unselected:")
    yield Code("\n".join(" ".join(document.split())[:LONGEST] for document in documents))
    yield Code(shlex.join(["shortrun", "sample", str(run.folder.path), "--n", str(SAMPLES), "--seed", "0"]))


def _middle(reading: Reading) -> int:
    """The place of the token at which half of the text has been read."""
    read = 0
    for at, token in enumerate(reading.tokens):
        if read >= len(reading.text) / 2:
            return at
        read += len(token.text)
    return len(reading.tokens) - 1


def _text(reading: Reading) -> str:
    """What has been read until the middle."""
    return "".join(token.text for token in reading.tokens[: _middle(reading)])[-LONGEST:]


def _share(probability: float) -> str:
    """A probability in percent, small ones with two digits that say something."""
    return f"{probability:.1%}" if probability >= 0.001 else f"{100 * probability:.1g}%"
