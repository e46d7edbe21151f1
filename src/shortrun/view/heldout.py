"""How good a run's checkpoints are on some titles: losses with intervals, the hardest and easiest titles, overlap.

shortrun eval RUN                                the validation titles, the newest checkpoint
shortrun eval RUN --data.path FILE --all         titles of yours, every checkpoint the run has kept
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shortrun.errors import ShortrunError
from shortrun.score.evaluate import ScoringSet
from shortrun.score.intervals import bootstrap_interval
from shortrun.score.losses import EOS_CHARACTERS
from shortrun.text.corpus import Corpus, load_corpus
from shortrun.train.folder import RunFolder
from shortrun.train.trained import Trained, load_checkpoints


def evaluate_run(
    path: Path, titles: Sequence[str] | None, *, split: str = "validation", every: bool = False, show: int = 5
) -> dict[str, Any]:
    """Scores a run on titles (or on one of its own splits) and returns what `shortrun eval --json` prints.

    The newest checkpoint's losses stand at the top; `checkpoints` has a row for each that was scored. `show` titles are
    given as the hardest and the easiest, by nats per character.
    """
    models = load_checkpoints(path, every=every)
    newest = models[-1]
    corpus: Corpus | None = None
    try:
        corpus = load_corpus(newest.recipe.data)
        RunFolder.open(path).require_same_data(corpus.manifest)
    except ShortrunError:
        if titles is None:
            raise
        corpus = None  # other titles can be scored without the run's own
    if titles is None:
        assert corpus is not None
        titles = corpus.split(split).titles
    scoring = ScoringSet(newest.tokenizer, titles)
    characters = np.array([len(title) + EOS_CHARACTERS for title in titles])
    rows, nats = [], np.zeros(0)
    for trained in models:
        nats = scoring.title_nats(trained.model)
        rows.append(_row(trained, scoring, nats, characters))
    order = np.argsort(nats / characters, kind="stable")
    result = {"run": str(path), **rows[-1], "checkpoints": rows}
    result["hardest"] = [_title(titles, nats, characters, index) for index in order[::-1][:show]]
    result["easiest"] = [_title(titles, nats, characters, index) for index in order[:show]]
    result["share_in_training"] = _share_in_training(titles, corpus)
    return result


def _row(trained: Trained, scoring: ScoringSet, nats: Any, characters: Any) -> dict[str, Any]:
    """One checkpoint's losses. `exp_loss` is what some reports call perplexity: exp of the official loss."""
    geometry = trained.recipe.batches
    loss = scoring.summed(nats)
    official = scoring.official_loss(trained.model, block_size=geometry.block_size, batch_size=geometry.batch_size)
    return {
        "step": trained.step,
        **loss.as_dict(),
        "interval": bootstrap_interval(nats, characters),
        "official_loss": official.loss,
        "coverage": official.coverage,
        "exp_loss": math.exp(official.loss) if official.loss < 700 else None,  # beyond, no float holds it
    }


def _title(titles: Sequence[str], nats: Any, characters: Any, index: int) -> dict[str, Any]:
    return {"title": titles[index], "nats": float(nats[index]), "loss": float(nats[index] / characters[index])}


def _share_in_training(titles: Sequence[str], corpus: Corpus | None) -> float | None:
    """Share of the titles that were trained on too; None where the training titles can't be read any more."""
    if corpus is None:
        return None
    known = set(corpus.train.titles)
    return sum(title in known for title in titles) / len(titles)
