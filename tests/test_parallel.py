"""Two processes train what one does: torchrun with gloo on this machine, real processes, a real kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from shortrun.recipe import Recipe
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder
from shortrun.train.fit import resume, train
from shortrun.view.evaluate import evaluate_run
from tests.conftest import ROOT, metrics, scores_of, tiny_values
from tests.test_tracking import assert_tracked

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "shuffled": {},
    "stream": {"batches": {"mode": "stream"}},
    "documents": {"batches": {"mode": "documents"}},
    "muon": {"optim": {"name": "muon", "muon_lr": 1e-3, "decay": "matrices", "weight_decay": 0.1}},
    "sam": {"optim": {"sharpness": "asam", "rho": 0.3}},
    "odd rows in parts": {"batches": {"batch_size": 13}, "train": {"memory_limit": 0.351}},
    "average": {"train": {"ema": 0.9}},
    "members": {"model": {"members": 2}},
}


def values(path: Path, way: str) -> dict[str, Any]:
    """A recipe without dropout, whose draws depend on the process, of 20 steps and a few."""
    made = tiny_values(path, model={"dropout": 0.0}, train={"epochs": 1})
    for section, fields in WAYS[way].items():
        made[section] = {**made[section], **fields}
    return made


def together(jobs: list[dict[str, Any]], folder: Path) -> None:
    """Two processes do the jobs; fails with what they wrote unless both succeed."""
    listed = folder / "jobs.json"
    listed.write_text(json.dumps(jobs))
    done = subprocess.run(
        [*TORCHRUN, str(ROOT / "tests" / "parallel_jobs.py"), str(listed)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def steps(run: Path) -> list[dict[str, Any]]:
    return [event for event in metrics(run) if event["event"] == "training_step"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> tuple[Path, Path]:
    """The folder of all ways trained by two processes (whole, and stopped after 9 steps), and their titles; made once, also
    when several processes run the tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "parallel"
    path = folder / "titles.txt"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make_runs(folder, path, titles)
    return folder, path


def make_runs(folder: Path, path: Path, titles: list[str]) -> None:
    folder.mkdir()
    path.write_text("\n".join(titles) + "\n", encoding="utf-8")
    jobs: list[dict[str, Any]] = []
    for way in WAYS:
        track = ["tensorboard"] if way == "shuffled" else []
        jobs.append({"recipe": values(path, way), "run": str(folder / way), "track": track})
        jobs.append({"recipe": values(path, way), "run": str(folder / f"{way}, stopped"), "max_steps": 9})
        train(Recipe.model_validate(values(path, way)), folder / f"{way}, alone")
        train(Recipe.model_validate(values(path, way)), folder / f"{way}, begun alone", max_steps=9)
        jobs.append({"run": str(folder / f"{way}, begun alone")})
    together(jobs, folder)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_and_score_what_one_does(way: str, runs: tuple[Path, Path]) -> None:
    one, two = (steps(runs[0] / name) for name in (f"{way}, alone", way))
    assert len(one) == len(two) > 20
    for alone, both in zip(one, two, strict=True):
        assert both["loss"] == pytest.approx(alone["loss"], abs=1e-5), alone["step"]
        assert both["tokens"] == alone["tokens"]
    assert scores_of(runs[0] / way)["loss"] == pytest.approx(scores_of(runs[0] / f"{way}, alone")["loss"], abs=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_the_scores_are_exactly_those_of_one_process(way: str, runs: tuple[Path, Path]) -> None:
    """The weights that two processes trained, scored by two, and again by one."""
    again, before = evaluate_run(runs[0] / way).newest, scores_of(runs[0] / way)
    assert (again.loss.loss, again.official.loss) == (before["loss"], before["official_loss"])
    assert again.nats_D.tolist() == RunFolder.open(runs[0] / way).nats().nats_D.tolist()


@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_with_another_number_of_processes(way: str, runs: tuple[Path, Path]) -> None:
    """Stopped by two and resumed by one, and the other way round: the same data order, the same losses."""
    resume(runs[0] / f"{way}, stopped")
    expected = steps(runs[0] / f"{way}, alone")
    for run in (f"{way}, stopped", f"{way}, begun alone"):
        found = steps(runs[0] / run)
        assert [event["tokens"] for event in found] == [event["tokens"] for event in expected]
        for alone, other in zip(expected, found, strict=True):
            assert other["loss"] == pytest.approx(alone["loss"], abs=1e-5), (run, alone["step"])
        assert scores_of(runs[0] / run)["complete"]


def test_the_first_process_alone_tracks(runs: tuple[Path, Path]) -> None:
    assert len(list((runs[0] / "shuffled" / "tb").iterdir())) == 1
    assert_tracked(runs[0] / "shuffled")


def test_a_killed_process_ends_the_run_with_a_message_and_a_checkpoint(tmp_path: Path, titles_file: Path) -> None:
    run = tmp_path / "run"
    recipe = tmp_path / "long.toml"
    recipe.write_text(
        f'[data]\npath = "{titles_file}"\nnum_titles = 400\n[tokenizer]\nvocab_size = 300\n'
        "[batches]\nblock_size = 16\nbatch_size = 16\n[model]\nn_layer = 1\nn_head = 2\nd_model = 16\n"
        '[train]\nepochs = 2000\ncheckpoint_every = 20\ndevice = "cpu"\n'
    )
    process = subprocess.Popen(
        [*TORCHRUN, "-m", "shortrun", "train", str(recipe), "--out", str(run)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list(run.glob("checkpoints/*/checkpoint.json")) and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr and process.stderr.read()[-3000:]
            time.sleep(0.2)
        workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        assert len(workers) == 2
        os.kill(int(workers[-1]), signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert "another one has ended or can't be reached" in errors
    assert "goes on from there, with any number of processes" in " ".join(errors.split())
    checkpoint, damaged = newest_checkpoint(RunFolder.open(run))
    assert checkpoint is not None
    assert not damaged
    assert resume(run, max_steps=checkpoint.progress.step + 3).budget.steps == checkpoint.progress.step + 3
