"""Rows without padding, how attention groups them, and that a model computes each as if it were alone."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from shortrun.model import layout
from shortrun.model.gpt import GPT
from shortrun.model.layout import GRID, Group, Layout, cuts
from shortrun.recipe import ModelConfig
from shortrun.tokens.rows import IGNORE, Rows
from tests.conftest import EVERY_MODEL

CPU = torch.device("cpu")
EOS, VOCAB, BLOCK = 1, 24, 64
some_lengths = st.lists(st.integers(1, 9), min_size=1, max_size=12)
MIXED = [30, 31, 29, 30, 30, 64, 64, 64, 9, 1, 2, 2, 3, 4, 9]
"""Rows in no order, of which attention makes several groups."""


def some_rows(lengths: list[int]) -> Rows:
    """Rows in which no token stands twice; 2 behind each is its target."""
    x_N = torch.arange(100, 100 + sum(lengths))
    return Rows(x_N, x_N + 2, np.array(lengths))


def each(rows: Rows) -> list[tuple[list[int], list[int]]]:
    lengths = rows.lengths_B.tolist()
    return [
        (x.tolist(), y.tolist())
        for x, y in zip(torch.split(rows.x_N, lengths), torch.split(rows.y_N, lengths), strict=True)
    ]


def test_rows_of_equal_length() -> None:
    x_BT, y_BT = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[2, 3, IGNORE], [5, 6, 7]])
    rows = Rows.of(x_BT, y_BT)
    assert each(rows) == [([1, 2, 3], [2, 3, IGNORE]), ([4, 5, 6], [5, 6, 7])]
    assert rows.lengths_B.dtype == np.int64
    assert torch.equal(rows.padded()[0], x_BT)
    assert rows.padded()[1].tolist() == list(range(6))


@given(some_lengths)
def test_twice_is_the_same_rows_once_more(lengths: list[int]) -> None:
    rows = some_rows(lengths)
    assert each(rows.twice()) == 2 * each(rows)


@given(some_lengths)
def test_padded_rows_begin_in_the_first_column(lengths: list[int]) -> None:
    rows = some_rows(lengths)
    x_BT, place_N = rows.padded()
    assert x_BT.tolist() == [x + [0] * (max(lengths) - len(x)) for x, _ in each(rows)]
    assert torch.equal(x_BT.flatten()[place_N], rows.x_N)


@given(some_lengths, st.integers(1, 70))
def test_filled_rows_are_the_rows_and_others_that_count_for_nothing(lengths: list[int], multiple: int) -> None:
    rows = some_rows(lengths)
    filled = rows.filled(multiple, token=7)
    assert len(filled.x_N) % multiple == 0
    assert 0 <= len(filled.x_N) - len(rows.x_N) < multiple, "no more than there must be"
    assert each(filled)[: len(lengths)] == each(rows)
    for x, y in each(filled)[len(lengths) :]:
        assert 1 <= len(x) <= max(lengths), "a model's longest row stays the longest"
        assert (set(x), set(y)) == ({7}, {IGNORE})
    assert filled.x_N.dtype == filled.y_N.dtype == torch.int64
    assert filled.lengths_B.dtype == np.int64


def cost(lengths: list[int], found: list[tuple[int, int]], group: int) -> int:
    """Positions that are padded, and so many for each group."""
    return sum(group + sum(max(lengths[first:stop]) - n for n in lengths[first:stop]) for first, stop in found)


@given(
    runs=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 4)), min_size=1, max_size=9),
    group=st.sampled_from([0, 1, 7, 40, 128, 1000]),
)
@example([(1, 1), (100, 3), (1, 4), (100, 1)], 128)
def test_cuts_are_the_cheapest_of_all(runs: list[tuple[int, int]], group: int) -> None:
    """All rows in order; groups begin where the length changes, and no other choice of them costs less."""
    lengths = [length for length, count in runs for _ in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "GROUP", group)
        found = cuts(np.array(lengths))
    assert [first for first, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == len(lengths)
    changes = [place for place in range(1, len(lengths)) if lengths[place - 1] != lengths[place]]
    assert {first for first, _ in found} <= {0, *changes}
    ways = [chosen for number in range(len(changes) + 1) for chosen in combinations(changes, number)]
    least = min(cost(lengths, list(pairwise([0, *way, len(lengths)])), group) for way in ways)
    assert cost(lengths, found, group) == least


def groups_of(lengths: list[int], group: int) -> tuple[Group, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "GROUP", group)
        return Layout.of(np.array(lengths), CPU).groups


@given(some_lengths, st.sampled_from([0, 3, 128]), st.booleans())
def test_groups_pad_their_rows_and_take_the_padding_away(lengths: list[int], group: int, bfloat16: bool) -> None:
    """Where products are in bfloat16, to a grid, unless all rows are equally long."""
    x_ND = torch.randn(sum(lengths), 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        groups = groups_of(lengths, group)
    rows = [sum(part.first <= end <= part.stop - 1 for end in np.cumsum(lengths) - 1) for part in groups]
    if bfloat16 and len(set(lengths)) > 1:
        assert all(part.rows % GRID == part.width % GRID == 0 for part in groups)
        assert all(0 <= part.rows - count < GRID for part, count in zip(groups, rows, strict=True))
    else:
        assert [part.rows for part in groups] == rows
    padded = [row for part, count in zip(groups, rows, strict=True) for row in part.pad(x_ND)[:count]]
    assert not any(part.pad(x_ND)[count:].any() for part, count in zip(groups, rows, strict=True))
    for length, row_TD, expected_TD in zip(lengths, padded, torch.split(x_ND, lengths), strict=True):
        assert torch.equal(row_TD[:length], expected_TD)
        assert not row_TD[length:].any()
    assert torch.equal(torch.cat([part.unpad(part.pad(x_ND)) for part in groups]), x_ND)


@pytest.mark.parametrize("lengths", [[4], [3, 3], [2, 3, 1], [1, 1, 5, 5, 4]])
@pytest.mark.parametrize("group", [0, 128])
def test_gradients_go_through_padding_and_back(lengths: list[int], group: int) -> None:
    groups = groups_of(lengths, group)
    assert len(groups) > 1 or group or len(set(lengths)) == 1
    x_ND = torch.randn(sum(lengths), 2, dtype=torch.float64, requires_grad=True)

    def there(x_ND: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.pad(x_ND) for part in groups)

    def back(*padded: Tensor) -> Tensor:
        return torch.cat([part.unpad(x_BTD) for part, x_BTD in zip(groups, padded, strict=True)])

    padded = [torch.randn(part.rows, part.width, 2, dtype=torch.float64, requires_grad=True) for part in groups]
    assert torch.autograd.gradcheck(there, (x_ND,))
    assert torch.autograd.gradcheck(back, tuple(padded))


@given(some_lengths, st.sampled_from([0, 3, 128]))
def test_places_count_from_the_beginning_of_each_row(lengths: list[int], group: int) -> None:
    found = Layout(groups_of(lengths, group)).places(CPU)
    assert found.tolist() == [place for length in lengths for place in range(length)]


def test_a_layout_of_equal_rows_is_one_group_without_padding() -> None:
    (group,) = Layout.of(np.full(5, 3), CPU).groups
    assert Layout.of(np.full(5, 3), CPU) == Layout.full(5, 3)
    assert (group.first, group.stop, group.rows, group.width, group.place) == (0, 15, 5, 3, None)


def a_gpt(**switches: Any) -> GPT:
    torch.manual_seed(1)
    settings = {"n_layer": 2, "n_head": 2, "d_model": 16, "dropout": 0.0} | switches
    model = GPT(ModelConfig.model_validate(settings), VOCAB, BLOCK, EOS)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


SWITCHES = [{}, *({name: value} for name, value in EVERY_MODEL.items()), {"mlp": "relu2"}, EVERY_MODEL]


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: " ".join(switches) if len(switches) < 2 else "all")
@pytest.mark.parametrize("kernel", [False, True], ids=["written out", "torch's kernel"])
@pytest.mark.parametrize("training", [False, True], ids=["scoring", "training"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=["32", "64"])
@torch.no_grad()
def test_rows_together_are_each_alone(
    switches: dict[str, Any],
    kernel: bool,
    training: bool,
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In scoring with dropout that is off, in training without; in both of attention's ways."""
    if kernel:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    model = a_gpt(**switches, **({} if training else {"dropout": 0.5})).to(dtype).train(training)
    if training:
        model.word_dropout = model.word_replacement = 0.0
    x_N = torch.randint(0, VOCAB, (sum(MIXED),))
    for lengths in (MIXED, sorted(MIXED), [7] * 4, [5]):
        x = x_N[: sum(lengths)]
        found = model.hidden(rows_of(x, np.array(lengths)))
        alone = [model.hidden(rows_of(row, np.array([len(row)]))) for row in torch.split(x, lengths)]
        scale = float(found.abs().max())
        assert torch.allclose(found, torch.cat(alone), rtol=0, atol=scale * tolerance)
    assert len(Layout.of(np.array(MIXED), CPU).groups) > 2


def rows_of(x_N: Tensor, lengths_B: NDArray[np.int64]) -> Rows:
    return Rows(x_N, torch.full_like(x_N, IGNORE), lengths_B)


@torch.no_grad()
def test_hidden_states_times_the_head_are_the_logits() -> None:
    model, x_BT = a_gpt().eval(), torch.randint(0, VOCAB, (3, 10))
    hidden_ND = model.hidden(Rows.of(x_BT, x_BT))
    assert torch.allclose((hidden_ND @ model.head_VD.t()).view(3, 10, VOCAB), model(x_BT), atol=1e-5)
