"""Token ids become batches: rows of `block_size` inputs and the targets one position on.

Both kinds of batches are functions of the step number alone, so a run that resumes at step k sees exactly what it would
have seen without stopping; there is no iterator state to save.

Shapes: B rows (batch_size), T tokens a row (block_size), N tokens in an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shortrun import recipe
from shortrun.errors import UserError

IGNORE = -100
"""Target of a padded position: it is never scored (`cross_entropy`'s own default)."""


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of one step."""

    x_BT: Tensor
    """int64: the tokens the model reads."""
    y_BT: Tensor
    """int64: the token that follows each, or IGNORE."""
    targets: int
    """How many of y_BT are real."""
    titles_ended: NDArray[np.int64]
    """Index of every training title whose end is among the targets, once for each time."""


class Batches(Protocol):
    """What the training loop asks of either kind."""

    steps_per_epoch: int
    total_steps: int
    tokens_per_epoch: int
    every_title_equally: bool
    """Whether all titles have been seen exactly `epochs` times after `total_steps`."""

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 1."""


class TokenizedTitles:
    """All training titles as one flat array of ids, each title followed by its end.

    ids_N: int32; ends: position in ids_N just after each title's end, one a title.
    """

    def __init__(self, encoded: list[list[int]], eos: int) -> None:
        lengths = np.fromiter((len(ids) + 1 for ids in encoded), dtype=np.int64, count=len(encoded))
        self.ends = np.cumsum(lengths)
        self.starts = self.ends - lengths
        self.eos = eos
        self.ids_N = np.full(int(self.ends[-1]), eos, dtype=np.int32)
        inside = np.ones(len(self.ids_N), dtype=bool)
        inside[self.ends - 1] = False
        self.ids_N[inside] = np.fromiter((token for ids in encoded for token in ids), dtype=np.int32)


class StreamBatches:
    """Mainrun's batches: one fixed stream, read in spans of B*T+1 tokens that overlap by one, from the start again
    once a whole span no longer fits. The end of the stream is therefore rarely seen, and an epoch of
    `N // (B*T)` steps wraps a little early: kept as it is, to reproduce the baseline."""

    every_title_equally = False

    def __init__(self, titles: TokenizedTitles, settings: recipe.Batches, epochs: int) -> None:
        self._titles = titles
        self._rows, self._block = settings.batch_size, settings.block_size
        self._step_tokens = settings.batch_size * settings.block_size
        self.tokens_per_epoch = len(titles.ids_N)
        span = self._step_tokens + 1
        if self.tokens_per_epoch < span:
            raise UserError(
                f"The training titles make {self.tokens_per_epoch:,} tokens, fewer than one step reads "
                f"({self._rows} rows of {self._block} and one more = {span:,}): lower batches.batch_size or "
                "batches.block_size, or give more titles"
            )
        self.steps_per_epoch = self.tokens_per_epoch // self._step_tokens
        self.total_steps = epochs * self.steps_per_epoch
        # spans starting at k * step_tokens fit while k * step_tokens + span < N; the original's comparison is strict
        self._cycle = max(1, ceil((self.tokens_per_epoch - span) / self._step_tokens))

    def at(self, step: int) -> Batch:
        start = (step - 1) % self._cycle * self._step_tokens
        span = torch.from_numpy(self._titles.ids_N[start : start + self._step_tokens + 1].astype(np.int64))
        first, last = np.searchsorted(self._titles.ends - 1, [start + 1, start + self._step_tokens + 1])
        return Batch(
            x_BT=span[:-1].view(self._rows, self._block),
            y_BT=span[1:].view(self._rows, self._block),
            targets=self._step_tokens,
            titles_ended=np.arange(first, last),
        )


class ShuffledBatches:
    """Titles in a new order each epoch; every token of every title is a target exactly once an epoch.

    The epochs' streams stand one behind the other and are cut into steps of B*T targets, so what is left over of an
    epoch begins the step that the next epoch completes: nothing is dropped or repeated. Only the very last step may be
    shorter; its last row is padded with targets that count for nothing. The first input of the run is an `eos`, and
    every other title follows the end of the title before it.
    """

    every_title_equally = True

    def __init__(self, titles: TokenizedTitles, settings: recipe.Batches, epochs: int, seed: int) -> None:
        self._titles = titles
        self._block = settings.block_size
        self._step_tokens = settings.batch_size * settings.block_size
        self._seed = seed
        self.tokens_per_epoch = len(titles.ids_N)
        if self.tokens_per_epoch < settings.block_size:
            raise UserError(
                f"batches.block_size = {settings.block_size} is longer than the data: the training titles make only "
                f"{self.tokens_per_epoch:,} tokens"
            )
        self.steps_per_epoch = ceil(self.tokens_per_epoch / self._step_tokens)
        self._total_tokens = epochs * self.tokens_per_epoch
        self.total_steps = ceil(self._total_tokens / self._step_tokens)
        self._epoch = -1
        self._stream_N = titles.ids_N
        self._ends = titles.ends
        self._order = np.arange(len(titles.ends))

    def at(self, step: int) -> Batch:
        first = (step - 1) * self._step_tokens
        last = min(first + self._step_tokens, self._total_tokens)
        pieces, ended = [], []
        position = first
        while position < last:
            epoch, offset = divmod(position, self.tokens_per_epoch)
            self._shuffle_for(epoch)
            stop = min(offset + last - position, self.tokens_per_epoch)
            pieces.append(self._stream_N[offset:stop])
            ended.append(self._order[slice(*np.searchsorted(self._ends - 1, [offset, stop]))])
            position += stop - offset
        targets = np.concatenate(pieces).astype(np.int64)
        inputs = np.concatenate(([self._token_before(first)], targets[:-1]))
        rows = ceil(len(targets) / self._block)
        padding = rows * self._block - len(targets)
        x = np.pad(inputs, (0, padding), constant_values=self._titles.eos)
        y = np.pad(targets, (0, padding), constant_values=IGNORE)
        return Batch(
            x_BT=torch.from_numpy(x).view(rows, self._block),
            y_BT=torch.from_numpy(y).view(rows, self._block),
            targets=len(targets),
            titles_ended=np.concatenate(ended),
        )

    def _token_before(self, position: int) -> int:
        offset = position % self.tokens_per_epoch
        if offset == 0:
            return self._titles.eos  # the run's first input, or the end of the last title of the epoch before
        self._shuffle_for(position // self.tokens_per_epoch)
        return int(self._stream_N[offset - 1])

    def _shuffle_for(self, epoch: int) -> None:
        """Lays the titles out in the order of an epoch, which the seed and the epoch's number decide."""
        if epoch == self._epoch:
            return
        titles = self._titles
        order = np.random.default_rng([self._seed, epoch]).permutation(len(titles.ends))
        lengths = (titles.ends - titles.starts)[order]
        ends = np.cumsum(lengths)
        # position in the shuffled stream -> position in ids_N: each title is moved by one constant
        shift = np.repeat(titles.starts[order] - (ends - lengths), lengths)
        self._stream_N = titles.ids_N[np.arange(len(shift)) + shift]
        self._ends, self._order, self._epoch = ends, order, epoch


def make_batches(encoded: list[list[int]], eos: int, settings: recipe.Batches, epochs: int, seed: int) -> Batches:
    """The batches a recipe asks for, over encoded training titles."""
    titles = TokenizedTitles(encoded, eos)
    if settings.mode == "stream":
        return StreamBatches(titles, settings, epochs)
    return ShuffledBatches(titles, settings, epochs, seed)
