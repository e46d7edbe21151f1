"""The training loss over chunks against cross-entropy written out in float64: value and gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from shortrun.model.gpt import GPT
from shortrun.model.language_model import LanguageModel
from shortrun.recipe import GPT2_VOCABULARY, ModelConfig, TrainConfig
from shortrun.score import cross_entropy
from shortrun.score.cross_entropy import CHUNK, largest
from shortrun.score.evaluate import document_nats, official_loss
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.rows import IGNORE, Rows
from shortrun.train import objective
from shortrun.train.objective import Objective, training_loss
from tests.test_scores import BLOCK, VOCAB, Headless, a_model

D, V = 16, 50


def symmetric_divergence(one_NV: Tensor, other_NV: Tensor) -> Tensor:
    p, q = one_NV.softmax(-1), other_NV.softmax(-1)
    return ((p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)) / 2


def written_out(hidden: Tensor, head: Tensor, targets: Tensor, smoothing: float, rdrop: float) -> tuple[Tensor, Tensor]:
    """The objective and the nats by torch's own cross_entropy over the whole logits."""
    logits = hidden @ head.t()
    nats = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    objective = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
    if rdrop:
        counted = targets.chunk(2)[0] != IGNORE
        objective = objective + 2 * rdrop * symmetric_divergence(*logits.chunk(2))[counted].sum()
    return objective, nats


def material(rows: int, seed: int, ignored: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of two passes over `rows` targets, a head, and the targets twice, in float64."""
    made = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2 * rows, D, generator=made, dtype=torch.float64)
    head = 0.3 * torch.randn(V, D, generator=made, dtype=torch.float64)
    targets = torch.randint(V, (rows,), generator=made)
    if ignored:
        targets[torch.rand(rows, generator=made) < 0.3] = IGNORE
    return hidden, head, targets.repeat(2)


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [gradient.double() for gradient in torch.autograd.grad(loss / 7, inputs)]


@given(
    rows=st.integers(1, 40),
    chunk=st.integers(1, 2000),
    smoothing=st.sampled_from([0.0, 0.1]),
    rdrop=st.sampled_from([0.0, 2.0]),
    strip=st.integers(1, 2000),
    ignored=st.booleans(),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 0.02)]
)
def test_it_is_cross_entropy(
    dtype: torch.dtype,
    tolerance: float,
    rows: int,
    chunk: int,
    smoothing: float,
    rdrop: float,
    strip: int,
    ignored: bool,
    seed: int,
) -> None:
    hidden, head, targets = (x.requires_grad_() if x.is_floating_point() else x for x in material(rows, seed, ignored))
    expected, expected_nats = written_out(hidden, head, targets, smoothing, rdrop)
    expected_gradients = gradients(expected, hidden, head)
    kind = torch.float32 if dtype == torch.bfloat16 else dtype
    hidden, head = hidden.detach().to(kind).requires_grad_(), head.detach().to(kind).requires_grad_()
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        patch.setattr(cross_entropy, "CHUNK", chunk)
        patch.setattr(objective, "STRIP", strip)
        found, nats = training_loss(hidden, head, targets, label_smoothing=smoothing, rdrop=rdrop)
    found_value, expected_value, scale = found.item(), expected.item(), 1 + expected_nats.item()
    assert abs(found_value - expected_value) <= tolerance * (scale + abs(expected_value))
    assert abs(nats.item() - expected_nats.item()) <= tolerance * scale
    for got, wanted in zip(gradients(found, hidden, head), expected_gradients, strict=True):
        assert float((got - wanted).norm()) <= tolerance * (1 + float(wanted.norm()))


@given(
    rows=st.integers(1, 40),
    smoothing=st.sampled_from([0.0, 0.1]),
    rdrop=st.sampled_from([0.0, 2.0]),
    ignored=st.booleans(),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 0.02)]
)
def test_without_a_head_it_is_cross_entropy_of_the_logits(
    dtype: torch.dtype, tolerance: float, rows: int, smoothing: float, rdrop: float, ignored: bool, seed: int
) -> None:
    hidden, head, targets = material(rows, seed, ignored)
    logits = (hidden @ head.t()).to(dtype).double().requires_grad_()  # what the model gives, exactly
    expected, expected_nats = written_out(logits, torch.eye(V, dtype=torch.float64), targets, smoothing, rdrop)
    given_logits = logits.detach().to(dtype).requires_grad_()
    found, nats = training_loss(given_logits, None, targets, label_smoothing=smoothing, rdrop=rdrop)
    scale = 1 + expected_nats.item()
    assert abs(found.item() - expected.item()) <= tolerance * (scale + abs(expected.item()))
    assert abs(nats.item() - expected_nats.item()) <= tolerance * scale
    (got,), (wanted,) = gradients(found, given_logits), gradients(expected, logits)
    assert float((got - wanted).norm()) <= tolerance * (1 + float(wanted.norm()))


@pytest.mark.parametrize("switches", [{}, {"label_smoothing": 0.1, "rdrop": 1.0}], ids=["plain", "all"])
def test_a_model_without_a_linear_head_is_trained_alike(switches: dict[str, float]) -> None:
    """The same GPT, its head known or not: the same loss, and the same gradient in every weight."""
    ids = torch.randint(0, VOCAB, (2, 3, BLOCK), generator=torch.Generator().manual_seed(4))
    ids[1, 2, 4:] = IGNORE
    losses, found = [], []
    for wrap in (lambda gpt: gpt, Headless):
        gpt = a_model()
        model: LanguageModel = wrap(gpt)
        torch.manual_seed(9)  # of dropout
        objective, nats = Objective(model, TrainConfig.model_validate(switches)).train()(Rows.of(*ids))
        objective.backward()
        losses.append([objective.item(), nats.item()])
        found.append({name: weight.grad for name, weight in gpt.named_parameters() if weight.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
    assert found[0].keys() == found[1].keys() == dict(a_model().named_parameters()).keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], rtol=1e-9, atol=1e-12), name


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that is made under it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else [result]:
            if isinstance(made, Tensor):
                self.elements = max(self.elements, made.numel())
        return result


def test_the_logits_are_never_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor that the loss makes is as large as the logits, in its forward or its backward pass."""
    monkeypatch.setattr(cross_entropy, "CHUNK", 10 * V)
    hidden, head = torch.randn(400, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    with Largest() as largest:
        found, _ = training_loss(hidden, head, torch.randint(V, (400,)), label_smoothing=0.1)
        found.backward()  # type: ignore[no-untyped-call]
    assert 0 < largest.elements <= 400 * D < 400 * V


def test_scoring_never_holds_all_logits_of_a_large_vocabulary() -> None:
    """Of 1,100 targets over GPT-2's vocabulary, neither the documents' losses nor the official one."""
    model = GPT(ModelConfig(n_layer=1, n_head=1, d_model=8), GPT2_VOCABULARY, 64, eos=1)
    encoded = EncodedDocuments.of([[5, 6, 7] * 18] * 20, 1)
    assert len(encoded.ids_N) == 1_100 > 3 * CHUNK / GPT2_VOCABULARY
    with Largest() as largest:
        document_nats(model, encoded)
    assert 0.9 * CHUNK < largest.elements <= CHUNK
    with Largest() as largest:
        official_loss(model, encoded.ids_N, 1_000, block_size=64, batch_size=17)
    assert 0.9 * CHUNK < largest.elements <= CHUNK


def test_nats_are_exact_enough_in_bfloat16_to_compare() -> None:
    """The logits are rounded; what is made of them is not: against float64 from the same rounded logits."""
    torch.manual_seed(0)
    hidden, head, targets = torch.randn(500, D), torch.randn(V, D), torch.randint(V, (500,))
    logits = (hidden.bfloat16() @ head.bfloat16().t()).double()
    with torch.autocast("cpu", torch.bfloat16):
        _, nats = training_loss(hidden, head, targets)
    assert float(nats) / 500 == pytest.approx(float(F.cross_entropy(logits, targets)), abs=1e-3)


def test_a_confident_mistake_and_an_infinity() -> None:
    """A probability that underflows has a finite loss; a number that is none stays visible."""
    hidden, head = torch.zeros(2, 1), torch.linspace(0, 1000, V)[:, None]
    hidden[0] = 1.0
    with torch.autocast("cpu", torch.bfloat16):
        _, nats = training_loss(hidden, head, torch.tensor([0, 0]))
    assert float(nats) == pytest.approx(1000 + torch.tensor(float(V)).log().item(), rel=1e-2)
    _, nats = training_loss(torch.full((1, 1), torch.inf), head, torch.tensor([0]))
    assert not torch.isfinite(nats)


@given(st.lists(st.floats(width=16, allow_nan=False), min_size=1, max_size=9))
def test_the_largest_of_bfloat16_is_torchs_own(numbers: list[float]) -> None:
    all_signs = torch.tensor([numbers]).to(torch.bfloat16)
    for x_CV in (all_signs, all_signs.T.contiguous()):  # in one row, and each in a row of its own
        assert torch.equal(largest(x_CV), x_CV.amax(dim=-1, keepdim=True))


def test_a_nan_is_the_largest() -> None:
    x_CV = torch.tensor([[1.0, math.nan, 3.0], [math.nan] * 3]).to(torch.bfloat16)
    assert largest(x_CV).isnan().all()
