"""A datastore of contexts: what followed each of them in the training documents, recalled by likeness.

A language model that asks one is a kNN-LM (Khandelwal et al. 2020, arXiv 1911.00172): its prediction is mixed with the tokens
that followed like contexts. There the nearest 1,024 are asked; here all are, each with its weight, which needs no index and
loses nothing. The likeness of two contexts is the cosine of their last hidden states.

Shapes: N entries, D width of a hidden state, W width of a key, C contexts at a time, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENTRIES, TOKENS = 4096, 32
"""Entries that are asked at a time, and how many tokens they may be of. 512 contexts over the 1.3 million entries of `best-quick` take a
core with AMX 0.91 s, with 256 tokens 1.01 s, with 2,048 entries 0.93 s."""


class Datastore(nn.Module):
    """Contexts by their keys, in the order of the tokens that followed them.

    Its tensors are no weights: a model's `state_dict` leaves them out.
    """

    def __init__(
        self, basis_DW: Tensor, keys_NW: Tensor, tokens_N: Tensor, *, vocab_size: int, weight: float, sharpness: float
    ) -> None:
        """basis_DW: from hidden states to all of a key but its last column. keys_NW: what `keys_of` made of the contexts, in the
        type that products are computed in. tokens_N: ascending, each below `vocab_size`. weight: its share of a prediction.
        sharpness: by how much an entry's weight falls, as a logarithm, where the cosine falls by 1."""
        super().__init__()
        self.vocab_size, self.weight, self.sharpness = vocab_size, weight, sharpness
        self.register_buffer("basis_DW", basis_DW, persistent=False)
        self.register_buffer("keys_NW", keys_NW, persistent=False)
        self.register_buffer("tokens_N", tokens_N, persistent=False)
        self.basis_DW: Tensor
        self.keys_NW: Tensor
        self.tokens_N: Tensor
        self.cuts = tuple(_cuts(tokens_N))

    def mixed(self, logits_CV: Tensor, hidden_CD: Tensor) -> Tensor:
        """Logarithms of the mixture of a model's predictions with those of the entries: float32 at least."""
        own_CV = F.log_softmax(logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32)), dim=-1)
        recalled_CV = self.recalled(hidden_CD).log_().add_(math.log(self.weight))  # -inf of what followed no entry
        return torch.logaddexp(own_CV.add_(math.log1p(-self.weight)), recalled_CV.to(own_CV.dtype))

    def recalled(self, hidden_CD: Tensor) -> Tensor:
        """p_CV: of each token the share that the entries which it followed have in the weight of all; float32 at least.

        Sums are float32, so that what is asked beside a context moves its answer by rounding alone.
        """
        wide = torch.promote_types(self.keys_NW.dtype, torch.float32)
        p_CV = hidden_CD.new_zeros(len(hidden_CD), self.vocab_size, dtype=wide)
        with torch.autocast(hidden_CD.device.type, enabled=False):
            asked_CW = keys_of(hidden_CD, self.basis_DW, self.sharpness).to(self.keys_NW.dtype)
            asked_CW[:, -1] *= -1  # times a key's last column, this makes the exponent 0 at a cosine of 1
            for first, stop in self.cuts:
                weights_CE = _product(asked_CW, self.keys_NW[first:stop].t(), wide).exp_()
                tokens_E = self.tokens_N[first:stop]
                low, high = int(tokens_E[0]), int(tokens_E[-1]) + 1
                of_token_ET = tokens_E[:, None] == torch.arange(low, high, device=tokens_E.device)
                p_CV[:, low:high] += weights_CE @ of_token_ET.to(wide)
        return p_CV.div_(p_CV.sum(dim=1, keepdim=True))


def _product(one_CW: Tensor, other_WE: Tensor, wide: torch.dtype) -> Tensor:
    """The product with sums in the type `wide`, which torch would round to the factors' own.

    On a CPU a float32 product of bfloat16 factors may be told to take its bfloat16 units, whose sums are float32. 512 contexts over 4,096
    entries then take a core with AMX 1.3 ms with their exponentials: 3.2 ms in float32 alone, and 1.5 ms in bfloat16.
    """
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    if one_CW.dtype == torch.bfloat16:
        settings.fp32_precision = "bf16"
    try:
        return one_CW.to(wide) @ other_WE.to(wide)
    finally:
        settings.fp32_precision = before


def keys_of(hidden_CD: Tensor, basis_DW: Tensor, length: float = 1.0) -> Tensor:
    """Hidden states in the directions of a basis, each `length` long, and a last column of -`length`: C x W.

    The last column lets one product give sharpness * (cosine - 1), which bfloat16 rounds least where it counts most, near 0.
    """
    inside_CW = F.normalize(hidden_CD.to(basis_DW.dtype) @ basis_DW, dim=1)
    return F.pad(inside_CW, (0, 1), value=-1.0).mul_(length)


def main_directions(hidden: Iterable[Tensor], width: int) -> Tensor:
    """The basis_DW of `width` directions, at most D, in which hidden states are longest (principal components, uncentred).

    hidden: some hidden_CD after others.
    """
    gram_DD = sum(hidden_CD.double().t() @ hidden_CD.double() for hidden_CD in hidden)
    assert isinstance(gram_DD, Tensor)
    _, directions_DD = torch.linalg.eigh(gram_DD.cpu())
    basis_DW: Tensor = directions_DD.flip(1)[:, :width].float().contiguous()
    return basis_DW


def _cuts(tokens_N: Tensor) -> Iterator[tuple[int, int]]:
    """First and stop of stretches of at most ENTRIES entries, whose tokens, in ascending order, lie less than TOKENS apart."""
    first = 0
    while first < len(tokens_N):
        beyond = torch.searchsorted(tokens_N, tokens_N[first] + TOKENS)
        stop = min(int(beyond), first + ENTRIES)
        yield first, stop
        first = stop
