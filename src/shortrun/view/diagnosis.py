"""Has a model learnt more than how frequent each token is?

A model that has not still gets a loss that looks like learning: on HN-100k, token frequencies alone make 1.742 nats per
character, and the loss of a run begins above 2. Two signs are often looked for by hand: the top prediction is always the
same token, such as <eos>, and the average prediction is that of plain frequencies. The first shows such a model. The second
shows nothing, because a good model's predictions average to the frequencies too. What tells them apart is how far each
single prediction is from the frequencies, and how much better it is.

Shapes: C targets at a time, V vocabulary.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from shortrun.runs.trained import Trained
from shortrun.score.predictions import predictions
from shortrun.text.corpus import Corpus
from shortrun.tokens.encoded import EncodedDocuments, encoded_split

TARGETS = 20_000
"""About so many tokens of the first validation documents are looked at: 1,400 Hacker News titles, a few seconds on a core."""
SHOWN = 20
LITTLE = 0.05
"""A gain below this is no more than frequencies give."""


@dataclass(frozen=True)
class Frequency:
    """A token's share of the training documents, and its share of the model's predictions."""

    token: str
    frequency: float
    predicted: float
    """The mean of the probabilities that it had."""


@dataclass(frozen=True)
class Diagnosis:
    """A model's predictions beside the training documents' token frequencies, over some validation documents.

    A distance is the total variation: half the sum of the absolute differences, from 0 (the same) to 1.
    """

    documents: int
    """The first so many of the validation documents."""
    validation_documents: int
    tokens: int
    """Places at which something was predicted, the documents' ends among them."""
    top_is_end: float
    """Share of them at which the likeliest token was a document's end."""
    ends: float
    """Share of them at which the end did come."""
    nats_per_token: float
    frequency_nats_per_token: float
    """What the frequencies alone give to the same tokens, each token counted once more than it was seen."""
    average_distance: float
    """Of the average prediction from the frequencies."""
    distance: float
    """Of single predictions from the frequencies, on average."""
    most_frequent: tuple[Frequency, ...]
    """The SHOWN most frequent tokens."""

    @property
    def gain(self) -> float:
        """Share of the frequencies' nats that the model saves; 0 or less has learnt nothing beyond them."""
        return 1 - self.nats_per_token / self.frequency_nats_per_token

    @property
    def verdict(self) -> str:
        """What that says, as a sentence."""
        if self.gain < -LITTLE:
            return (
                f"This model has not learnt how frequent each token is: by frequencies alone its loss would be "
                f"{1 - 1 / (1 - self.gain):.0%} lower."
            )
        if self.gain < LITTLE:
            learnt = "little" if round(self.gain, 3) > 0 else "no"
            beside = f"{abs(self.gain):.1%} {'below' if self.gain > 0 else 'above'} " if round(self.gain, 3) else ""
            return (
                f"This model has learnt {learnt} more than how frequent each token is: its loss is {beside}that of "
                "frequencies alone."
            )
        return f"This model uses what it reads: its loss is {self.gain:.0%} below that of token frequencies alone."

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "gain": self.gain, "verdict": self.verdict}


def diagnose(trained: Trained, corpus: Corpus, tokens: int = TARGETS, split: str = "validation") -> Diagnosis:
    """Looks at the first documents of a split of a run's corpus that have so many tokens together, one document at least."""
    documents = encoded_split(corpus, split, trained.tokenizer)
    some = _first(documents, tokens)
    train = encoded_split(corpus, "train", trained.tokenizer)
    counts_V = np.bincount(train.ids_N, minlength=trained.tokenizer.vocab_size) + 1
    frequency_V = torch.from_numpy(counts_V / counts_V.sum())
    sum_V = torch.zeros_like(frequency_V)
    nats = distance = 0.0
    top_is_end = 0
    near_V = frequency_V.float().to(next(trained.model.parameters()).device)
    with trained.computing():
        for _, _, p_CV, nats_C in predictions(trained.model, some):
            nats += float(nats_C.sum())
            distance += float((p_CV - near_V).abs().sum()) / 2
            top_is_end += int((p_CV.argmax(dim=-1) == documents.eos).sum())
            sum_V += p_CV.sum(dim=0).cpu()
    total = len(some.ids_N)
    frequency_nats = -torch.log(frequency_V)[torch.from_numpy(some.ids_N.astype(np.int64))].mean()
    return Diagnosis(
        documents=len(some),
        validation_documents=len(documents),
        tokens=total,
        top_is_end=top_is_end / total,
        ends=len(some) / total,
        nats_per_token=nats / total,
        frequency_nats_per_token=float(frequency_nats),
        average_distance=float((sum_V / total - frequency_V).abs().sum() / 2),
        distance=distance / total,
        most_frequent=tuple(
            Frequency(trained.tokenizer.piece(token), float(frequency_V[token]), float(sum_V[token] / total))
            for token in frequency_V.argsort(descending=True, stable=True)[:SHOWN].tolist()
        ),
    )


def _first(documents: EncodedDocuments, tokens: int) -> EncodedDocuments:
    count = max(int(np.searchsorted(documents.ends_D, tokens, side="right")), 1)
    ends_D = documents.ends_D[:count]
    return EncodedDocuments(documents.ids_N[: ends_D[-1]], ends_D, documents.eos)
