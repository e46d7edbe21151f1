"""What is written out for CPUs gives what torch's own operations give, and so do its gradients."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shortrun.model import attention, kernels
from shortrun.model.gpt import GPT
from shortrun.model.layout import Layout
from shortrun.recipe import ModelConfig
from shortrun.tokens.rows import Rows

VOCAB, BLOCK = 40, 24
LENGTHS = ((24, 24), (24, 17, 17, 9, 3, 1), (1, 1))


def never(_: Tensor) -> bool:
    return False


def a_model(dtype: torch.dtype, **changes: Any) -> GPT:
    torch.manual_seed(0)
    config = ModelConfig(**{"n_layer": 2, "n_head": 2, "d_model": 16, "dropout": 0.0, **changes})
    model = GPT(config, VOCAB, BLOCK, eos=1).to(dtype)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)
    return model


def hidden_and_gradients(model: GPT, lengths: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(1)
    x_N = torch.randint(2, VOCAB, (sum(lengths),))
    hidden_ND = model.hidden(Rows(x_N, x_N, np.array(lengths)))
    model.zero_grad()
    (hidden_ND * torch.randn(hidden_ND.shape).to(hidden_ND.dtype)).sum().backward()  # type: ignore[no-untyped-call]
    return [hidden_ND.detach(), *(each.grad.clone() for each in model.parameters() if each.grad is not None)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(
    ("positions", "qk_norm", "gate", "norm", "bias", "mlp"),
    [
        *product(("learned", "rotary"), (False, True), (False, True), ("rmsnorm",), (False,), ("relu2",)),
        ("rotary", True, True, "layernorm", True, "relu2"),
        ("learned", False, True, "layernorm", True, "swiglu"),
        ("rotary", True, False, "rmsnorm", True, "gelu"),
    ],
)
@pytest.mark.parametrize("block", ["sequential", "parallel"])
def test_it_agrees_with_torchs_own_operations(
    lengths: tuple[int, ...],
    positions: str,
    qk_norm: bool,
    gate: bool,
    norm: str,
    bias: bool,
    mlp: str,
    block: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"positions": positions, "qk_norm": qk_norm, "output_gate": gate, "norm": norm, "bias": bias, "mlp": mlp}
    model = a_model(torch.float64, **given, block=block, layer_scale=0.5)
    written_out = hidden_and_gradients(model, lengths)
    for module in (attention, kernels):
        monkeypatch.setattr(module, "written_out", never)
    plain = hidden_and_gradients(model, lengths)
    assert len(plain) == len(written_out) == 1 + len(list(model.parameters())) - (positions == "none")
    for mine, theirs in zip(written_out, plain, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-6, atol=1e-6 * float(theirs.abs().max()))


def test_bfloat16_stays_as_near_to_float32_as_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = a_model(torch.float32, positions="rotary", norm="rmsnorm", mlp="relu2", output_gate=True, bias=False)
    exact = hidden_and_gradients(model, LENGTHS[1])
    with torch.autocast("cpu", torch.bfloat16):
        written_out = hidden_and_gradients(model, LENGTHS[1])
        for module in (attention, kernels):
            monkeypatch.setattr(module, "written_out", never)
        plain = hidden_and_gradients(model, LENGTHS[1])
    for right, mine, theirs in zip(exact, written_out, plain, strict=True):
        assert (mine - right).norm() < 1.5 * (theirs - right).norm() + 0.01 * right.norm()


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_dropout_drops_its_share_and_its_gradient_passes_the_same(p: float) -> None:
    x_ND, y_ND = torch.randn(500, 40, requires_grad=True), torch.ones(500, 40, requires_grad=True)
    out_ND = kernels.add_dropped(x_ND, y_ND * 1, p)
    kept_ND = (out_ND - x_ND).detach()
    share = (kept_ND.abs() < 1e-6).float().mean().item()
    assert abs(share - p) < 0.02
    out_ND.sum().backward()  # type: ignore[no-untyped-call]
    assert y_ND.grad is not None
    assert x_ND.grad is not None
    assert torch.allclose(y_ND.grad, kept_ND, atol=1e-5)
    assert torch.equal(x_ND.grad, torch.ones_like(x_ND))


@pytest.mark.parametrize("on_a_grid", [False, True])
def test_dropped_attention_weights_have_the_gradient_of_what_was_kept(on_a_grid: bool) -> None:
    """Against finite differences, the same ones dropped each time."""
    layer = attention.CausalSelfAttention(
        ModelConfig(n_head=2, d_model=8, dropout=0.3, positions="rotary", output_gate=True), BLOCK
    ).double()
    with torch.autocast("cpu", enabled=on_a_grid):
        layout = Layout.of(np.array([5, 5, 3]), torch.device("cpu"))
    assert layout.groups[0].rows == (8 if on_a_grid else 3)

    def out(x_ND: Tensor) -> Tensor:
        torch.manual_seed(7)
        found: Tensor = layer(x_ND, layout)
        return found

    assert torch.autograd.gradcheck(out, torch.randn(13, 8, dtype=torch.float64, requires_grad=True))
