"""`flops_per_token` is what torch counts in the products of a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from shortrun.model.gpt import GPT
from shortrun.recipe import ModelConfig, TrainConfig
from shortrun.tokens.rows import Rows
from shortrun.train.objective import Objective

VOCAB, EOS, B, T = 300, 1, 3, 48


def a_gpt(**switches: Any) -> GPT:
    settings = {"n_layer": 3, "n_head": 4, "d_model": 32, "dropout": 0.0} | switches
    return GPT(ModelConfig.model_validate(settings), VOCAB, T, EOS)


def counted(model: GPT, row_length: int) -> float:
    """Of a forward and a backward pass, the loss among them, for each token."""

    def added_in_place(_: torch.Size, left: torch.Size, right: torch.Size, **__: Any) -> int:
        """The counter does not know addmm_, by which the loss sums the head's gradient over chunks."""
        return 2 * left[0] * left[1] * right[1]

    x_BT = torch.randint(0, VOCAB, (B, row_length))
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added_in_place}) as counter:
        Objective(model, TrainConfig()).train()(Rows.of(x_BT, x_BT))[0].backward()
    return float(counter.get_total_flops()) / x_BT.numel()


@pytest.mark.parametrize("row_length", [1, 7, T])
@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"tied_head": False},
        {"embedding_width": 8},
        {"embedding_width": 8, "tied_head": False},
        {"output_gate": True},
        {"mlp": "swiglu"},
        {"mlp": "relu2", "positions": "rotary", "qk_norm": True},
        {"tied_head": False, "output_gate": True, "mlp": "swiglu", "block": "parallel", "bias": False},
    ],
    ids=lambda switches: " ".join(switches) or "plain",
)
def test_it_is_what_torch_counts(switches: dict[str, Any], row_length: int) -> None:
    """Attention is counted whole, as it is computed: each position's products with all positions of its row."""
    model = a_gpt(**switches)
    assert model.flops_per_token(row_length) == pytest.approx(counted(model, row_length), rel=1e-9)


def test_only_products_are_counted() -> None:
    """An embedding is looked up, so a head of its own adds parameters and no operations."""
    tied, untied = a_gpt(), a_gpt(tied_head=False)
    assert untied.count_parameters() == tied.count_parameters() + VOCAB * 32
    assert untied.flops_per_token(T) == tied.flops_per_token(T)
    assert counted(untied, T) == counted(tied, T)
