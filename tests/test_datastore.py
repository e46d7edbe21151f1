"""The datastore: what it recalls against sums written out, and a run that has one from its last step to every reader."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortrun.errors import ShortrunError, UserError
from shortrun.model import datastore as module
from shortrun.model.datastore import Datastore, keys_of, main_directions
from shortrun.model.language_model import LinearHead
from shortrun.runs import datastores
from shortrun.runs.checkpoints import newest_checkpoint, weights_sha256
from shortrun.runs.datastores import DATASTORES
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import Trained, load_step, load_trained
from shortrun.score.evaluate import document_nats
from shortrun.train.combine import combine
from shortrun.train.fit import resume, train
from shortrun.train.prepare import prepare
from tests.conftest import run_command, scores_of, tiny_recipe
from tests.test_check import assert_all_kept, judged

V, D = 7, 5
WITH = {"weight": 0.3, "width": 8}


def made(
    hidden_ND: Tensor, tokens_N: Tensor, basis_DW: Tensor, sharpness: float = 22.0, weight: float = 0.3
) -> Datastore:
    order_N = torch.argsort(tokens_N, stable=True)
    keys_NW = keys_of(hidden_ND[order_N], basis_DW)
    return Datastore(basis_DW, keys_NW, tokens_N[order_N].int(), vocab_size=V, weight=weight, sharpness=sharpness)


@given(
    st.lists(st.integers(0, V - 1), min_size=1, max_size=40),
    st.integers(0, 99),
    st.sampled_from([0.5, 22.0, 40.0]),
    st.integers(1, 50),
    st.integers(1, V),
)
def test_a_token_is_recalled_by_its_contexts_share_of_all_weights(
    tokens: list[int], seed: int, sharpness: float, entries: int, spread: int
) -> None:
    """However many entries are asked at a time."""
    generator = torch.Generator().manual_seed(seed)
    hidden_ND, asked_CD = (torch.randn(count, D, generator=generator) for count in (len(tokens), 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ENTRIES", entries)
        patch.setattr(module, "TOKENS", spread)
        store = made(hidden_ND, torch.tensor(tokens), torch.eye(D), sharpness)
    found_CV = store.recalled(asked_CD)
    weights_CN = (sharpness * F.cosine_similarity(asked_CD[:, None].double(), hidden_ND.double(), dim=2)).exp()
    expected_CV = torch.zeros(4, V, dtype=torch.float64).index_add_(1, torch.tensor(tokens), weights_CN)
    expected_CV /= expected_CV.sum(dim=1, keepdim=True)
    assert torch.allclose(found_CV.double(), expected_CV, rtol=1e-3, atol=1e-6)
    assert torch.allclose(found_CV.sum(dim=1), torch.ones(4), atol=1e-5)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 9))
def test_stretches_of_entries_cover_all_and_stay_small(tokens: list[int], entries: int, spread: int) -> None:
    tokens_N = torch.tensor(sorted(tokens), dtype=torch.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ENTRIES", entries)
        patch.setattr(module, "TOKENS", spread)
        cuts = list(module._cuts(tokens_N))
    assert [place for first, stop in cuts for place in range(first, stop)] == list(range(len(tokens)))
    for first, stop in cuts:
        assert 0 < stop - first <= entries
        assert tokens_N[stop - 1] - tokens_N[first] < spread


@given(st.integers(0, 99))
def test_the_mixture_is_a_distribution_and_gives_the_datastore_its_share(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = torch.randn(20, D, generator=generator)
    store = made(hidden_ND, torch.randint(0, V - 1, (20,), generator=generator), torch.eye(D))
    logits_CV = torch.randn(20, V, generator=generator)
    p_CV = store.mixed(logits_CV, hidden_ND).exp()
    assert torch.allclose(p_CV.sum(dim=1), torch.ones(20), atol=1e-5)
    assert torch.allclose(p_CV, 0.7 * logits_CV.softmax(dim=1) + 0.3 * store.recalled(hidden_ND), atol=1e-6)
    assert torch.allclose(p_CV[:, -1], 0.7 * logits_CV.softmax(dim=1)[:, -1], atol=1e-6), "which followed nothing"


def test_what_is_next_to_impossible_stays_possible() -> None:
    store = made(torch.randn(4, D), torch.zeros(4, dtype=torch.int64), torch.eye(D))
    logits_CV = torch.tensor([[0.0] * (V - 1) + [-300.0]])
    found_CV = store.mixed(logits_CV, torch.randn(1, D))
    assert found_CV[0, -1].item() == pytest.approx(-300 - np.log(V - 1) + np.log(0.7), abs=1e-3)


def test_bfloat16_keys_recall_what_float32_ones_do() -> None:
    hidden_ND = torch.randn(500, 64)
    exact = made(hidden_ND, torch.randint(0, V, (500,)), torch.eye(64))
    rounded = Datastore(
        exact.basis_DW, exact.keys_NW.bfloat16(), exact.tokens_N, vocab_size=V, weight=0.3, sharpness=22.0
    )
    near_CD = hidden_ND[:50] + 0.5 * torch.randn(50, 64)
    assert torch.allclose(rounded.recalled(near_CD), exact.recalled(near_CD), rtol=0.03, atol=0.003)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_asked_beside_a_context_does_not_move_its_answer(dtype: torch.dtype) -> None:
    hidden_ND = torch.randn(6000, 64)
    exact = made(hidden_ND, torch.randint(0, V, (6000,)), torch.eye(64))
    store = Datastore(exact.basis_DW, exact.keys_NW.to(dtype), exact.tokens_N, vocab_size=V, weight=0.3, sharpness=22.0)
    asked_CD = torch.randn(300, 64)
    together_CV = store.recalled(asked_CD).log()
    alone_CV = torch.cat([store.recalled(some_CD) for some_CD in torch.split(asked_CD, [1, 2, 40, 257])]).log()
    assert torch.allclose(together_CV, alone_CV, atol=1e-4)
    assert torch.backends.mkldnn.matmul.fp32_precision == "none", "as it was"  # type: ignore[attr-defined]


def test_it_can_be_asked_in_float64() -> None:
    hidden_ND, tokens_N = torch.randn(40, D), torch.randint(0, V, (40,))
    store = made(hidden_ND, tokens_N, torch.eye(D))
    before_CV = store.recalled(hidden_ND[:3])
    found_CV = store.double().recalled(hidden_ND[:3].double())
    assert found_CV.dtype == torch.float64
    assert torch.allclose(found_CV, before_CV.double(), atol=1e-5)


def test_directions_are_those_in_which_hidden_states_are_longest() -> None:
    long_ND = torch.randn(400, D) * torch.tensor([0.1, 9.0, 0.1, 3.0, 0.1])
    basis_DW = main_directions(torch.split(long_ND, 150), 2)
    assert torch.allclose(basis_DW.abs()[[1, 3], [0, 1]], torch.ones(2), atol=0.02)
    assert main_directions([long_ND], 99).shape == (D, D)


@pytest.fixture(scope="module")
def run(titles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A run with or without a datastore, made once; to look at, not to change."""
    folder = tmp_path_factory.mktemp("datastores")
    file = folder / "titles.txt"
    file.write_text("\n".join(titles) + "\n", encoding="utf-8")

    def make(name: str, **sections: dict[str, object]) -> Path:
        if not (folder / name).exists():
            train(tiny_recipe(file, **sections), folder / name)
        return folder / name

    return make


def nats_of(trained: Trained, path: Path) -> np.ndarray:
    prepared = prepare(RunFolder.open(path).recipe(), trained.tokenizer)
    with trained.computing():
        return document_nats(trained.model, prepared.validation.encoded)


def test_a_datastore_changes_the_loss_and_no_weight(run: Callable[..., Path]) -> None:
    plain, having = run("plain"), run("having", datastore=WITH)
    without, trained = load_trained(plain), load_trained(having)
    assert weights_sha256(without.model) == weights_sha256(trained.model)
    assert scores_of(having)["loss"] < scores_of(plain)["loss"] - 0.01
    assert scores_of(having)["parameters"] == scores_of(plain)["parameters"]
    store = trained.model.datastore
    assert store is not None
    assert len(store.tokens_N) == RunFolder.open(having).manifest()["tokenizer"]["train_tokens"]
    assert np.array_equal(nats_of(trained, having), np.load(having / "nats.npz")["validation"])


def test_only_the_last_step_has_one_and_a_resumed_run_gets_the_same(run: Callable[..., Path], tmp_path: Path) -> None:
    having = run("having", datastore=WITH)
    recipe = RunFolder.open(having).recipe()
    train(recipe, tmp_path / "cut", max_steps=3)
    assert load_step(tmp_path / "cut", 3).model.datastore is None
    resume(tmp_path / "cut")
    files = [next(iter(sorted((path / "checkpoints").glob(f"*/{DATASTORES}")))) for path in (having, tmp_path / "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert scores_of(tmp_path / "cut")["loss"] == scores_of(having)["loss"]
    assert len(list((having / "checkpoints").glob(f"*/{DATASTORES}"))) == 1


def test_memory_that_is_too_small_for_it_costs_no_step(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    having = run("having", datastore=WITH)
    recipe, loop = RunFolder.open(having).recipe(), importlib.import_module("shortrun.train.loop")

    def no_room(*_: object) -> tuple[int, int]:
        raise MemoryError("12 GB")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "remember", no_room)
        with pytest.raises(
            ShortrunError, match=r"datastore does not fit into memory \(12 GB\).*0000044, with all steps"
        ):
            train(recipe, tmp_path / "short")
    monkeypatch.setattr(loop.Loop, "_step", None)  # no step is left to take
    resume(tmp_path / "short")
    assert scores_of(tmp_path / "short")["loss"] == scores_of(having)["loss"]
    assert len(list((tmp_path / "short" / "checkpoints").glob(f"*/{DATASTORES}"))) == 1
    assert newest_checkpoint(RunFolder.open(tmp_path / "short"))[1] == []


def test_all_that_a_linear_head_is_known_by_is_its_class(run: Callable[..., Path]) -> None:
    """As from Python 3.12 on `isinstance` of a protocol asks for it."""
    model = load_trained(run("having", datastore=WITH)).model
    assert model.datastore is not None
    for member in ("head_VD", "hidden"):
        inspect.getattr_static(model, member)
    assert {name for name in vars(LinearHead) if not name.startswith("_")} == {"head_VD", "hidden"}
    assert not LinearHead.__annotations__


def test_a_bfloat16_datastore_is_found_causal(run: Callable[..., Path], tmp_path: Path) -> None:
    path = run("bfloat16", datastore=WITH, train={"precision": "bfloat16"})
    store = load_trained(path).model.datastore
    assert store is not None
    assert store.keys_NW.dtype == torch.bfloat16
    assert_all_kept(judged(path, tmp_path))


def test_show_says_which_losses_have_it(run: Callable[..., Path]) -> None:
    shown = {"plain": run_command("show", run("plain")).stdout}
    shown["having"] = run_command("show", run("having", datastore=WITH)).stdout
    assert "0.3 of each prediction from the last step's evaluation on" in " ".join(shown["having"].split())
    assert "of each prediction" not in shown["plain"]


def test_the_rules_are_kept_and_the_datastore_is_disclosed(run: Callable[..., Path], tmp_path: Path) -> None:
    verdicts = judged(run("having", datastore=WITH), tmp_path)
    assert_all_kept(verdicts)
    assert "training contexts, which took one more look at them" in str(verdicts["cost disclosed"])


def test_an_ensemble_of_runs_keeps_the_datastore_of_each(run: Callable[..., Path], tmp_path: Path) -> None:
    having, other = run("having", datastore=WITH), run("other", train={"seed": 5}, datastore={**WITH, "weight": 0.5})
    plain = run("plain")
    combine([having, plain, other], tmp_path / "all")
    model = load_trained(tmp_path / "all").model
    weights = [learner.datastore and learner.datastore.weight for learner in model.learners()]
    assert weights == [0.3, None, 0.5]
    assert np.array_equal(
        nats_of(load_trained(tmp_path / "all"), having), np.load(tmp_path / "all" / "nats.npz")["validation"]
    )


def test_members_that_learn_together_have_one_each(run: Callable[..., Path]) -> None:
    both = load_trained(run("both", model={"members": 2}, datastore=WITH)).model
    first, second = (learner.datastore for learner in both.learners())
    assert first is not None
    assert second is not None
    assert torch.equal(first.tokens_N, second.tokens_N)
    assert not torch.equal(first.keys_NW, second.keys_NW)


@pytest.mark.parametrize(
    "command", [["export", "RUN", "OUT"], ["export", "RUN", "OUT", "--format", "onnx"], ["page", "RUN", "OUT.html"]]
)
def test_what_can_not_hold_one_says_so(command: list[str], run: Callable[..., Path], tmp_path: Path) -> None:
    having = run("having", datastore=WITH)
    done = run_command(*(part.replace("RUN", str(having)).replace("OUT", str(tmp_path / "out")) for part in command))
    assert done.returncode == 2
    assert "can't hold a datastore" in done.stderr
    assert not list(tmp_path.iterdir())


DAMAGES: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "no keys": lambda tensors: tensors.pop("0.keys_NW"),
    "a token too many": lambda tensors: tensors.update({"0.tokens_N": F.pad(tensors["0.tokens_N"], (0, 1), value=9)}),
    "a token beyond the vocabulary": lambda tensors: tensors["0.tokens_N"][-1:].fill_(10**6),
    "tokens out of order": lambda tensors: tensors.update({"0.tokens_N": tensors["0.tokens_N"].flip(0)}),
    "a key that is no number": lambda tensors: tensors["0.keys_NW"][3].fill_(float("nan")),
    "another basis": lambda tensors: tensors.update({"0.basis_DW": tensors["0.basis_DW"][:, 1:].contiguous()}),
    "hidden states of another width": lambda tensors: tensors.update(
        {"0.basis_DW": tensors["0.basis_DW"][1:].contiguous()}
    ),
    "no width": lambda tensors: tensors.update({"0.keys_NW": tensors["0.keys_NW"][:, 0].contiguous()}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_holds_something_else_is_refused(
    damage: str, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its seal, which a stranger can make anew, is not what is tested here."""
    having = run("having", datastore=WITH)
    checkpoint, _ = newest_checkpoint(RunFolder.open(having))
    assert checkpoint is not None
    tensors = load_file(checkpoint.path / DATASTORES)
    DAMAGES[damage](tensors)
    monkeypatch.setattr(datastores, "load_file", lambda _: tensors)
    with pytest.raises(UserError, match="holds no datastore of this model"):
        load_trained(having)


def test_a_file_that_is_cut_off_is_damage(run: Callable[..., Path], tmp_path: Path) -> None:
    having = run("having", datastore=WITH)
    recipe = RunFolder.open(having).recipe()
    train(recipe, tmp_path / "cut")
    checkpoint, _ = newest_checkpoint(RunFolder.open(tmp_path / "cut"))
    assert checkpoint is not None
    file = checkpoint.path / DATASTORES
    save_file({"0.keys_NW": torch.zeros(1)}, file)
    again = load_trained(tmp_path / "cut")
    assert again.step < checkpoint.progress.step
    assert any(DATASTORES in note for note in again.notes)
