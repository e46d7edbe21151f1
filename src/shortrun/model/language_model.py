"""What scoring, sampling and viewing ask of a model, whatever it is made of.

Shapes: B rows, T positions, N positions of all rows, D width of the hidden states, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from shortrun.model.datastore import Datastore
from shortrun.tokens.rows import Rows


class Cache(Protocol):
    """What a model remembers of the positions it has seen, so that in sampling each new token costs one position alone."""

    @property
    def length(self) -> int:
        """The position of the token that comes next."""
        ...

    def keep(self, rows_B: Tensor) -> None:
        """Forgets the rows where `rows_B` is False."""
        ...


class Caches:
    """Several caches that move together, such as those of a model's layers."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = parts

    @property
    def length(self) -> int:
        return int(self.parts[0].length)

    def keep(self, rows_B: Tensor) -> None:
        for part in self.parts:
            part.keep(rows_B)


class LanguageModel(nn.Module, ABC):
    """Token ids to logits of the token that follows each."""

    block_size: int
    """The longest row."""
    vocab_size: int
    datastore: Datastore | None
    """What it mixes its own predictions with, if anything."""

    def __init__(self) -> None:
        super().__init__()
        self.datastore = None

    @abstractmethod
    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """logits_BTV of the token after each position. T is at most block_size.

        With a `cache` of `new_cache`, `x_BT` goes on from what it holds, and joins it; only the last position's logits come
        back, B x 1 x V, because a prompt's others are of no use.
        """

    @abstractmethod
    def new_cache(self) -> Cache:
        """An empty cache for some rows."""

    @abstractmethod
    def flops_per_token(self, row_length: float) -> float:
        """Floating-point operations of the matrix products of one forward and backward pass, per token of such a row."""

    def learners(self) -> list[LanguageModel]:
        """The models that learn apart from one another, each from its own loss: this one, or the members of an ensemble."""
        return [self]

    def count_parameters(self) -> int:
        """Trained numbers; weights that two parts share are counted once."""
        return sum(parameter.numel() for parameter in self.parameters())


@runtime_checkable
class LinearHead(Protocol):
    """A model whose logits come from its last hidden states, so that a loss can make them a few at a time.

    Its members are those of a class, because from Python 3.12 on no others are found.
    """

    @property
    def head_VD(self) -> Tensor:
        """Hidden states times these are the logits that training moves."""
        ...

    def hidden(self, rows: Rows) -> Tensor:
        """The last hidden state hidden_ND of each position of some rows, as wide as the head's rows."""
        ...


def logits_from(model: LinearHead, hidden_ND: Tensor) -> Tensor:
    """The logits_NV of hidden states, mixed with what the datastore says where there is one."""
    logits_NV = hidden_ND @ model.head_VD.t()
    datastore = model.datastore if isinstance(model, LanguageModel) else None
    return logits_NV if datastore is None else datastore.mixed(logits_NV, hidden_ND)
