"""Sweeps: declared in a file, run by workers, interrupted in every way, shared by processes, shown with what they cost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from shortrun.cli.sweep_display import SweepDisplay
from shortrun.errors import UserError
from shortrun.recipe_file import load_recipe, to_toml
from shortrun.runs.folder import RunFolder, runs_in
from shortrun.study import sweep_storage as storage
from shortrun.study.run import cores
from shortrun.study.sampler import SeededByTrial
from shortrun.study.sweep_events import Standing, TrialEvent
from shortrun.study.sweep_file import load_sweep, shipped_sweeps
from shortrun.study.trial_run import epoch_ended
from tests.conftest import Done, run_command, tiny_recipe
from tests.postgres_server import NoPostgres, postgres_server

TINY = """
about = "Learning rate and dropout of a tiny model"
base = "base.toml"
n_trials = 4
sampler = "random"
seed = 3
pruner = "none"

[scale]
titles = 0.8

[search]
optim.lr = { low = 1e-3, high = 1e-2, log = true }
model.dropout = { low = 0.0, high = 0.3, step = 0.05 }
batches.block_size = [16, 32]
"""


def sweep_file(folder: Path, text: str = TINY, **sections: dict[str, Any]) -> Path:
    """A sweep over a tiny recipe, both in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    base = tiny_recipe(None, **sections)
    (folder / "base.toml").write_text(to_toml(base))
    (folder / "tiny.toml").write_text(text)
    return folder / "tiny.toml"


def run(file: Path, *options: str | Path) -> Done:
    return run_command("sweep", "run", file, "--out", file.parent / "runs", "--json", *options)


def show(file: Path) -> dict[str, Any]:
    done = run_command("sweep", "show", file, "--out", file.parent / "runs", "--json")
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def states(report: dict[str, Any]) -> list[str]:
    return sorted(trial["state"] for trial in report["trials"])


def complaint(text: str, tmp_path: Path, overrides: dict[str, dict[str, Any]] | None = None) -> str:
    with pytest.raises(UserError) as error:
        load_sweep(str(sweep_file(tmp_path, text)), overrides)
    return str(error.value)


def in_a_process(file: Path, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "shortrun",
        "sweep",
        "run",
        str(file),
        "--out",
        str(file.parent / "runs"),
        *options,
    ]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SHORTRUN_HEARTBEAT": "1"},
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A finished sweep: its file, what `sweep run --json` printed, and what it said."""
    file = sweep_file(tmp_path_factory.mktemp("sweep"), train={"threads": None})
    ended = run(file, "--workers", "2", "--train.log-every", "7")
    assert ended.returncode == 0, ended.stderr
    return file, json.loads(ended.stdout), ended.stderr


def test_a_sweep_trains_as_many_trials_as_it_asks_for(done: tuple[Path, dict[str, Any], str]) -> None:
    file, report, said = done
    assert states(report) == ["COMPLETE"] * 4
    assert [trial["loss"] for trial in report["trials"]] == sorted(trial["loss"] for trial in report["trials"])
    assert report["best"] == report["trials"][0]
    assert (report["sampler"], report["seed"], report["optuna"]) == ("random", 3, optuna.__version__)
    passes = 0
    for trial in report["trials"]:
        folder = RunFolder.open(Path(trial["run"]))
        scores, recipe = folder.scores(), folder.recipe()
        assert scores is not None
        assert scores["complete"]
        assert trial["loss"] == scores["tuning_loss"] != scores["loss"]
        assert recipe.optim.lr == trial["params"]["optim.lr"]
        assert recipe.batches.block_size == trial["params"]["batches.block_size"]
        assert recipe.model.dropout == pytest.approx(trial["params"]["model.dropout"])
        assert (recipe.data.num_titles, recipe.data.tuning_titles) == (240, 24)
        assert (recipe.train.evals_per_epoch, recipe.train.log_every, recipe.train.threads) == (
            1,
            7,
            max(cores() // 2, 1),
        )
        assert folder.path == file.parent / "runs" / "tiny" / f"trial-{trial['number']:04d}"
        assert trial["epochs"] == 2
        passes += scores["passes"]
    cost = report["search_cost"]
    assert (cost["finished_trials"], cost["passes"]) == (4, passes)
    assert cost["hours"] > 0
    assert said.count("COMPLETE") == 4
    assert "0 of 4 trials left" in said


def test_running_it_again_adds_nothing(done: tuple[Path, dict[str, Any], str]) -> None:
    file, report, _ = done
    again = run(file)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == report
    assert len(list(runs_in(file.parent / "runs"))) == 4


def test_show_prints_a_table_and_what_the_search_cost(done: tuple[Path, dict[str, Any], str]) -> None:
    file, report, _ = done
    assert show(file) == report
    shown = run_command("sweep", "show", file, "--out", file.parent / "runs").stdout
    rows = [line for line in shown.splitlines() if "COMPLETE" in line]
    assert [row.split()[0] for row in rows] == [str(trial["number"]) for trial in report["trials"]]
    assert f"Search cost: 4 trials (0 pruned), {report['search_cost']['passes']:,} forward-backward passes" in shown


def test_the_plots_are_one_page_that_needs_no_network(done: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    file, report, _ = done
    page = tmp_path / "sweep.html"
    shown = run_command("sweep", "show", file, "--out", file.parent / "runs", "--html", page)
    assert shown.returncode == 0, shown.stderr
    text = page.read_text(encoding="utf-8")
    assert text.count("plotly.js v") >= 1
    assert text.count("Plotly.newPlot(") >= 3
    assert "<script src" not in text
    assert "No plot" not in text
    assert len(text) < 2 * len(next(part for part in text.split("<script") if "plotly.js v" in part))
    assert f"{report['search_cost']['passes']:,} forward-backward passes" in text


def test_the_best_is_a_recipe_at_full_scale(done: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    file, report, _ = done
    target = tmp_path / "best.toml"
    written = run_command("sweep", "best", file, "--out", file.parent / "runs", "--out-file", target)
    assert written.returncode == 0, written.stderr
    text = target.read_text()
    assert f"trial {report['best']['number']} of the sweep tiny" in text
    assert f"Search cost: 4 trials (0 pruned), {report['search_cost']['passes']:,} forward-backward passes" in text
    best, base = load_recipe(str(target)), load_recipe(str(file.parent / "base.toml"))
    assert best.optim.lr == report["best"]["params"]["optim.lr"]
    assert best.data == base.data
    assert best.train == base.train
    trained = run_command("train", target, "--max-steps", "1", "--out", tmp_path / "run", "--json")
    assert trained.returncode == 0, trained.stderr
    printed = run_command("sweep", "best", file, "--out", file.parent / "runs", "--json", "--train.epochs", "5")
    assert "epochs = 5" in json.loads(printed.stdout)["recipe"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("batches.block_size = [16, 32]", "", "batches.block_size: 16, 32 -> None"),
        ("[16, 32]", "[8, 64]", "batches.block_size: 16, 32 -> 8, 64"),
        ("high = 0.3", "high = 0.25", "model.dropout: 0 to 0.3, step 0.05 -> 0 to 0.25, step 0.05"),
    ],
)
def test_the_best_of_a_search_that_was_edited_is_refused(
    done: tuple[Path, dict[str, Any], str], tmp_path: Path, before: str, after: str, expected: str
) -> None:
    file, _, _ = done
    shutil.copytree(file.parent, tmp_path / "copy")
    edited = sweep_file(tmp_path / "copy", TINY.replace(before, after))
    refused = run_command("sweep", "best", edited, "--out", edited.parent / "runs")
    assert refused.returncode == 2
    assert "[search] of" in refused.stderr
    assert expected in refused.stderr
    assert run_command("sweep", "show", edited, "--out", edited.parent / "runs").returncode == 0


@pytest.mark.slow
def test_what_a_damaged_run_found_is_found_again(done: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    file, report, _ = done
    shutil.copytree(file.parent, tmp_path / "copy")
    copy = tmp_path / "copy" / "tiny.toml"
    (copy.parent / "runs" / "tiny" / "sweep.db").unlink()
    one, other, *_ = sorted(copy.parent.glob("runs/tiny/*/scores.json"))
    one.write_bytes(b"")
    other.write_text("{}")
    again = run(copy)
    assert again.returncode == 0, again.stderr
    found = [(trial["state"], trial["loss"], Path(trial["run"]).name) for trial in json.loads(again.stdout)["trials"]]
    assert found == [(trial["state"], trial["loss"], Path(trial["run"]).name) for trial in report["trials"]]


def test_another_storage_finds_the_runs_by_their_fingerprints(
    done: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    file, report, _ = done
    before = {path: path.stat().st_mtime_ns for path in file.parent.glob("runs/tiny/*/metrics.jsonl")}
    other = run(file, "--storage", f"sqlite:///{tmp_path / 'other.db'}")
    assert other.returncode == 0, other.stderr
    found = json.loads(other.stdout)
    assert {trial["run"]: trial["loss"] for trial in found["trials"]} == {
        trial["run"]: trial["loss"] for trial in report["trials"]
    }
    assert found["search_cost"] == report["search_cost"]
    assert {path: path.stat().st_mtime_ns for path in file.parent.glob("runs/tiny/*/metrics.jsonl")} == before


def test_a_sweep_that_goes_on_as_another_is_refused(done: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    file, _, _ = done
    shutil.copytree(file.parent, tmp_path / "copy")
    text = TINY.replace("high = 0.3", "high = 0.25").replace("seed = 3", "seed = 4")
    changed = sweep_file(tmp_path / "copy", text)
    refused = run(changed)
    assert refused.returncode == 2
    assert "model.dropout: 0 to 0.3, step 0.05 -> 0 to 0.25, step 0.05" in refused.stderr
    assert "seed: 3 -> 4" in refused.stderr
    more_data = run(sweep_file(tmp_path / "copy"), "--data.num-titles", "200")
    assert more_data.returncode == 2
    assert "the recipe that all trials share, or its data, has changed" in more_data.stderr


EXHAUSTED = """
about = "Every combination of a few values"
base = "base.toml"
n_trials = 6
sampler = "random"
seed = 1
pruner = "median"
prune_after = 1

[search]
optim.lr = [1e-2, 1e-7]
optim.betas = [[0.9, 0.95], [0.9, 0.99], [0.8, 0.95]]
"""


@pytest.mark.slow
def test_hopeless_trials_are_pruned_and_no_combination_is_trained_twice(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, EXHAUSTED, train={"epochs": 3})
    ended = run(file)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert len({json.dumps(trial["params"], sort_keys=True) for trial in report["trials"]}) == 6
    assert len(list(runs_in(tmp_path / "runs"))) == 6
    assert set(states(report)) == {"COMPLETE", "PRUNED"}
    assert report["best"]["params"]["optim.lr"] == 1e-2
    passes = 0
    for trial in report["trials"]:
        folder = RunFolder.open(Path(trial["run"]))
        steps = max(event["step"] for event in folder.metrics() if event["event"] == "training_step")
        last = max(event["max_steps"] for event in folder.metrics() if event["event"] == "training_step")
        assert trial["passes"] == steps
        assert (steps < last) == (trial["state"] == "PRUNED") == (folder.scores() is None)
        passes += steps
    assert report["search_cost"]["passes"] == passes
    assert report["search_cost"]["pruned_trials"] == states(report).count("PRUNED")


@pytest.mark.slow
def test_a_trial_that_diverges_has_a_reason_and_is_not_repeated(tmp_path: Path) -> None:
    """Two of the four combinations diverge, so that there can't be three finished trials."""
    text = EXHAUSTED.replace("n_trials = 6", "n_trials = 3").replace("1e-7", "1e25").replace(", [0.8, 0.95]", "")
    file = sweep_file(tmp_path, text)
    ended = run(file)
    assert ended.returncode == 1, ended.stderr
    assert "no other combinations" in ended.stderr
    report = show(file)
    assert len(report["trials"]) == 4
    failed = [trial for trial in report["trials"] if trial["params"]["optim.lr"] == 1e25]
    assert [trial["state"] for trial in failed] == ["FAIL", "FAIL"]
    assert all("A lower optim.lr" in trial["reason"] for trial in failed)
    assert report["search_cost"]["failed_trials"] == 2
    assert report["search_cost"]["finished_trials"] == 2


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def unfinished(file: Path) -> list[RunFolder]:
    """Runs with a checkpoint and without scores."""
    return [
        run
        for run in runs_in(file.parent / "runs")
        if run.scores() is None and any(run.checkpoints.glob("*/checkpoint.json"))
    ]


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


LONG = TINY.replace("n_trials = 4", "n_trials = 2")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="worker processes are found in /proc")
def test_a_trial_whose_process_dies_is_begun_once_more(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, TINY.replace("n_trials = 4", "n_trials = 1"), train={"epochs": 8})
    process = in_a_process(file)
    wait_for(lambda: unfinished(file), process)
    made = unfinished(file)[0].manifest_file.stat().st_mtime_ns
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    (trial,) = show(file)["trials"]
    assert (trial["number"], trial["state"]) == (0, "COMPLETE")
    assert [run.manifest_file.stat().st_mtime_ns for run in runs_in(tmp_path / "runs")] == [made]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="worker processes are found in /proc")
def test_what_a_killed_sweep_was_doing_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = sweep_file(tmp_path, LONG, train={"epochs": 8})
    process = in_a_process(file)
    wait_for(lambda: unfinished(file), process)
    workers = children(process.pid)
    for pid in (process.pid, *workers):
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert len(workers) == 1
    (cut,) = unfinished(file)
    made = cut.manifest_file.stat().st_mtime_ns
    monkeypatch.setenv("SHORTRUN_HEARTBEAT", "1")
    ended = run(file)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert states(report) == ["COMPLETE"] * 2
    runs = [run.path for run in runs_in(tmp_path / "runs")]
    assert sorted(runs) == sorted(Path(trial["run"]) for trial in report["trials"])
    assert cut.path in runs
    assert cut.manifest_file.stat().st_mtime_ns == made


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, LONG, train={"epochs": 8})
    process = in_a_process(file, "--workers", "2")
    wait_for(lambda: len(unfinished(file)) == 2, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.count("INTERRUPTED") == 2
    assert "the same command goes on" in said
    assert states(show(file)) == ["WAITING"] * 2
    cut = {run.path: run.manifest_file.stat().st_mtime_ns for run in unfinished(file)}
    assert len(cut) == 2
    ended = run(file)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert states(report) == ["COMPLETE"] * 2
    assert {Path(trial["run"]) for trial in report["trials"]} == {run.path for run in runs_in(tmp_path / "runs")}
    assert {path: RunFolder(path).manifest_file.stat().st_mtime_ns for path in cut} == cut


@pytest.fixture
def postgres() -> Iterator[str]:
    try:
        with postgres_server() as url:
            yield url
    except NoPostgres as why:
        pytest.skip(str(why))


@pytest.mark.slow
def test_two_processes_share_a_sweep_on_a_postgresql_server(tmp_path: Path, postgres: str) -> None:
    file = sweep_file(tmp_path, TINY.replace("n_trials = 4", "n_trials = 5"))
    both = [in_a_process(file, "--storage", postgres) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    study = storage.find_study(postgres, "tiny")
    ended = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    assert len(ended) == 5
    assert len({str(trial.params) for trial in ended}) == 5
    assert len(list(runs_in(tmp_path / "runs"))) == 5
    told = [errors.count("COMPLETE") for _, errors in said]
    assert sum(told) == 5
    assert all(told), "each process has trained some of them"


def test_when_pruning_begins_is_part_of_what_a_sweep_is(tmp_path: Path) -> None:
    median = EXHAUSTED.replace("prune_after = 1", "prune_after = {}")
    one, other = (load_sweep(str(sweep_file(tmp_path, median.format(after)))).described() for after in (1, 2))
    assert list(storage.changes(one, other)) == ["prune_after: 1 -> 2"]
    never = [load_sweep(str(sweep_file(tmp_path, f"prune_after = {after}\n{TINY}"))).described() for after in (1, 2)]
    assert never[0] == never[1], "nothing is pruned"


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = """
about = "Wrong in every way"
base = "base.toml"
n_trials = 0
sampler = "tpi"
sead = 3

[scale]
titels = 0.1

[search]
optim.lr = { low = 1e-2, high = 1e-3 }
optim.lrr = [1, 2]
optimizer.lr = [1, 2]
model.dropout = { low = 0.0, high = 0.3, step = 0.07 }
model.n_layer = { low = 1, high = 2.5 }
model.mlp = { low = 1, high = 2 }
batches.block_size = [64]
batches.batch_size = { low = 4, heigh = 8 }
optim.weight_decay = { low = 0.0, high = 0.1, log = true }
train.threads = [1, 2]
data.seed = [1, 2]
"""
    told = complaint(text, tmp_path)
    for sentence in (
        "n_trials: input should be greater than 0",
        "sampler: input should be 'tpe', 'gp' or 'random'",
        "sead: there is no such key; did you mean 'seed'?",
        "scale.titels: there is no such key; did you mean 'titles'?",
        "optim.lr: low = 0.01 must be below high = 0.001",
        "optim.lrr: there is no such field; did you mean 'lr'?",
        "optimizer: there is no such section; did you mean 'optim'?",
        "model.dropout: from low = 0.0 to high = 0.3 is no whole number of steps of 0.07",
        "model.n_layer: it takes whole numbers",
        "model.mlp: it is no number, so that it needs a list of values",
        "batches.block_size: [64] needs two values at least",
        "batches.batch_size: high: field required; heigh: did you mean 'high'?",
        "optim.weight_decay: log = true needs low above 0",
        "train.threads: it has no effect on what a run learns",
        "data.seed: trials are compared on the same documents",
    ):
        assert sentence in told, told


def test_corners_of_the_search_space_are_tried_before_anything_is_trained(tmp_path: Path) -> None:
    text = (
        TINY.partition("[search]")[0]
        + """[search]
model.dropout = { low = 0.0, high = 1.0 }
model.n_head = { low = 1, high = 4 }
optim.rho = { low = 0.01, high = 0.1 }
batches.mode = ["shuffled", "documets"]
"""
    )
    told = complaint(text, tmp_path, {"model": {"n_layer": 0}})
    assert "model.n_layer = 0: input should be greater than 0" in told
    told = complaint(text, tmp_path)
    assert "model.dropout = 1.0: input should be less than 1" in told
    assert "model.d_model = 16 is not divisible by model.n_head = 3" in told  # inside the range, not at its ends
    assert "batches.mode = 'documets'" in told
    assert "did you mean 'documents'?" in told
    assert "optim.rho is searched, but nothing reads it: optim.sharpness is never one of sam, asam" in told
    few = complaint(TINY.partition("[search]")[0] + "[search]\nmodel.n_layer = [1, 2, 3]\n", tmp_path)
    assert "n_trials = 4, but [search] has 3 combinations" in few


def test_a_field_is_only_searched_where_it_is_read(tmp_path: Path) -> None:
    text = (
        TINY.partition("[search]")[0]
        + """[search]
optim.muon_lr = [1e-3, 1e-2]
optim.name = ["adamw", "muon"]
"""
    )
    sweep = load_sweep(str(sweep_file(tmp_path, text)))
    for name, expected in (("adamw", set()), ("muon", {"optim.muon_lr"})):
        drawn = sweep.assign(lambda field, name=name: name if field.name == "optim.name" else 1e-2)  # type: ignore[misc]
        assert drawn.keys() == {"optim.name", *expected}
        assert sweep.recipe(drawn).optim.name == name


def test_the_file_decides_how_often_it_is_evaluated_and_the_flags_reach_every_trial(tmp_path: Path) -> None:
    often = TINY.replace("[search]", "[every]\ntrain.evals_per_epoch = 4\n[search]")
    assert load_sweep(str(sweep_file(tmp_path, often))).base.train.evals_per_epoch == 4
    file = str(sweep_file(tmp_path))
    assert load_sweep(file).base.train.evals_per_epoch == 1
    assert load_sweep(file, {"train": {"evals_per_epoch": 3}}).base.train.evals_per_epoch == 3
    drawn = {"optim.lr": 1e-2, "model.dropout": 0.15000000000000002, "batches.block_size": 32}
    recipe = load_sweep(file, {"model": {"n_layer": 2}}).recipe(drawn)
    assert (recipe.model.n_layer, recipe.model.dropout, recipe.optim.lr) == (2, 0.15, 1e-2)


@pytest.mark.parametrize("name", shipped_sweeps())
def test_shipped_sweeps_can_be_run(name: str) -> None:
    assert load_sweep(name).search


def test_draws_follow_from_the_trial_and_not_from_who_asks(tmp_path: Path) -> None:
    sweep = load_sweep(str(sweep_file(tmp_path)))

    def drawn(order: list[int]) -> dict[int, dict[str, Any]]:
        study = optuna.create_study(sampler=SeededByTrial("random", 3))
        trials = [study.ask() for _ in order]
        for number in order:
            sweep.assign(lambda field, number=number: field.suggest(trials[number]))  # type: ignore[misc]
            study.sampler.reseed_rng()  # as Optuna does in every thread
        return {trial.number: trial.params for trial in trials}

    first = drawn([0, 1, 2])
    assert first == drawn([2, 0, 1])
    assert len({values["optim.lr"] for values in first.values()}) == 3
    place = [(values["optim.lr"], values["model.dropout"]) for values in first.values()]
    assert sorted(range(3), key=lambda k: place[k][0]) != sorted(range(3), key=lambda k: place[k][1])


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("seed", range(40))
def test_processes_that_know_nothing_of_each_other_never_finish_too_many(seed: int) -> None:
    """Workers ask, look whether it is their turn, finish, fail or die, in any order that chance makes of it."""
    rng, n_trials = random.Random(seed), 5
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    waiting: list[optuna.Trial] = []
    working: list[optuna.Trial] = []
    dead: list[int] = []

    def trials() -> list[optuna.trial.FrozenTrial]:
        return study.get_trials(deepcopy=False)

    for _ in range(3000):
        if storage.finished(trials()) >= n_trials and not working:
            break
        what = rng.choice(["ask", "look", "look", "end", "retry"])
        if what == "ask" and len(waiting) + len(working) < 4:
            waiting.append(study.ask())
        elif what == "look" and waiting:
            trial = waiting.pop(rng.randrange(len(waiting)))
            if storage.turn(trials(), trials()[trial.number], n_trials):
                trial.suggest_float("x", 0, 1)
                working.append(trial)
            elif any(other.state == TrialState.WAITING for other in trials()):
                if trials()[trial.number].system_attrs:
                    storage.retry(study, trials()[trial.number])
                trial.set_user_attr(storage.SET_ASIDE, "another one was in line")
                study.tell(trial, state=TrialState.FAIL)
            else:
                waiting.append(trial)
        elif what == "end" and working:
            trial = working.pop(rng.randrange(len(working)))
            how = rng.choice(["complete", "pruned", "fail", "die"])
            if how == "complete":
                study.tell(trial, 1.0)
            elif how == "pruned":
                study.tell(trial, state=TrialState.PRUNED)
            else:
                if how == "fail":
                    trial.set_user_attr(storage.REASON, "diverged")
                else:
                    dead.append(trial.number)
                study.tell(trial, state=TrialState.FAIL)
        elif what == "retry" and dead:
            storage.retry(study, trials()[dead.pop()])
    assert storage.finished(trials()) == n_trials
    assert len([trial for trial in trials() if trial.state in storage.FINISHED]) == n_trials


def test_an_epochs_end_is_the_evaluation_nearest_to_it() -> None:
    once = tiny_recipe(None, train={"epochs": 4, "evals_per_epoch": 1})
    assert [epoch_ended(step, 41, once) for step in (1, 11, 22, 33, 41)] == [None, 1, 2, 3, 4]
    twice = tiny_recipe(None, train={"epochs": 2, "evals_per_epoch": 2})
    assert [epoch_ended(step, 20, twice) for step in (1, 5, 10, 15, 20)] == [None, None, 1, None, 2]


def test_a_terminal_shows_a_live_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with SweepDisplay() as display:
        display(TrialEvent(3, "RUNNING", {"optim.lr": 0.00123456}, 1.5, 10, 40), Standing(2, 4, 75.0))
    said = capsys.readouterr().err
    assert "2 of 4 trials left, 75 s left" in said
    assert "10/40" in said
    assert "optim.lr 0.001235" in said


def test_what_there_is_not_is_said(tmp_path: Path) -> None:
    file = sweep_file(tmp_path)
    nothing = run_command("sweep", "show", file, "--out", tmp_path / "runs")
    assert nothing.returncode == 2
    assert "There are no trials of tiny" in nothing.stderr
    assert not (tmp_path / "runs").exists()
    assert "did you mean 'lr-dropout-block'?" in run_command("sweep", "run", "lr-dropout-blok").stderr
    assert "did you mean 'show'?" in run_command("sweep", "shw").stderr
    flag = run(file, "--optim.lrr", "1")
    assert (flag.returncode, "there is no such flag; did you mean 'lr'?" in flag.stderr) == (2, True)
    for url in ("sqlite:foo.db", "postgresql://me@host:port/none", "nonsense"):
        for command in ("run", "show", "best"):
            nowhere = run_command("sweep", command, file, "--out", tmp_path / "runs", "--storage", url)
            assert nowhere.returncode == 2
            assert "is no URL of a database" in nowhere.stderr
    secret = run(file, "--storage", "postgresql://me:secret@127.0.0.1:1/none")
    assert secret.returncode == 2
    assert "secret" not in secret.stderr
