"""A step's gradient is that of the plain loss over all its targets, however it is cut into parts, and takes no more memory than
it must.

Shapes: N positions of all rows, H heads, K channels of each, D all of them.
"""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from shortrun.model.gpt import GPT
from shortrun.optim.optimizers import make_optimizer
from shortrun.recipe import Recipe
from shortrun.tokens.batch import RowBatch
from shortrun.tokens.batches import DocumentBatches
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import IGNORE, Rows
from shortrun.train.objective import Objective
from shortrun.train.step import TrainingStep
from tests.test_windows import windows_by_definition

EOS, VOCAB, BLOCK = 1, 30, 12
LAYERS, H, D = 2, 2, 16


def a_recipe(**sections: dict[str, Any]) -> Recipe:
    shape = {"n_layer": LAYERS, "n_head": H, "d_model": D, "dropout": 0.0}
    values: dict[str, dict[str, Any]] = {"data": {"source": "synthetic"}, "model": shape, "optim": {"name": "sgd"}}
    for section, fields in sections.items():
        values[section] = values.get(section, {}) | fields
    return Recipe.model_validate(values)


def a_step(recipe: Recipe, vocab: int = VOCAB, positions: int = 2**62) -> tuple[GPT, TrainingStep]:
    torch.manual_seed(0)
    model = GPT(recipe.model, vocab, recipe.batches.block_size, EOS)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    step = TrainingStep(
        Objective(model, recipe.train), model, make_optimizer(model, recipe.optim), recipe, positions=positions
    )
    return model, step


def plain_loss(weights: dict[str, Tensor], rows: list[tuple[list[int], list[int]]], rope_base: float) -> Tensor:
    """Mean cross-entropy of rows packed end to end, under a mask that shows each position its row up to itself."""
    x_N, y_N = (torch.tensor([token for row in rows for token in row[side]]) for side in (0, 1))
    place_N = torch.cat([torch.arange(len(inputs)) for inputs, _ in rows])
    row_N = torch.cat([torch.full((len(inputs),), number) for number, (inputs, _) in enumerate(rows)])
    seen_NN = (row_N[:, None] == row_N) & (place_N[:, None] >= place_N)
    N, K = len(x_N), D // H
    stream_ND = weights["token_emb.weight"][x_N]
    if "pos_emb" in weights:
        stream_ND = stream_ND + weights["pos_emb"][0, place_N]
    turn_NK = place_N[:, None] * rope_base ** (-torch.arange(0, K, 2, dtype=torch.float64) / K)
    turn_NHK = torch.polar(torch.ones_like(turn_NK), turn_NK)[:, None]

    def rotated(x_NHK: Tensor) -> Tensor:
        if "pos_emb" in weights:
            return x_NHK
        turned = torch.complex(*x_NHK.chunk(2, dim=-1)) * turn_NHK
        return torch.cat([turned.real, turned.imag], dim=-1)

    def normed(name: str) -> Tensor:
        return F.layer_norm(stream_ND, (D,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].t() + weights[f"{name}.bias"]

    for number in range(LAYERS):
        block = f"blocks.{number}"
        q_NHK, k_NHK, v_NHK = linear(normed(f"{block}.ln1"), f"{block}.attn.qkv").view(N, 3, H, K).unbind(1)
        scores_HNN = torch.einsum("ihk,jhk->hij", rotated(q_NHK), rotated(k_NHK)) / math.sqrt(K)
        weights_HNN = scores_HNN.masked_fill(~seen_NN, -torch.inf).softmax(-1)
        attended_ND = torch.einsum("hij,jhk->ihk", weights_HNN, v_NHK).flatten(1)
        stream_ND = stream_ND + linear(attended_ND, f"{block}.attn.proj")
        inner_ND = F.gelu(linear(normed(f"{block}.ln2"), f"{block}.mlp.net.0"))
        stream_ND = stream_ND + linear(inner_ND, f"{block}.mlp.net.2")
    logits_NV = normed("ln_f") @ weights["token_emb.weight"].t()
    return F.cross_entropy(logits_NV, y_N, ignore_index=IGNORE, reduction="sum") / (y_N != IGNORE).sum()


@pytest.mark.parametrize("place", ["learned", "rotary"])
@pytest.mark.parametrize("batch_size", [1, 5, 100])
@pytest.mark.parametrize("positions", [1, 50, 200, 2**62])
def test_documents_are_trained_on_as_if_each_were_alone(place: str, batch_size: int, positions: int) -> None:
    """The loss and the gradients of an epoch, over its steps, against the plain loss over all windows of all documents.

    Half of the documents fit into a row, the others are up to five rows long.
    """
    torch.manual_seed(5)
    lengths = [0, 1, 3, 3, 3, 7, 10, BLOCK - 1, BLOCK, 13, 20, 20, 31, 5 * BLOCK]
    encoded = [torch.randint(2, VOCAB, (length,)).tolist() for length in lengths]
    recipe = a_recipe(
        batches={"mode": "documents", "block_size": BLOCK, "batch_size": batch_size},
        model={"positions": place, "rope_base": 50.0},
        optim={"grad_clip": 1e9},
    )
    model, take = a_step(recipe, positions=positions)
    model.double()
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in model.named_parameters()}
    expected = plain_loss(weights, [row for ids in encoded for row in windows_by_definition(ids, BLOCK)], 50.0)
    expected.backward()  # type: ignore[no-untyped-call]

    batches = DocumentBatches(EncodedDocuments.of(encoded, EOS), recipe.batches, epochs=1, seed=0)
    assert (batches.total_steps == 1) == (batch_size == 100)
    share, loss, found = 0.0, 0.0, {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for step in range(1, batches.total_steps + 1):
        batch = batches.at(step)
        result = take(batch, 0.0, (0, step))  # a learning rate of 0: the weights stay
        part = batch.targets / sum(length + 1 for length in lengths)
        share, loss = share + part, loss + part * result.loss
        for name, weight in model.named_parameters():
            assert weight.grad is not None
            found[name] += part * weight.grad
    assert share == pytest.approx(1)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for name, plain in weights.items():
        assert plain.grad is not None
        assert torch.allclose(found[name], plain.grad, rtol=0, atol=1e-6 * float(plain.grad.abs().max())), name


class Memory(TorchDispatchMode):
    """Bytes of the tensors that are made under it, those of a model's weights aside."""

    def __init__(self, model: GPT) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self._weights:
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
        self.peak = max(self.peak, self.now)
        return result

    @property
    def now(self) -> int:
        self._made = {at: made for at, made in self._made.items() if not made[0].expired()}  # type: ignore[no-untyped-call]
        return sum(size for _, size in self._made.values())


def memory_of_a_step(sharpness: str) -> tuple[list[float], float]:
    """At the beginning of each pass, and at most: bytes held, in units of the model's weights."""
    recipe = a_recipe(
        model={"n_layer": 8, "d_model": 64}, optim={"name": "sgd", "sharpness": sharpness}, batches={"block_size": 4}
    )
    model, take = a_step(recipe)
    x_BT = torch.tensor([[EOS, 5]])  # so few that the weights outweigh all that the model makes
    held: list[int] = []
    with Memory(model) as memory:
        take.objectives[0].register_forward_pre_hook(lambda *_: held.append(memory.now))
        take(RowBatch(x_BT, x_BT, 2, torch.zeros(0).numpy()), 1.0, (0, 1))
    size = sum(weight.nbytes for weight in model.parameters())
    return [each / size for each in held], memory.peak / size


@pytest.mark.parametrize("sharpness", ["sam", "asam"])
def test_sam_holds_one_copy_of_the_weights(sharpness: str) -> None:
    plain_passes, plain_peak = memory_of_a_step("none")
    passes, peak = memory_of_a_step(sharpness)
    assert plain_passes == [pytest.approx(0, abs=0.01)]
    assert passes == [pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01)]
    assert 1 <= plain_peak < 1.3, "the gradient, and what little there is besides"
    assert peak < plain_peak + 1.2, "and a few temporary ones, of a weight at a time"


@pytest.mark.parametrize(
    "said",
    [
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        "std::bad_alloc",
        "could not create a primitive",
        "",
    ],
)
def test_a_step_that_runs_out_of_memory_is_taken_again_in_smaller_parts(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = a_recipe(batches={"block_size": BLOCK, "batch_size": 8}, optim={"name": "adamw", "sharpness": "sam"})
    x_BT, y_BT = torch.randint(0, VOCAB, (2, 8, BLOCK)).unbind(0)
    batch = RowBatch(x_BT, y_BT, 8 * BLOCK, torch.zeros(0).numpy())
    (short, step), (plain, in_parts) = a_step(recipe), a_step(recipe, positions=2 * BLOCK)
    right = Objective.forward

    def within_two_rows(self: Objective, rows: Rows, rdrop: bool = True) -> tuple[Tensor, Tensor]:
        if len(rows.x_N) > 2 * BLOCK:
            raise RuntimeError(said) if said else MemoryError
        return right(self, rows, rdrop)

    in_parts(batch, 1.0, (1, 1))
    monkeypatch.setattr(Objective, "forward", within_two_rows)
    result = step(batch, 1.0, (1, 1))
    assert result.finite
    assert step.positions == 2 * BLOCK
    for one, other in zip(short.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)

    monkeypatch.setattr(Objective, "forward", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        step(batch, 1.0, (1, 2))
    assert step.positions == BLOCK
