"""Computing the losses of a model: which tokens go through it, in which rows. The definitions are in `losses`.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shortrun.model.gpt import GPT
from shortrun.score.losses import Loss, OfficialLoss, joined_bytes, joined_characters, token_nats
from shortrun.tokens.batches import IGNORE
from shortrun.tokens.tokenizer import Tokenizer

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
class Window:
    """A row to score: a stretch of one title; targets that are only context here are IGNORE."""

    title: int
    inputs: list[int]
    targets: list[int]


class ScoringSet:
    """Titles made ready to be scored: through the lossless gate, encoded and counted once, scored as often as needed."""

    def __init__(self, tokenizer: Tokenizer, titles: Sequence[str]) -> None:
        """Raises UserError, showing a title, if the tokenizer does not give every one back exactly."""
        tokenizer.require_lossless(titles)
        self._eos = tokenizer.eos
        self.encoded = tokenizer.encode_many(titles)
        self.joined_ids = tokenizer.encode_joined(titles)
        self.characters = joined_characters(titles)
        self.bytes = joined_bytes(titles)

    def loss(self, model: GPT, *, batch_tokens: int = TOKENS_AT_ONCE, share: Share = ALL) -> Loss:
        """`loss`, `bits_per_byte` and `perplexity` of a model on these titles, each on its own."""
        return self.summed(self.title_nats(model, batch_tokens=batch_tokens, share=share))

    def title_nats(self, model: GPT, *, batch_tokens: int = TOKENS_AT_ONCE, share: Share = ALL) -> NDArray[np.float64]:
        """-log p of each title and its end under a model, in nats."""
        return title_nats(
            model, self.encoded, eos=self._eos, block_size=model.block_size, batch_tokens=batch_tokens, share=share
        )

    def summed(self, nats: NDArray[np.float64]) -> Loss:
        """The losses that these titles' nats make."""
        return Loss(
            nats=math.fsum(nats),  # exactly rounded: the order of titles can't move it
            characters=self.characters,
            bytes=self.bytes,
            targets=sum(len(ids) + 1 for ids in self.encoded),
            titles=len(self.encoded),
        )

    def official_loss(self, model: nn.Module, *, block_size: int, batch_size: int, share: Share = ALL) -> OfficialLoss:
        """Mainrun's loss of a model on these titles as one stream."""
        return official_loss(
            model, self.joined_ids, self.characters, block_size=block_size, batch_size=batch_size, share=share
        )


@torch.no_grad()
def title_nats(
    model: Callable[[Tensor], Tensor],
    encoded: Sequence[Sequence[int]],
    *,
    eos: int,
    block_size: int,
    batch_tokens: int = TOKENS_AT_ONCE,
    share: Share = ALL,
) -> NDArray[np.float64]:
    """-log p of each title and its end, in nats, after one `eos`; shape (titles,), float64.

    `encoded`: token ids of each title, end not included. Rows of like length are scored together, about `batch_tokens`
    tokens at once. With a `share`, several processes divide the batches among them.
    """
    windows = [window for title, ids in enumerate(encoded) for window in _windows(title, ids, eos, block_size)]
    windows.sort(key=lambda window: len(window.inputs))  # stable: like lengths side by side, hardly any padding
    window_nats = np.zeros(len(windows), dtype=np.float64)
    first = 0
    with _evaluating(model) as device:
        for index, batch in enumerate(_grouped(windows, batch_tokens)):
            here, first = slice(first, first + len(batch)), first + len(batch)
            if not share.has(index):
                continue
            T = len(batch[-1].inputs)
            x_BT = torch.tensor([window.inputs + [eos] * (T - len(window.inputs)) for window in batch], device=device)
            y_BT = torch.tensor(
                [window.targets + [IGNORE] * (T - len(window.targets)) for window in batch], device=device
            )
            window_nats[here] = token_nats(model(x_BT), y_BT).sum(dim=1).numpy()
    nats = np.zeros(len(encoded), dtype=np.float64)
    np.add.at(nats, [window.title for window in windows], share.combine(window_nats))
    return nats


@torch.no_grad()
def official_loss(
    model: Callable[[Tensor], Tensor],
    ids: Sequence[int],
    characters: int,
    *,
    block_size: int,
    batch_size: int,
    share: Share = ALL,
) -> OfficialLoss:
    """Mainrun's validation loss of a stream of ids (the joined text, encoded), with its coverage."""
    span = block_size * batch_size + 1
    stream = torch.tensor(ids, dtype=torch.int64)
    starts = range(0, len(stream) - span + 1, span)
    nats = np.zeros(len(starts), dtype=np.float64)
    with _evaluating(model) as device:
        for index, start in enumerate(starts):
            if share.has(index):
                x_BT = stream[start : start + span - 1].view(batch_size, block_size).to(device)
                y_BT = stream[start + 1 : start + span].view(batch_size, block_size).to(device)
                rows = max(TOKENS_AT_ONCE // block_size, 1)
                parts = zip(torch.split(x_BT, rows), torch.split(y_BT, rows), strict=True)
                nats[index] = sum(float(token_nats(model(x), y).sum()) for x, y in parts)
    return OfficialLoss(
        nats=sum(share.combine(nats).tolist()),
        characters=characters,
        targets_scored=len(starts) * (span - 1),
        targets=max(len(ids) - 1, 0),
    )


def _windows(title: int, ids: Sequence[int], eos: int, block_size: int) -> Iterator[Window]:
    """The rows in which a title's targets are scored, each target once; one row unless the title outgrows the block."""
    inputs, targets = [eos, *ids], [*ids, eos]
    scored = start = 0
    while scored < len(targets):
        stop = min(start + block_size, len(targets))
        context = scored - start
        yield Window(title, inputs[start:stop], [IGNORE] * context + targets[scored:stop])
        scored = stop
        start += max(block_size // 2, 1)


def _grouped(windows: list[Window], batch_tokens: int) -> Iterator[list[Window]]:
    """Cuts sorted windows into batches of at most `batch_tokens` positions, padding included (one window at least)."""
    batch: list[Window] = []
    for window in windows:
        if batch and (len(batch) + 1) * len(window.inputs) > batch_tokens:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


@contextmanager
def _evaluating(model: Callable[[Tensor], Tensor]) -> Iterator[torch.device]:
    """The model in eval mode, as it was before afterwards; gives the device of its weights."""
    if not isinstance(model, nn.Module):
        yield torch.device("cpu")
        return
    was_training = model.training
    model.eval()
    try:
        yield next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    finally:
        model.train(was_training)
