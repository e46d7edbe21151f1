"""Ensembles of finished runs: one more run folder, which every reader reads and no trainer goes on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shortrun.errors import UserError
from shortrun.model.ensemble import Ensemble
from shortrun.runs.folder import RunFolder, runs_by_fingerprint
from shortrun.runs.members import members_of
from shortrun.runs.trained import load_trained
from shortrun.score.evaluate import document_nats
from shortrun.serve.models import Models
from shortrun.text.corpus import load_corpus
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.train.combine import combine
from shortrun.train.events import Event
from shortrun.train.fit import resume, train
from tests.conftest import final_weights, notes, run_command, scores_of, tiny_recipe
from tests.test_check import assert_all_kept, judged, words
from tests.test_run_folder import documented, first_column, flat

WITH_TUNING = {"tuning_titles": 40, "num_titles": 400}
MEMBERS: dict[str, dict[str, dict[str, Any]]] = {
    "first": {},
    "wider": {
        "model": {"d_model": 24, "norm": "rmsnorm", "positions": "rotary"},
        "optim": {"name": "muon"},
        "train": {"seed": 7, "rdrop": 0.5},
    },
    "short": {"batches": {"mode": "documents", "block_size": 12}, "train": {"seed": 3, "epochs": 1}},
}
OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    "another tokenizer": {"tokenizer": {"vocab_size": 310}},
    "other documents": {"data": {"seed": 5}},
    "another split": {"data": {"tuning_titles": 30}},
    "no tuning split": {"data": {"tuning_titles": 0}},
}


@pytest.fixture(scope="module")
def made(titles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of each kind, made once; to look at, not to change."""
    folder = tmp_path_factory.mktemp("members")
    file = folder / "titles.txt"
    file.write_text("\n".join(titles) + "\n", encoding="utf-8")

    def run(name: str) -> Path:
        if not (folder / name).exists():
            sections = {**MEMBERS, **OTHERS}[name]
            data = {**WITH_TUNING, **sections.get("data", {})}
            train(tiny_recipe(file, **{**sections, "data": data}), folder / name)
        return folder / name

    return run


@pytest.fixture(scope="module")
def both(made: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ensemble of two runs of unlike shape, seed and optimizer."""
    out = tmp_path_factory.mktemp("both") / "both"
    combine([made("first"), made("wider")], out)
    return out


def mean_nats(runs: list[Path], weights: list[float], split: str) -> list[float]:
    """-log of the mean probabilities of each token, by hand from the members' logits."""
    members, found = [load_trained(run) for run in runs], []
    tokenizer = members[0].tokenizer
    for document in load_corpus(members[0].recipe.data).split(split):
        ids = [tokenizer.eos, *tokenizer.encode(document), tokenizer.eos]
        x_BT, y_T1 = torch.tensor([ids[:-1]]), torch.tensor(ids[1:])[:, None]
        if x_BT.shape[1] > min(member.model.block_size for member in members):
            found.append(float("nan"))  # scored in windows
            continue
        with torch.no_grad():
            p_KTV = torch.stack([member.model(x_BT)[0].double().softmax(-1) for member in members])
        p_TV = (torch.tensor(weights, dtype=torch.float64)[:, None, None] * p_KTV).sum(0)
        found.append(-float(p_TV.gather(1, y_T1).log().sum()))
    return found


def test_its_documents_take_the_nats_of_the_mean_probabilities(made: Callable[[str], Path], both: Path) -> None:
    folder, members = RunFolder.open(both), [made("first"), made("wider")]
    for split in ("validation", "tuning"):
        expected_D = np.array(mean_nats(members, [0.5, 0.5], split))
        by_hand_D = np.isfinite(expected_D)
        assert by_hand_D.sum() > 20
        assert folder.nats(split).nats_D[by_hand_D] == pytest.approx(expected_D[by_hand_D], rel=1e-5)
    assert scores_of(both)["loss"] < np.mean([scores_of(run)["loss"] for run in members]), "nats are convex"


def test_it_costs_what_its_members_cost(made: Callable[[str], Path], both: Path) -> None:
    found, members = scores_of(both), [scores_of(made("first")), scores_of(made("wider"))]
    assert found["complete"] is True
    for key in ("parameters", "passes", "flops"):
        assert found[key] == sum(member[key] for member in members), key
    for key in ("steps", "epochs", "tokens"):
        assert found[key] == max(member[key] for member in members), key
    assert found["step_seconds"] == pytest.approx(sum(member["step_seconds"] for member in members))
    assert found["data"] == members[0]["data"]


def test_the_manifest_names_its_members_as_the_page_says(made: Callable[[str], Path], both: Path) -> None:
    manifest = json.loads((both / "manifest.json").read_text())
    bare = [{**member, "recipe": None} for member in manifest["members"]]
    keys = documented(flat({**manifest, "recipe": None, "members": bare}))
    assert {key for key in keys if key.startswith("members")} == first_column("Ensembles")
    missing = first_column("manifest.json") - keys
    assert {key for key in missing if not key.startswith("data.")} == {"initial_weights.sha256"}
    members = members_of(manifest)
    for member, run in zip(members, (made("first"), made("wider")), strict=True):
        own, scores = RunFolder.open(run), scores_of(run)
        assert (member.run, member.fingerprint, member.recipe) == (str(run), own.fingerprint(), own.recipe())
        assert (member.loss, member.epochs, member.passes) == (scores["loss"], scores["epochs"], scores["passes"])
        assert member.weight == 0.5
    assert manifest["fingerprint"] not in {member.fingerprint for member in members}
    recipe = RunFolder.open(both).recipe()
    assert recipe == members[0].recipe.changed("model", members=2)
    assert {path.name for path in both.iterdir()} == {path.name for path in made("first").iterdir()}
    (checkpoint,) = (both / "checkpoints").iterdir()
    assert {path.name for path in checkpoint.iterdir()} == {"checkpoint.json", "model.safetensors"}


def test_every_command_reads_it(made: Callable[[str], Path], both: Path, tmp_path: Path) -> None:
    shown = json.loads(run_command("show", both, "--json").stdout)
    assert [Path(member["run"]).name for member in shown["members"]] == ["first", "wider"]
    assert (shown["state"], shown["max_steps"]) == ("finished", scores_of(both)["steps"])
    assert "wider" in run_command("show", both, "--svg", tmp_path / "model.svg").stdout
    assert "The first of 2 members" in (tmp_path / "model.svg").read_text()
    evaluated = json.loads(run_command("eval", both, "--json").stdout)
    assert evaluated["loss"] == scores_of(both)["loss"]
    compared = json.loads(run_command("compare", made("first"), both, "--on", "Rust is fast", "--json").stdout)
    assert [each["field"] for each in compared["recipe_differences"]] == ["model.members"]
    assert compared["differences"][0]["difference"] == pytest.approx(
        scores_of(both)["loss"] - scores_of(made("first"))["loss"]
    )
    read = json.loads(run_command("predict", both, "Rust is fast", "--json").stdout)
    assert len(read["tokens"]) > 3
    assert len(json.loads(run_command("sample", both, "--n", "3", "--json").stdout)["documents"]) == 3
    report = run_command("report", both, "--json", tmp_path / "report.json")
    assert report.returncode == 0, report.stderr
    assert Models.load([both]).runs[0].as_dict()["parameters"] == scores_of(both)["parameters"]


def test_it_keeps_the_rules_that_its_members_keep(both: Path, tmp_path: Path) -> None:
    verdicts = judged(both, tmp_path)
    seed = verdicts.pop("seed 1337")
    assert_all_kept(verdicts)
    assert seed.verdict == "broken"
    assert seed.evidence.startswith("wider: ")
    assert verdicts["every title 7 times"].evidence.startswith("each of 2 members: ")


@pytest.fixture
def copied(made: Callable[[str], Path], tmp_path: Path) -> Path:
    """An ensemble of copies, to plant faults in."""
    for name in ("first", "short"):
        shutil.copytree(made(name), tmp_path / name)
    combine([tmp_path / "first", tmp_path / "short"], tmp_path / "both")
    return tmp_path / "both"


def test_what_the_members_runs_no_longer_say_is_unknown_or_broken(copied: Path, tmp_path: Path) -> None:
    other = RunFolder.open(copied).manifest()
    other["members"][1]["weights_sha256"] = "0" * 64
    (copied / "manifest.json").write_text(json.dumps(other))
    found = judged(copied, tmp_path)
    assert found["7 epochs"].verdict == "broken", "one member took one"
    assert "weights of member 2" in found["whole record"].evidence
    assert found["whole record"].verdict == "broken"
    (tmp_path / "short").rename(tmp_path / "gone")
    found = judged(copied, tmp_path)
    training = {"7 epochs", "seed 1337", "no pretrained weights", "no augmentation", "every title 7 times", "weights from the seed", "last step"}  # fmt: skip
    assert {words(found)[rule] for rule in training} == {"unknown"}
    assert "not where it was" in found["last step"].evidence
    assert found["official loss"].verdict == "kept"


def test_a_shorter_block_and_other_batches_are_said(made: Callable[[str], Path], tmp_path: Path) -> None:
    """Documents are scored in the windows of the shortest block."""
    told: list[Event] = []
    paths = [made("first"), made("short")]
    result = combine(paths, tmp_path / "out", on_event=told.append)
    trained = load_trained(tmp_path / "out")
    assert trained.model.block_size == trained.recipe.batches.block_size == 12
    assert "different batches" in notes(told)
    expected_D = np.array(mean_nats(paths, [0.5, 0.5], "validation"))
    by_hand_D = np.isfinite(expected_D)
    assert 0 < by_hand_D.sum() < len(by_hand_D)
    assert result.evaluation.nats_D[by_hand_D] == pytest.approx(expected_D[by_hand_D], rel=1e-5)


def test_weights_are_fitted_on_the_tuning_documents(made: Callable[[str], Path], both: Path, tmp_path: Path) -> None:
    paths, out = [made("first"), made("wider")], tmp_path / "fitted"
    done = run_command("combine", *paths, "--out", out, "--fit", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["tuning_loss"] < scores_of(both)["tuning_loss"]
    weights = [member["weight"] for member in printed["members"]]
    assert sum(weights) == pytest.approx(1)
    expected_D = np.array(mean_nats(paths, weights, "validation"))
    by_hand_D = np.isfinite(expected_D)
    assert RunFolder.open(out).nats().nats_D[by_hand_D] == pytest.approx(expected_D[by_hand_D], rel=1e-5)
    assert len(runs_by_fingerprint(tmp_path)) == 1
    assert RunFolder.open(out).fingerprint() != RunFolder.open(both).fingerprint()


def test_its_members_weights_are_theirs(made: Callable[[str], Path], both: Path) -> None:
    model = load_trained(both).model
    assert isinstance(model, Ensemble)
    for member, name in zip(model.each, ("first", "wider"), strict=True):
        own = final_weights(made(name))
        assert all(torch.equal(weight, own[key]) for key, weight in member.state_dict().items())
        encoded = EncodedDocuments.of([[5, 6, 7], [8]], 1)
        assert np.isfinite(document_nats(member, encoded)).all()


@pytest.mark.parametrize("other", OTHERS)
def test_runs_that_have_too_little_in_common_are_refused(
    other: str, made: Callable[[str], Path], tmp_path: Path
) -> None:
    what = "has another tokenizer" if other == "another tokenizer" else "has other train documents"
    with pytest.raises(UserError, match=what):
        combine([made("first"), made(other)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_finished_run_of_its_own_is_refused(
    made: Callable[[str], Path], both: Path, stopped: Path, tmp_path: Path
) -> None:
    first, out = made("first"), tmp_path / "out"
    for paths, told in (
        ([first], "needs two runs at least"),
        ([first, first], "is given twice"),
        ([first, both], "is an ensemble itself; give the runs"),
        ([first, stopped], "is not finished"),
        ([first, tmp_path / "nothing"], "is not a run"),
    ):
        with pytest.raises(UserError, match=told):
            combine(paths, out)
    with pytest.raises(UserError, match="already exists"):
        combine([first, made("wider")], both)
    bare = made("no tuning split")
    shutil.copytree(bare, tmp_path / "bare")
    with pytest.raises(UserError, match="have none"):
        combine([bare, tmp_path / "bare"], out, fit=True)
    assert not out.exists()


def test_nothing_goes_on_with_it(both: Path) -> None:
    with pytest.raises(UserError, match="there is nothing to train"):
        resume(both)
    done = run_command("resume", both)
    assert (done.returncode, done.stdout) == (2, "")


def test_members_that_have_moved_data_are_found_by_it(made: Callable[[str], Path], tmp_path: Path) -> None:
    file = made("first").parent / "titles.txt"
    moved = tmp_path / "titles.txt"
    runs = [made("first"), made("wider")]
    file.rename(moved)
    try:
        with pytest.raises(UserError):
            combine(runs, tmp_path / "out")
        result = combine(runs, tmp_path / "out", data_path=[str(moved)])
    finally:
        moved.rename(file)
    assert result.complete
    assert RunFolder.open(tmp_path / "out").recipe().data.path == (str(moved),)


@pytest.mark.slow
def test_it_is_handed_on_as_a_graph(both: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = run_command("export", both, tmp_path / "graph", "--format", "onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True
    assert "ensemble of 2 models" in (tmp_path / "graph" / "README.md").read_text()
    refused = run_command("export", both, tmp_path / "class")
    assert refused.returncode == 2
    assert "model.members = 2: only 1" in refused.stderr
