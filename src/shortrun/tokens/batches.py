"""Which batch a step gets: token ids in an order, about batch_size * block_size targets a step.

All kinds of batches are functions of the step number alone, so a run that resumes at step k sees exactly what it would
have seen without stopping; there is no iterator state to save.

Shapes: B rows (batch_size), T tokens a row (block_size), N tokens in an epoch, D documents, W windows.
"""

from __future__ import annotations

from math import ceil
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shortrun.errors import UserError
from shortrun.recipe import BatchesConfig
from shortrun.tokens.batch import Batch, DocumentBatch, RowBatch
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import IGNORE
from shortrun.tokens.windows import windows_of


class Batches(Protocol):
    """What the training loop asks of any kind."""

    steps_per_epoch: int
    total_steps: int
    tokens_per_epoch: int
    row_length: float
    """Positions of the row that a target stands in, on average."""
    every_document_equally: bool
    """Whether all documents have been seen exactly `epochs` times after `total_steps`."""

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 1."""


class StreamBatches:
    """Mainrun's batches: one fixed stream, read in spans of B*T+1 tokens that overlap by one, from the start again
    once a whole span no longer fits. The end of the stream is therefore rarely seen, and an epoch of
    `N // (B*T)` steps wraps a little early: kept as it is, to reproduce the baseline."""

    every_document_equally = False

    def __init__(self, documents: EncodedDocuments, config: BatchesConfig, epochs: int) -> None:
        self._documents = documents
        self._rows, self._block = config.batch_size, config.block_size
        self._step_tokens = config.batch_size * config.block_size
        self.tokens_per_epoch = len(documents.ids_N)
        self.row_length = float(config.block_size)
        span = self._step_tokens + 1
        if self.tokens_per_epoch < span:
            raise UserError(
                f"The training documents make {self.tokens_per_epoch:,} tokens, fewer than one step reads "
                f"({self._rows} rows of {self._block} and one more = {span:,}): lower batches.batch_size or "
                "batches.block_size, or give more documents"
            )
        self.steps_per_epoch = self.tokens_per_epoch // self._step_tokens
        self.total_steps = epochs * self.steps_per_epoch
        # spans starting at k * step_tokens fit while k * step_tokens + span < N; the original's comparison is strict
        self._cycle = max(1, ceil((self.tokens_per_epoch - span) / self._step_tokens))

    def at(self, step: int) -> RowBatch:
        start = (step - 1) % self._cycle * self._step_tokens
        span = torch.from_numpy(self._documents.ids_N[start : start + self._step_tokens + 1].astype(np.int64))
        first, last = np.searchsorted(self._documents.ends_D, [start + 2, start + self._step_tokens + 2])
        return RowBatch(
            x_BT=span[:-1].view(self._rows, self._block),
            y_BT=span[1:].view(self._rows, self._block),
            targets=self._step_tokens,
            documents_ended=np.arange(first, last),
        )


class ShuffledBatches:
    """Documents in a new order each epoch; every token of every document is a target exactly once an epoch.

    The epochs' streams stand one behind the other and are cut into steps of B*T targets, so what is left over of an
    epoch begins the step that the next epoch completes: nothing is dropped or repeated. Only the very last step may be
    shorter; its last row is padded with targets that count for nothing. The first input of the run is an `eos`, and
    every other document follows the end of the one before it.
    """

    every_document_equally = True

    def __init__(self, documents: EncodedDocuments, config: BatchesConfig, epochs: int, seed: int) -> None:
        self._documents = documents
        self._block = config.block_size
        self._step_tokens = config.batch_size * config.block_size
        self._seed = seed
        self.tokens_per_epoch = len(documents.ids_N)
        self.row_length = float(config.block_size)
        if self.tokens_per_epoch < config.block_size:
            raise UserError(
                f"batches.block_size = {config.block_size} is longer than the data: the training documents make only "
                f"{self.tokens_per_epoch:,} tokens"
            )
        self.steps_per_epoch = ceil(self.tokens_per_epoch / self._step_tokens)
        self._total_tokens = epochs * self.tokens_per_epoch
        self.total_steps = ceil(self._total_tokens / self._step_tokens)
        self._epoch = -1
        self._ends = documents.ends_D
        self._order = np.arange(len(documents.ends_D), dtype=np.int32)

    def at(self, step: int) -> RowBatch:
        first = (step - 1) * self._step_tokens
        last = min(first + self._step_tokens, self._total_tokens)
        pieces, ended = [], []
        position = first
        while position < last:
            epoch, offset = divmod(position, self.tokens_per_epoch)
            self._shuffle_for(epoch)
            stop = min(offset + last - position, self.tokens_per_epoch)
            pieces.append(self._stretch(offset, stop))
            ended.append(self._order[slice(*np.searchsorted(self._ends, [offset + 1, stop + 1]))].astype(np.int64))
            position += stop - offset
        targets = np.concatenate(pieces)
        inputs = np.concatenate(([self._token_before(first)], targets[:-1]))
        rows = ceil(len(targets) / self._block)
        padding = rows * self._block - len(targets)
        x = np.pad(inputs, (0, padding), constant_values=self._documents.eos)
        y = np.pad(targets, (0, padding), constant_values=IGNORE)
        return RowBatch(
            x_BT=torch.from_numpy(x).view(rows, self._block),
            y_BT=torch.from_numpy(y).view(rows, self._block),
            targets=len(targets),
            documents_ended=np.concatenate(ended),
        )

    def _token_before(self, position: int) -> int:
        offset = position % self.tokens_per_epoch
        if offset == 0:
            return self._documents.eos  # the run's first input, or the end of the last document of the epoch before
        self._shuffle_for(position // self.tokens_per_epoch)
        return int(self._stretch(offset - 1, offset)[0])

    def _stretch(self, first: int, stop: int) -> NDArray[np.int64]:
        """Ids from position `first` to before `stop` of the epoch's documents, laid out in its order."""
        begin, last = np.searchsorted(self._ends, [first, stop - 1], side="right")
        chosen, ends = self._order[begin : last + 1], self._ends[begin : last + 1]
        inside = np.diff(np.minimum(ends, stop), prepend=first)  # ids of each document that lie in the stretch
        # position in the shuffled stream -> position in ids_N: each document is moved by one constant
        positions = np.arange(first, stop) + np.repeat(self._documents.ends_D[chosen] - ends, inside)
        ids: NDArray[np.int64] = self._documents.ids_N[positions].astype(np.int64)
        return ids

    def _shuffle_for(self, epoch: int) -> None:
        """The order of an epoch's documents, which the seed and the epoch's number decide, and where each ends in it."""
        if epoch != self._epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._documents.ends_D))
            self._ends = np.cumsum(self._documents.lengths_D[order], dtype=np.int64)
            self._order, self._epoch = order.astype(np.int32), epoch


class DocumentBatches:
    """One document a row, from position 0, exactly as it is scored; documents come in a new order each epoch.

    A document that outgrows the block is trained on in the windows in which it is scored. The epochs' windows stand one
    behind the other; a window belongs to the step in whose B*T targets its first one falls. So a step holds about that
    many, and every document is seen exactly once an epoch.
    """

    every_document_equally = True

    def __init__(self, documents: EncodedDocuments, config: BatchesConfig, epochs: int, seed: int) -> None:
        self._documents, self._epochs, self._seed = documents, epochs, seed
        self._windows = windows_of(documents.lengths_D, config.block_size)
        self._first_W = np.searchsorted(self._windows.document_W, np.arange(len(documents)))
        self._step_tokens = config.batch_size * config.block_size
        self.tokens_per_epoch = len(documents.ids_N)
        lengths_W = self._windows.lengths_W
        self.row_length = float((lengths_W**2).sum() / lengths_W.sum())
        self.steps_per_epoch = ceil(self.tokens_per_epoch / self._step_tokens)
        self._epoch = -1
        self._order = self._starts = np.zeros(0, dtype=np.int64)
        self._shuffle_for(epochs - 1)
        self.total_steps = int((epochs - 1) * self.tokens_per_epoch + self._starts[-1]) // self._step_tokens + 1

    def at(self, step: int) -> DocumentBatch:
        first, last = (step - 1) * self._step_tokens, step * self._step_tokens
        chosen = []
        last_epoch = min((last - 1) // self.tokens_per_epoch, self._epochs - 1)
        for epoch in range(first // self.tokens_per_epoch, last_epoch + 1):
            self._shuffle_for(epoch)
            begin, end = np.searchsorted(self._starts, np.array([first, last]) - epoch * self.tokens_per_epoch)
            chosen.append(self._order[begin:end])
        windows, document_W = np.concatenate(chosen), self._windows.document_W
        ends = self._windows.stop_W[windows] == self._documents.lengths_D[document_W[windows]]
        return DocumentBatch(
            documents=self._documents,
            windows=self._windows,
            chosen=windows,
            targets=int((self._windows.stop_W - self._windows.scored_W)[windows].sum()),
            documents_ended=document_W[windows][ends],
        )

    def _shuffle_for(self, epoch: int) -> None:
        """The windows in an epoch's order, which the seed and the epoch's number decide, and where each one's targets begin."""
        if epoch != self._epoch:
            order_D = np.random.default_rng([self._seed, epoch]).permutation(len(self._documents))
            counts_D = np.diff(self._first_W, append=len(self._windows))[order_D]
            begins_D = np.cumsum(counts_D) - counts_D
            # the windows of a document stand together: its first one, and so many behind it
            self._order = np.repeat(self._first_W[order_D] - begins_D, counts_D) + np.arange(len(self._windows))
            scored_W = (self._windows.stop_W - self._windows.scored_W)[self._order]
            self._starts, self._epoch = np.cumsum(scored_W) - scored_W, epoch


def make_batches(documents: EncodedDocuments, config: BatchesConfig, epochs: int, seed: int) -> Batches:
    """The batches a recipe asks for, over its training documents."""
    match config.mode:
        case "stream":
            return StreamBatches(documents, config, epochs)
        case "shuffled":
            return ShuffledBatches(documents, config, epochs, seed)
        case "documents":
            return DocumentBatches(documents, config, epochs, seed)
