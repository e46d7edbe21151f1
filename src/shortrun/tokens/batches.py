"""Token ids become batches: rows of `block_size` inputs and the targets one position on.

Both kinds of batches are functions of the step number alone, so a run that resumes at step k sees exactly what it would
have seen without stopping; there is no iterator state to save. The ids lie in a memory-mapped file: what stays in memory is a
few numbers for each title.

Shapes: B rows (batch_size), T tokens a row (block_size), N tokens in an epoch.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Sequence
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


UNWRITTEN = 2**20
"""Ids that are gathered in memory before they are written to the file."""


class TokenizedTitles:
    """All training titles' ids one after the other, each title followed by its end, in a file that goes with the process.

    ids_N: uint16 where the vocabulary fits, else int32; lengths: int32, of each title, its end included; ends: int64,
    position in ids_N just after each title's end.
    """

    def __init__(self, encoded: Iterable[Sequence[int]], eos: int, vocab_size: int) -> None:
        self.eos = eos
        ids, lengths = array("H" if vocab_size <= 2**16 else "i"), array("i")
        with tempfile.TemporaryFile() as file:  # without a name from the start, so a killed process leaves nothing
            for title in encoded:
                ids.extend(title)
                ids.append(eos)
                lengths.append(len(title) + 1)
                if len(ids) >= UNWRITTEN:
                    ids.tofile(file)
                    del ids[:]
            ids.tofile(file)
            file.flush()
            self.ids_N = np.memmap(file, dtype=ids.typecode, mode="r")
        self.lengths = np.array(lengths)
        self.ends = np.cumsum(self.lengths, dtype=np.int64)


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
        first, last = np.searchsorted(self._titles.ends, [start + 2, start + self._step_tokens + 2])
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
        self._ends = titles.ends
        self._order = np.arange(len(titles.ends), dtype=np.int32)

    def at(self, step: int) -> Batch:
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
        return int(self._stretch(offset - 1, offset)[0])

    def _stretch(self, first: int, stop: int) -> NDArray[np.int64]:
        """Ids from position `first` to before `stop` of the epoch's titles, laid out in its order."""
        begin, last = np.searchsorted(self._ends, [first, stop - 1], side="right")
        titles, ends = self._order[begin : last + 1], self._ends[begin : last + 1]
        inside = np.diff(np.minimum(ends, stop), prepend=first)  # ids of each title that lie in the stretch
        # position in the shuffled stream -> position in ids_N: each title is moved by one constant
        positions = np.arange(first, stop) + np.repeat(self._titles.ends[titles] - ends, inside)
        ids: NDArray[np.int64] = self._titles.ids_N[positions].astype(np.int64)
        return ids

    def _shuffle_for(self, epoch: int) -> None:
        """The order of an epoch's titles, which the seed and the epoch's number decide, and where each ends in it."""
        if epoch != self._epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._titles.ends))
            self._ends = np.cumsum(self._titles.lengths[order], dtype=np.int64)
            self._order, self._epoch = order.astype(np.int32), epoch


def make_batches(
    encoded: Iterable[Sequence[int]], eos: int, vocab_size: int, settings: recipe.Batches, epochs: int, seed: int
) -> Batches:
    """The batches a recipe asks for, over encoded training titles, which are gone through once."""
    titles = TokenizedTitles(encoded, eos, vocab_size)
    if settings.mode == "stream":
        return StreamBatches(titles, settings, epochs)
    return ShuffledBatches(titles, settings, epochs, seed)
