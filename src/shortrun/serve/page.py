"""`shortrun page`: one run's playground as one HTML file, which opens from disk with no server and asks nobody for anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortrun import __version__
from shortrun.disk import write_atomically
from shortrun.errors import UserError
from shortrun.model.language_model import LanguageModel
from shortrun.report.subjects import NamedRun
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import Trained
from shortrun.score.evaluate import document_nats
from shortrun.score.losses import EOS_CHARACTERS
from shortrun.serve.answers import run_sections
from shortrun.serve.documents import ScoredDocuments
from shortrun.serve.models import Models, ServedRun
from shortrun.serve.page_html import page_html
from shortrun.serve.page_model import page_model
from shortrun.serve.page_tokenizer import tokenizer_facts
from shortrun.serve.questions import LIMITS, MOST_CHARACTERS
from shortrun.tokens.encoded import EncodedDocuments

CHECKED = 20
"""Titles by which the page checks itself when it opens."""
TOLERANCE = 0.01
"""By which a title's loss there may differ from Python's, in nats per character."""
MOST_TITLES, MOST_TITLE_BYTES = 2_000, 300_000
"""Of the validation documents that the page holds."""
UNREADABLE = "The run's documents could not be read when this page was made."


@dataclass(frozen=True)
class Page:
    """What `shortrun page` tells."""

    path: Path
    bytes: int
    step: int
    parameters: int
    titles: int
    """Validation documents inside."""
    rounding: float
    """The largest difference that float16 makes to a checked title's loss, in nats per character."""
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {**asdict(self), "path": str(self.path), "notes": list(self.notes)}


@dataclass(frozen=True)
class Titles:
    """The documents of a page."""

    documents: list[dict[str, Any]]
    """Hardest first, as `ScoredDocuments.document` tells of them."""
    note: str
    """Which of the run's they are, and what they lack."""
    checked: tuple[str, ...]


def write_page(run: Path, file: Path) -> Page:
    """Writes the page of a run's newest checkpoint.

    Raises UserError, before anything is written, for a recipe that it can't hold and a place where it can't be.
    """
    _require_place(file, run)
    served = Models.load([run]).runs[0]
    titles, notes = _titles(served)
    facts, weights, rounding = page_content(served.newest, titles)
    sections = run_sections([NamedRun(served.name, served.folder)])
    for block in (block for section in sections for block in section["blocks"]):
        block.pop("command", None)  # it names folders of this machine
    html = page_html({**facts, "run": _run(served), "sections": sections}, weights, served.name).encode()
    try:
        write_atomically(file, html)
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror or error}") from None
    parameters, notes = served.newest.model.count_parameters(), (*served.newest.notes, *notes)
    return Page(file, len(html), served.newest.step, parameters, len(titles.documents), rounding, notes)


def page_content(trained: Trained, titles: Titles) -> tuple[dict[str, Any], bytes, float]:
    """The facts of a page without its run and sections, the packed weights, and what float16 does to a loss at most.

    Raises UserError for a model or a tokenizer that a page can't hold, and where float16 moves a loss too far.
    """
    tokenizer, model = tokenizer_facts(trained.tokenizer), page_model(trained)
    texts = titles.checked
    ids = list(trained.tokenizer.encode_losslessly(texts))
    losses_D = _losses(trained, trained.model, texts, ids)
    rounding = float(np.abs(_losses(trained, model.rounded, texts, ids) - losses_D).max(initial=0))
    if not rounding <= TOLERANCE:
        raise UserError(
            f"A page can't hold this model: with weights in float16 a title's loss moves by {rounding:.2g} nats per character, "
            f"and {TOLERANCE} is allowed"
        )
    checks = [
        {"text": text, "ids": each, "loss": loss}
        for text, each, loss in zip(texts, ids, losses_D.tolist(), strict=True)
    ]
    facts = {
        "version": __version__,
        "limits": LIMITS,
        "model": model.facts,
        "tokenizer": tokenizer,
        "parity": {"titles": checks, "most": TOLERANCE},
        "titles": {"documents": titles.documents, "note": titles.note},
    }
    return facts, model.weights, rounding


def spread(order_D: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of some numbers: a third from either end, and the rest evenly from between, in their order."""
    D = len(order_D)
    if most >= D:
        return order_D
    end = most // 3
    between = np.linspace(end, D - end - 1, most - 2 * end).astype(np.int64)
    chosen: NDArray[np.int64] = order_D[np.concatenate([np.arange(end), between, np.arange(D - end, D)])]
    return chosen


def _losses(
    trained: Trained, model: LanguageModel, texts: Sequence[str], ids: Sequence[list[int]]
) -> NDArray[np.float64]:
    """The loss of each text by itself, as `score/losses.py` defines it."""
    with trained.computing():
        nats_D = document_nats(model, EncodedDocuments.of(ids, trained.tokenizer.eos))
    losses_D: NDArray[np.float64] = nats_D / np.array([len(text) + EOS_CHARACTERS for text in texts])
    return losses_D


def _titles(served: ServedRun) -> tuple[Titles, tuple[str, ...]]:
    """The run's documents; of a run whose documents can't be read, none, and the page is checked by what the model writes."""
    try:
        scored = ScoredDocuments.of(served.folder)
    except UserError as error:
        trained = served.newest
        written = trained.sample(prefix="", count=CHECKED, temperature=1.0, seed=0)
        texts = [text for text in written if trained.tokenizer.gives_back(text, trained.tokenizer.encode(text))]
        return Titles([], UNREADABLE, tuple(texts)), (f"The page has no titles to browse: {error}",)
    found = [scored.document(number) for number in spread(scored.order_D, MOST_TITLES).tolist()]
    found = [each for each in found if len(each["text"]) <= MOST_CHARACTERS]
    size = sum(len(each["text"].encode()) for each in found)
    if size > MOST_TITLE_BYTES:
        kept = spread(np.arange(len(found)), int(len(found) * MOST_TITLE_BYTES / size))
        found = [found[at] for at in kept.tolist()]
    note = scored.note
    if len(found) < len(scored.documents):
        which = "the hardest, the easiest and some from between" if scored.nats else "some of them"
        note = f"{note} The run has {len(scored.documents):,}; this page holds {which}.".strip()
    checked = np.unique(np.linspace(0, max(len(found) - 1, 0), min(CHECKED, len(found))).astype(int))
    return Titles(found, note, tuple(found[at]["text"] for at in checked.tolist())), ()


def _run(served: ServedRun) -> dict[str, Any]:
    """What the page is told of its run: nothing that names a folder of this machine, and no other checkpoints."""
    told = {name: value for name, value in served.as_dict().items() if name not in ("path", "notes")}
    return {**told, "steps": [served.newest.step], "alone": True}


def _require_place(file: Path, run: Path) -> None:
    RunFolder.open(run)
    if file.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{file} is no .html file, and browsers go by the name: give it that ending")
    if file.is_dir() or not file.parent.is_dir():
        what = "is a folder" if file.is_dir() else f"can't be written: there is no folder {file.parent}"
        raise UserError(f"{file} {what}")
    if run.resolve() in file.resolve().parents:
        raise UserError(f"{file} is inside the run, which only training writes: choose another folder")
