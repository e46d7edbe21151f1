"""Several models as one: what it predicts is the weighted mean of its members' probabilities.

Its logits are the logarithms of these means, so whoever takes a softmax of them, as every loss does, gets the means.

Shapes: B rows, T positions, V vocabulary, K members.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortrun.model.language_model import Cache, Caches, LanguageModel


class Ensemble(LanguageModel):
    """Members of any shape over one vocabulary. A row is as long as the shortest block among them."""

    def __init__(self, members: Sequence[LanguageModel]) -> None:
        super().__init__()
        self.vocab_size = members[0].vocab_size
        self.block_size = min(member.block_size for member in members)
        self.members = nn.ModuleList(members)
        equal = torch.full((len(members),), -math.log(len(members)))
        self.register_buffer("log_weight_K", equal)
        self.log_weight_K: Tensor
        """Of each member's weight in the mean. They are kept with the model's own weights."""

    def weigh(self, weights: Sequence[float]) -> None:
        """Gives each member its weight; they add up to 1. One of 0 becomes the least whose logarithm is a number."""
        self.log_weight_K.copy_(torch.tensor([math.log(max(weight, 1e-30)) for weight in weights]))

    @property
    def each(self) -> list[LanguageModel]:
        """The members, in order."""
        return cast("list[LanguageModel]", list(self.members))

    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:
        parts = cache.parts if isinstance(cache, Caches) else [None] * len(self.members)
        return self.mixed(member(x_BT, part) for member, part in zip(self.each, parts, strict=True))

    def mixed(self, logits: Iterable[Tensor]) -> Tensor:
        """log of the weighted mean of the members' probabilities.

        logits: each member's at the same places, [..., V]. They are taken one after the other, so that those of two members are
        in memory and not those of all.
        """
        weighted = zip(logits, self.log_weight_K.unbind(), strict=True)
        return reduce(torch.logaddexp, (F.log_softmax(each_V, dim=-1) + weight for each_V, weight in weighted))

    def new_cache(self) -> Caches:
        return Caches([member.new_cache() for member in self.each])

    def learners(self) -> list[LanguageModel]:
        return [learner for member in self.each for learner in member.learners()]

    def flops_per_token(self, row_length: float) -> float:
        """Of a pass of one member, their mean: each member's passes are counted."""
        return sum(member.flops_per_token(row_length) for member in self.each) / len(self.members)
