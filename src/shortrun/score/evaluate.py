"""Computing the losses of a model: which tokens go through it, in which rows. The definitions are in `losses`.

Shapes: B rows, T positions, D documents, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shortrun.model.language_model import LanguageModel
from shortrun.recipe import BatchesConfig
from shortrun.score.cross_entropy import token_nats
from shortrun.score.intervals import bootstrap_interval
from shortrun.score.losses import EOS_BYTES, EOS_CHARACTERS, Loss, OfficialLoss
from shortrun.text.corpus import Corpus
from shortrun.text.documents import Documents
from shortrun.tokens.encoded import EncodedDocuments, encoded_split, stream_of_split
from shortrun.tokens.rows import Rows
from shortrun.tokens.tokenizer import Tokenizer
from shortrun.tokens.windows import of_like_length, rows_of, windows_of

TOKENS_AT_ONCE = 2048
"""Tokens that go through a model at once on a CPU, in scoring and in training: as fast as more, in less memory
(docs/performance.md)."""


@dataclass(frozen=True)
class Share:
    """Which part of the work this process does, and how the parts come together: every `of`-th batch from `index` on.

    `combine` adds up what all processes computed; each number is computed by one of them and is 0 in the others, so the
    result is what a single process gets, bit for bit.
    """

    index: int = 0
    of: int = 1
    combine: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda parts: parts

    def has(self, number: int) -> bool:
        return number % self.of == self.index


ALL = Share()


@dataclass(frozen=True)
class Evaluation:
    """A model's losses on some documents."""

    loss: Loss
    official: OfficialLoss
    nats_D: NDArray[np.float64]
    """-log p of each document and its end."""
    characters_D: NDArray[np.int64]
    """Of each document, its end counted as EOS_CHARACTERS."""

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss.nats + self.official.nats)

    def interval(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of `loss` over documents."""
        return bootstrap_interval(self.nats_D, self.characters_D)

    def as_dict(self) -> dict[str, Any]:
        """The losses and their sums, JSON-ready."""
        return {**self.loss.as_dict(), "official_loss": self.official.loss, "coverage": self.official.coverage}


class ScoringSet:
    """Documents made ready to be scored: through the lossless gate, encoded and counted once, scored as often as needed."""

    def __init__(self, encoded: EncodedDocuments, stream: NDArray[np.integer], documents: Documents) -> None:
        self.encoded, self.stream, self.documents = encoded, stream, documents
        self.characters = int(documents.lengths_D().sum()) + EOS_CHARACTERS * len(documents)
        self.bytes = documents.bytes() + EOS_BYTES * len(documents)

    @classmethod
    def of_split(cls, corpus: Corpus, split: str, tokenizer: Tokenizer) -> ScoringSet:
        """A split of a corpus, its ids from the cache.

        Raises UserError, showing a document, if the tokenizer does not give every one back exactly.
        """
        encoded = encoded_split(corpus, split, tokenizer)
        if split == "train":  # not held to be lossless by what training needs
            for _ in tokenizer.encode_losslessly(corpus.split(split)):
                pass
        return cls(encoded, stream_of_split(corpus, split, tokenizer), corpus.split(split))

    @classmethod
    def of(cls, documents: Documents, tokenizer: Tokenizer) -> ScoringSet:
        """Any documents. Raises UserError, showing one, if the tokenizer does not give every one back exactly."""
        encoded = EncodedDocuments.of(tokenizer.encode_losslessly(documents), tokenizer.eos)
        pieces = [np.array(piece, dtype=np.int32) for piece in tokenizer.encode_joined(documents)]
        return cls(encoded, np.concatenate(pieces), documents)

    def evaluate(self, model: LanguageModel, geometry: BatchesConfig, *, share: Share = ALL) -> Evaluation:
        """All losses of a model; how it was given rows in training is the geometry of the official one."""
        nats_D = document_nats(model, self.encoded, share=share)
        return Evaluation(
            loss=self.summed(nats_D),
            official=official_loss(
                model,
                self.stream,
                self.characters,
                block_size=geometry.block_size,
                batch_size=geometry.batch_size,
                isolate=self.encoded.eos if geometry.mode == "documents" else None,
                share=share,
            ),
            nats_D=nats_D,
            characters_D=self.documents.lengths_D() + EOS_CHARACTERS,
        )

    def summed(self, nats_D: NDArray[np.float64]) -> Loss:
        """The losses that these documents' nats make."""
        return Loss(
            nats=math.fsum(nats_D),  # exactly rounded: the order of documents can't move it
            characters=self.characters,
            bytes=self.bytes,
            targets=len(self.encoded.ids_N),
            documents=len(self.encoded),
        )


@torch.no_grad()
def document_nats(
    model: LanguageModel, documents: EncodedDocuments, *, tokens_at_once: int = TOKENS_AT_ONCE, share: Share = ALL
) -> NDArray[np.float64]:
    """-log p of each document and its end, in nats, after one `eos`; shape (D,), float64.

    Rows of like length are scored together. With a `share`, several processes divide the groups among them.
    """
    windows = windows_of(documents.lengths_D, model.block_size)
    nats_W = np.zeros(len(windows), dtype=np.float64)
    with evaluating(model) as device:
        for index, group in enumerate(of_like_length(windows, tokens_at_once)):
            if share.has(index):
                rows = rows_of(documents, windows, group)
                begins = np.cumsum(rows.lengths_B) - rows.lengths_B
                nats_W[group] = np.add.reduceat(token_nats(model, rows.to(device)).numpy(), begins)
    nats_D = np.zeros(len(documents), dtype=np.float64)
    np.add.at(nats_D, windows.document_W, share.combine(nats_W))
    return nats_D


@torch.no_grad()
def official_loss(
    model: LanguageModel,
    stream: NDArray[np.integer],
    characters: int,
    *,
    block_size: int,
    batch_size: int,
    isolate: int | None = None,
    share: Share = ALL,
) -> OfficialLoss:
    """Mainrun's validation loss of a stream of ids (the joined text, encoded), with its coverage.

    isolate: the id of a document's end, in a model that was trained on one document a row. Its rows begin anew there, as
    they would inside such a model's own forward pass, which is all that Mainrun's `evaluate()` calls.
    """
    span = block_size * batch_size + 1
    starts = range(0, len(stream) - span + 1, span)
    nats = np.zeros(len(starts), dtype=np.float64)
    with evaluating(model) as device:
        for index, start in enumerate(starts):
            if share.has(index):
                ids = torch.from_numpy(stream[start : start + span].astype(np.int64))
                x_BT, y_BT = (side.view(batch_size, block_size) for side in (ids[:-1], ids[1:]))
                at_once = max(TOKENS_AT_ONCE // block_size, 1)
                pieces = zip(torch.split(x_BT, at_once), torch.split(y_BT, at_once), strict=True)
                rows = (Rows.of(x, y) for x, y in pieces)
                whole = rows if isolate is None else (each.split_before(isolate) for each in rows)
                nats[index] = sum(float(token_nats(model, each.to(device)).sum()) for each in whole)
    return OfficialLoss(
        nats=sum(share.combine(nats).tolist()),
        characters=characters,
        targets_scored=len(starts) * (span - 1),
        targets=max(len(stream) - 1, 0),
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """The model in eval mode, as it was before afterwards; gives the device of its weights."""
    was_training = model.training
    model.eval()
    try:
        yield next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    finally:
        model.train(was_training)
