"""How good a run's checkpoints are on some documents: losses with intervals, the hardest and easiest, overlap.

shortrun eval RUN                                the validation documents, the newest checkpoint
shortrun eval RUN --data.path FILE --all         documents of yours, every checkpoint the run has kept
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shortrun.errors import ShortrunError
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import load_checkpoints
from shortrun.score.evaluate import Evaluation, ScoringSet
from shortrun.text.corpus import Corpus
from shortrun.text.documents import Documents


@dataclass(frozen=True)
class Report:
    """What `shortrun eval` shows."""

    run: Path
    documents: Documents
    evaluations: dict[int, Evaluation]
    """By the step of the checkpoint, the newest last."""
    share_in_training: float | None
    """Share of the documents that were trained on too; None where the training documents can't be read any more."""
    notes: tuple[str, ...]

    @property
    def newest(self) -> Evaluation:
        return self.evaluations[max(self.evaluations)]

    def extremes(self, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The hardest and the easiest documents under the newest checkpoint, by nats per character."""
        nats_D, characters_D = self.newest.nats_D, self.newest.characters_D
        order = np.argsort(nats_D / characters_D, kind="stable")
        hardest, easiest = order[::-1][:count], order[:count]
        return tuple(  # type: ignore[return-value]
            [
                {
                    "document": self.documents[index],
                    "nats": float(nats_D[index]),
                    "loss": float(nats_D[index] / characters_D[index]),
                }
                for index in map(int, chosen)
            ]
            for chosen in (hardest, easiest)
        )

    def as_dict(self, show: int) -> dict[str, Any]:
        """What `shortrun eval --json` prints: the newest checkpoint's losses at the top, a row for each that was scored."""
        rows = [_row(step, evaluation) for step, evaluation in sorted(self.evaluations.items())]
        hardest, easiest = self.extremes(show)
        return {
            "run": str(self.run),
            **rows[-1],
            "checkpoints": rows,
            "hardest": hardest,
            "easiest": easiest,
            "share_in_training": self.share_in_training,
        }


def evaluate_run(
    path: Path, documents: Documents | None = None, *, split: str = "validation", every: bool = False
) -> Report:
    """Scores a run on documents, or on one of its own splits; `every` checkpoint that it has kept, or the newest."""
    models = load_checkpoints(path, every=every)
    newest = models[-1]
    corpus: Corpus | None = None
    try:
        corpus = RunFolder.open(path).corpus()
    except ShortrunError:
        if documents is None:
            raise
        corpus = None  # other documents can be scored without the run's own
    if documents is None:
        assert corpus is not None
        scoring = ScoringSet.of_split(corpus, split, newest.tokenizer)
    else:
        scoring = ScoringSet.of(documents, newest.tokenizer)
    with newest.computing():
        evaluations = {trained.step: scoring.evaluate(trained.model, newest.recipe.batches) for trained in models}
    return Report(
        run=path,
        documents=scoring.documents,
        evaluations=evaluations,
        share_in_training=scoring.documents.also_in(corpus.split("train")) / len(scoring.documents) if corpus else None,
        notes=newest.notes,
    )


def _row(step: int, evaluation: Evaluation) -> dict[str, Any]:
    """One checkpoint's losses. `exp_loss` is what some reports call perplexity: exp of the official loss."""
    official = evaluation.official.loss
    return {
        "step": step,
        **evaluation.as_dict(),
        "interval": evaluation.interval(),
        "exp_loss": math.exp(official) if official < 700 else None,  # beyond, no float holds it
    }
