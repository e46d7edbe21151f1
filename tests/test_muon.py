"""Muon moves matrices as torch's does, in either precision, whatever is stacked in one weight and shared with a batch.

Shapes: R rows and C columns of a matrix.
"""

from __future__ import annotations

import re
from math import sqrt
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shortrun.optim.muon import CUBIC, LINEAR, QUINTIC, Muon, orthogonalise

SHAPES = [(48, 16), (16, 48), (32, 32), (48, 16), (7, 5)]
LR, STEPS = 0.02, 4


def matrices(*shapes: tuple[int, int], seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def take_steps(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], first: int = 0, last: int = STEPS
) -> None:
    """Steps with random gradients that follow from the step's number, at a rate and a decay that somebody else sets."""
    for step in range(first, last):
        for parameter, other in zip(parameters, matrices(*map(shape_of, parameters), seed=step + 1), strict=True):
            parameter.grad = other.detach()
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = LR / (1 + step), 0.1 * step
        optimizer.step()


def shape_of(parameter: Tensor) -> tuple[int, int]:
    return parameter.shape[0], parameter.shape[1]


def plain(*parameters: nn.Parameter, dtype: torch.dtype = torch.float32) -> Muon:
    return Muon([(parameter, 1) for parameter in parameters], lr=LR, dtype=dtype)


def buffers(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> list[Tensor]:
    return [optimizer.state[parameter]["momentum_buffer"] for parameter in parameters]


def test_it_is_torchs_in_bfloat16() -> None:
    """But for the last of bfloat16's 8 bits here and there, since a tall matrix is multiplied from its other side; float32's
    difference is everywhere."""
    ours, theirs, exacts = matrices(*SHAPES), matrices(*SHAPES), matrices(*SHAPES)
    mine, torchs = plain(*ours, dtype=torch.bfloat16), torch.optim.Muon(theirs, lr=LR)
    take_steps(mine, ours)
    take_steps(torchs, theirs)
    take_steps(plain(*exacts), exacts)
    for our, their, exact in zip(ours, theirs, exacts, strict=True):
        assert (our - their).abs().max() < STEPS * LR * sqrt(3) / 256
        assert (our - their).abs().mean() < (exact - their).abs().mean() / 10
    assert all(map(torch.equal, buffers(mine, ours), buffers(torchs, theirs)))


def test_it_is_torchs_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's, that is, with its cast to bfloat16 replaced by a copy."""
    ours, theirs = matrices(*SHAPES), matrices(*SHAPES)
    mine, torchs = plain(*ours), torch.optim.Muon(theirs, lr=LR)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    take_steps(mine, ours)
    take_steps(torchs, theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert torch.allclose(our, their, rtol=0, atol=1e-6)
    assert all(map(torch.equal, buffers(mine, ours), buffers(torchs, theirs)))


@pytest.mark.parametrize(("stacked", "R", "C"), [(3, 16, 16), (2, 40, 16), (3, 8, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stacked_matrices_are_matrices_of_their_own(stacked: int, R: int, C: int, dtype: torch.dtype) -> None:
    (whole,) = matrices((stacked * R, C))
    parts = [nn.Parameter(part.clone()) for part in whole.detach().split_with_sizes([R] * stacked)]
    one, many = Muon([(whole, stacked)], lr=LR, dtype=dtype), plain(*parts, dtype=dtype)
    for step in range(STEPS):
        (whole.grad,) = matrices((stacked * R, C), seed=step)
        for part, gradient in zip(parts, whole.grad.split_with_sizes([R] * stacked), strict=True):
            part.grad = gradient.clone()
        one.step()
        many.step()
    assert torch.equal(whole, torch.cat([part.detach() for part in parts]))


def test_company_does_not_matter() -> None:
    """A matrix moves the same among others of its shape and alone."""
    together, alone = matrices((24, 16), (16, 24), (24, 16)), matrices((24, 16))
    take_steps(plain(*together), together)
    take_steps(plain(*alone), alone)
    assert torch.allclose(together[0], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_goes_on_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    def made() -> tuple[list[nn.Parameter], Muon]:
        parameters = matrices((48, 16), (32, 16), (16, 16))
        return parameters, Muon(zip(parameters, (3, 2, 1), strict=True), lr=LR, dtype=dtype)

    through, optimizer = made()
    take_steps(optimizer, through)
    before, optimizer = made()
    take_steps(optimizer, before, last=2)
    torch.save({"optimizer": optimizer.state_dict(), "weights": before}, tmp_path / "state.pt")
    after, optimizer = made()
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    optimizer.load_state_dict(saved["optimizer"])
    with torch.no_grad():
        for parameter, weight in zip(after, saved["weights"], strict=True):
            parameter.copy_(weight)
    take_steps(optimizer, after, first=2)
    assert all(map(torch.equal, after, through))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("momentum", [0.0, 0.95])
def test_gradient_and_momentum_stay_as_they_are(shape: tuple[int, int], momentum: float) -> None:
    """Orthogonalising writes into neither, also without momentum, where the buffer and the look ahead are the gradient."""
    (parameter,) = matrices(shape)
    (gradient,) = matrices(shape, seed=1)
    parameter.grad = gradient.detach().clone()
    optimizer = Muon([(parameter, 1)], lr=LR, momentum=momentum)
    optimizer.step()
    assert torch.equal(parameter.grad, gradient)
    assert torch.allclose(buffers(optimizer, [parameter])[0], (1 - momentum) * gradient, rtol=1e-6)


def test_what_has_no_gradient_stays() -> None:
    moved, left = parameters = matrices((16, 16), (16, 16))
    optimizer = plain(*parameters)
    moved.grad = torch.ones_like(moved)
    optimizer.step()
    assert torch.equal(left, matrices((16, 16), (16, 16))[1])
    assert not torch.equal(moved, matrices((16, 16))[0])
    assert list(optimizer.state) == [moved]


def test_a_gradient_of_zeros_only_decays() -> None:
    (parameter,) = matrices((8, 4))
    parameter.grad = torch.zeros_like(parameter)
    Muon([(parameter, 1)], lr=LR, weight_decay=0.5).step()
    assert torch.allclose(parameter, matrices((8, 4))[0] * (1 - 0.5 * LR))


def test_step_returns_the_closures_loss() -> None:
    (parameter,) = matrices((4, 4))
    optimizer = plain(parameter)

    def closure() -> float:
        loss = parameter.square().sum()
        (parameter.grad,) = torch.autograd.grad(loss, parameter)
        return loss.item()

    expected = parameter.square().sum().item()
    assert optimizer.step(closure) == pytest.approx(expected)
    assert not torch.equal(parameter, matrices((4, 4))[0])


@pytest.mark.parametrize(
    ("shape", "stacked", "because"),
    [
        ((4,), 1, "the shape [4]"),
        ((2, 3, 4), 1, "the shape [2, 3, 4]"),
        ((4, 4), 3, "4 rows are not 3"),
        ((4, 4), 0, "4 rows are not 0"),
    ],
)
def test_refused_parameters(shape: tuple[int, ...], stacked: int, because: str) -> None:
    with pytest.raises(ValueError, match=re.escape(because)):
        Muon([(nn.Parameter(torch.ones(shape)), stacked)], lr=LR)


@pytest.mark.parametrize("setting", [{"lr": -1.0}, {"lr": 1.0, "momentum": 1.0}, {"lr": 1.0, "weight_decay": -1.0}])
def test_refused_settings(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Muon([(nn.Parameter(torch.ones(2, 2)), 1)], **setting)  # type: ignore[arg-type]


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 24), st.integers(1, 24))
@settings(max_examples=60, deadline=None)
def test_orthogonalised_singular_values(seed: int, N: int, R: int, C: int) -> None:
    """They are near 1, and exactly the polynomial of those before, between the same singular vectors."""
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(N, R, C, generator=generator, dtype=torch.float64), full_matrices=False)
    values = 0.2 + torch.rand(N, 1, min(R, C), generator=generator, dtype=torch.float64)
    expected = values / values.norm(dim=-1, keepdim=True)
    for _ in range(5):
        expected = LINEAR * expected + CUBIC * expected**3 + QUINTIC * expected**5
    found = orthogonalise(((u * values) @ v).float(), steps=5)
    assert torch.allclose(found.double(), (u * expected) @ v, atol=1e-5)
    singular = torch.linalg.svdvals(found)
    assert singular.min() > 0.68
    assert singular.max() < 1.14
