"""How a model reads a text: what it expected before each token, how surprised it was, and what it expects next.

    trained = load_trained(Path("runs/small"))
    reading = read(trained, "Motorola Xoom commercial")
    reading.loss, [(token.text, token.surprisal) for token in reading.tokens], reading.next

The text is read as a document is scored: afresh after one `eos`, in windows where it outgrows the block, its end charged. So
the surprisals of all its tokens add up to its nats in `score/evaluate.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from shortrun.errors import UserError
from shortrun.runs.trained import Trained
from shortrun.score.losses import EOS_CHARACTERS
from shortrun.score.predictions import predictions
from shortrun.tokens.encoded import EncodedDocuments


@dataclass(frozen=True)
class Guess:
    """A token that the model holds possible at some place."""

    id: int
    token: str
    """As `Tokenizer.piece` writes it: with its space, bytes that are no whole character as "\\xe2"."""
    probability: float


@dataclass(frozen=True)
class ReadToken:
    """A token of a text, or its end, and what the model made of it."""

    id: int
    token: str
    """As in a guess."""
    text: str
    """What it adds to the text; "" for the end and for all but the last piece of a character."""
    surprisal: float
    """-log of the probability that it had, in nats."""
    rank: int
    """1 where no other token was likelier."""
    guesses: tuple[Guess, ...]
    """The likeliest tokens before this one was seen, likeliest first."""

    @property
    def probability(self) -> float:
        return math.exp(-self.surprisal)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, but for the guesses."""
        return {
            "id": self.id,
            "token": self.token,
            "text": self.text,
            "surprisal": self.surprisal,
            "probability": self.probability,
            "rank": self.rank,
        }


@dataclass(frozen=True)
class Reading:
    """A text as a model has read it."""

    text: str
    step: int
    """Of the checkpoint that read it."""
    tokens: tuple[ReadToken, ...]
    """The text's tokens, and its end as the last one. Their texts joined are the text."""

    @property
    def next(self) -> tuple[Guess, ...]:
        """The likeliest tokens behind the whole text, the end among what could come."""
        return self.tokens[-1].guesses

    def guesses_at(self, at: int | None) -> tuple[Guess, ...]:
        """The likeliest tokens after the first `at` tokens, or behind the whole text."""
        return self.next if at is None else self.tokens[at].guesses

    @cached_property
    def nats(self) -> float:
        """-log p of the text and its end."""
        return math.fsum(token.surprisal for token in self.tokens)

    @property
    def characters(self) -> int:
        """Of the text, its end counted as EOS_CHARACTERS."""
        return len(self.text) + EOS_CHARACTERS

    @property
    def loss(self) -> float:
        """Nats per character, as `score/losses.py` defines it for this one document."""
        return self.nats / self.characters

    def as_dict(self, at: int | None = None) -> dict[str, Any]:
        """JSON-ready. With `at`, only so many tokens count as read: `next` is what follows them, `actual` what really did.

        The loss is that of the whole text.
        """
        told = self.tokens[:at]
        return {
            "text": self.text,
            "step": self.step,
            "loss": self.loss,
            "nats": self.nats,
            "characters": self.characters,
            "tokens": [{**token.as_dict(), "guesses": _dicts(token.guesses)} for token in told],
            "next": _dicts(self.guesses_at(at)),
            "actual": None if at is None else self.tokens[at].as_dict(),
        }


def read(trained: Trained, text: str, top: int = 10) -> Reading:
    """Reads one text, with the `top` likeliest tokens at each place.

    Raises UserError for a text that the tokenizer can't give back.
    """
    return read_each(trained, [text], top)[0]


def read_each(trained: Trained, texts: Sequence[str], top: int = 10) -> list[Reading]:
    """Reads several texts, each on its own; faster than one after the other."""
    tokenizer = trained.tokenizer
    encoded = [[*ids, tokenizer.eos] for ids in tokenizer.encode_losslessly(texts)]
    found: dict[int, ReadToken] = {}
    added = [text for ids in encoded for text in (*tokenizer.texts_of(ids[:-1]), "")]
    documents = EncodedDocuments.of((ids[:-1] for ids in encoded), tokenizer.eos)
    with trained.computing():
        for at_C, targets_C, p_CV, nats_C in predictions(trained.model, documents):
            if not nats_C.isfinite().all():
                raise UserError(
                    "The model's predictions are no numbers: its weights have grown without end, or were damaged"
                )
            best_p_CK, best_CK = (each.cpu() for each in p_CV.topk(min(top, p_CV.shape[-1])))
            columns = (targets_C, nats_C, _ranks(p_CV, targets_C), best_CK, best_p_CK)
            for at, token, nats, rank, best_K, best_p_K in zip(
                at_C.tolist(), *(column.tolist() for column in columns), strict=True
            ):
                guesses = (Guess(id, tokenizer.piece(id), p) for id, p in zip(best_K, best_p_K, strict=True))
                found[at] = ReadToken(token, tokenizer.piece(token), added[at], nats, rank, tuple(guesses))
    begins = (documents.ends_D - documents.lengths_D).tolist()
    return [
        Reading(text, trained.step, tuple(found[at] for at in range(begin, end)))
        for text, begin, end in zip(texts, begins, documents.ends_D.tolist(), strict=True)
    ]


def _ranks(p_CV: Tensor, targets_C: Tensor) -> Tensor:
    p_C1 = p_CV.gather(1, targets_C[:, None])
    return 1 + torch.count_nonzero(p_CV > p_C1, dim=-1)


def _dicts(guesses: Sequence[Guess]) -> list[dict[str, Any]]:
    return [{"id": guess.id, "token": guess.token, "probability": guess.probability} for guess in guesses]
