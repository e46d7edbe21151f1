"""Looking into the models: what they expect, what they have learnt, what they write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shortrun.errors import ShortrunError
from shortrun.report.blocks import Block, Code, Figure, Items, Paragraph, Section, Table
from shortrun.report.names import anchor
from shortrun.report.subjects import NamedRun
from shortrun.report.tokenizer_section import tokenizer_section
from shortrun.runs.trained import Trained
from shortrun.score.evaluate import ScoringSet
from shortrun.text.corpus import Corpus
from shortrun.text.visible import shown_token
from shortrun.view.diagnosis import Diagnosis, diagnose
from shortrun.view.diagnosis_chart import frequencies_chart
from shortrun.view.reading import Reading, read_each
from shortrun.view.reading_charts import next_chart

TITLES = 3
"""Validation documents whose predictions are shown."""
TOP = 10
SAMPLES = 10
LONGEST = 200
"""Letters of a document that are shown."""


def model_sections(models: Sequence[tuple[NamedRun, Trained]], command: str) -> Iterator[Section]:
    """Predictions, frequencies and samples of one model, or of two beside each other."""
    corpus, reason = _corpus(models[-1][0])
    if corpus is None:
        yield Section(
            "Predictions", (Paragraph(f"The run's data can't be read any more, so these are left out: {reason}"),)
        )
    else:
        titles = [corpus.split("validation")[index] for index in range(min(TITLES, len(corpus.split("validation"))))]
        yield Section("Predictions", tuple(_predictions(models, titles, command)))
        yield Section("Token frequencies", tuple(_frequencies(models, corpus, command)))
        yield tokenizer_section(*models[-1], corpus, command)
        if "heldout" in corpus.ranges:
            yield Section("Held-out documents", tuple(_heldout(models, corpus)))
    yield Section("Samples", tuple(_samples(models)))


def _corpus(run: NamedRun) -> tuple[Corpus | None, str]:
    try:
        return run.folder.corpus(), ""
    except ShortrunError as error:
        return None, str(error)


def _predictions(models: Sequence[tuple[NamedRun, Trained]], titles: Sequence[str], command: str) -> Iterator[Block]:
    yield Paragraph(
        f"The first {len(titles)} validation documents, each read to its middle. Bars are the likeliest next tokens "
        "(\N{OPEN BOX} is a space); the green one is what came next."
    )
    readings = {run.name: read_each(trained, titles, TOP) for run, trained in models}
    for number in range(len(titles)):
        each = {name: found[number] for name, found in readings.items()}
        guesses, came, told = {}, None, []
        for name, reading in each.items():
            at = _middle(reading)
            token = reading.tokens[at]
            guesses[name] = token.guesses
            came = token.id
            told.append(
                f"{name} reads “{_text(reading, at)}”; then comes {shown_token(token.token)}, which it gives "
                f"{token.probability:.1%} (place {token.rank:,})"
            )
        yield Figure(
            name=anchor("prediction", str(number)),
            caption=". ".join(told) + ".",
            chart=next_chart(guesses, came).to_dict(),
            runs=tuple(run.name for run, _ in models),
            command=command,
        )
    rows = tuple(
        (title[:LONGEST], *(f"{readings[run.name][number].loss:.3f}" for run, _ in models))
        for number, title in enumerate(titles)
    )
    yield Table(("document", *(run.name for run, _ in models)), rows, caption="Nats per character of each document")


def _frequencies(models: Sequence[tuple[NamedRun, Trained]], corpus: Corpus, command: str) -> Iterator[Block]:
    found: dict[str, Diagnosis] = {run.name: diagnose(trained, corpus) for run, trained in models}
    yield Items(tuple((name, each.verdict) for name, each in found.items()))
    yield Figure(
        name="frequencies",
        caption=(
            "The most frequent tokens of the training documents: their share there, and the average of the probabilities that "
            "the model gave them on validation documents. A good model's average comes near the frequencies; its single "
            "predictions do not."
        ),
        chart=frequencies_chart({name: each.most_frequent for name, each in found.items()}).to_dict(),
        runs=tuple(run.name for run, _ in models),
        command=command,
    )
    rows = tuple(
        (
            name,
            f"{each.top_is_end:.2%}",
            f"{each.ends:.2%}",
            f"{each.average_distance:.3f}",
            f"{each.distance:.3f}",
            f"{each.nats_per_token:.3f}",
            f"{each.frequency_nats_per_token:.3f}",
        )
        for name, each in found.items()
    )
    one = next(iter(found.values()))
    yield Table(
        (
            "run", "end is likeliest", "end comes", "distance of the average", "distance of single ones", "nats per token",
            "by frequencies alone",
        ),
        rows,
        caption=(
            f"Over {one.tokens:,} tokens of {one.documents:,} validation documents; distances are total variation from the "
            "training documents' frequencies"
        ),
    )  # fmt: skip


def _heldout(models: Sequence[tuple[NamedRun, Trained]], corpus: Corpus) -> Iterator[Block]:
    yield Paragraph(
        "Documents that no choice was made on. A loss far above that on the validation documents says that a search has been "
        "fitted to those."
    )
    rows = []
    for run, trained in models:
        scoring = ScoringSet.of_split(corpus, "heldout", trained.tokenizer)
        with trained.computing():
            found = scoring.evaluate(trained.model, trained.recipe.batches)
        low, high = found.interval()
        validation = f"{run.scores['loss']:.4f}" if run.scores else "-"
        rows.append((run.name, f"{found.loss.loss:.4f}", f"{low:.4f} to {high:.4f}", validation))
    documents = f"{len(corpus.split('heldout')):,} held-out documents"
    yield Table(("run", "loss", "95 % interval", "on validation"), tuple(rows), caption=documents)


def _samples(models: Sequence[tuple[NamedRun, Trained]]) -> Iterator[Block]:
    run, trained = models[-1]
    documents = trained.sample(prefix="", count=SAMPLES, temperature=1.0, seed=0)
    yield Paragraph(f"What {run.name} writes, unselected:")
    yield Code("\n".join(" ".join(document.split())[:LONGEST] for document in documents))
    yield Code(f"shortrun sample {run.folder.path} --n {SAMPLES} --seed 0")


def _middle(reading: Reading) -> int:
    """The place of the token at which half of the text has been read."""
    read = 0
    for at, token in enumerate(reading.tokens):
        if read >= len(reading.text) / 2:
            return at
        read += len(token.text)
    return len(reading.tokens) - 1


def _text(reading: Reading, at: int) -> str:
    return "".join(token.text for token in reading.tokens[:at])[-LONGEST:]
