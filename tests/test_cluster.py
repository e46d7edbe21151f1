"""Runs on a Dask cluster: two real workers, one of them killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shortrun.errors import UserError
from shortrun.recipe_file import to_toml
from shortrun.study.cluster import LOST, ClusterCrew
from tests.conftest import tiny_recipe

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

FILE = """
about = "Two runs."
base = "base.toml"
form = "ablation"
seeds = [1]

[[change]]
name = "more heads"
reason = "It hardly matters."
model.n_head = 4
"""


DASK = [sys.executable, "-c", "import sys; from dask.cli import run_cli; sys.exit(run_cli())"]


class Cluster:
    """A scheduler, two workers, and a study of two runs that is done on them."""

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "runs"
        (folder / "base.toml").write_text(
            to_toml(tiny_recipe(None, train={"epochs": 16, "evals_per_epoch": 1, "checkpoint_every": 40}))
        )
        (folder / "two.toml").write_text(FILE)
        file = folder / "scheduler.json"
        address = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        self.scheduler = self._dask("scheduler", *address)
        self.workers: list[subprocess.Popen[bytes]] = []
        self._deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < self._deadline
            time.sleep(0.1)
        self.address = json.loads(file.read_text())["address"]
        for name in ("one", "other"):
            options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder / name)]
            self.workers.append(self._dask("worker", self.address, *options))
        self.study = subprocess.Popen(
            [
                sys.executable, "-m", "shortrun", "study", "run", str(folder / "two.toml"), "--out", str(self.runs),
                "--cluster", self.address, "--json",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"},
        )  # fmt: skip

    def _dask(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*DASK, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_for_checkpoints(self) -> None:
        while len(list(self.runs.glob("two/*/checkpoints/[0-9]*/checkpoint.json"))) < 2:
            assert self.study.poll() is None, self.study.communicate()
            assert time.monotonic() < self._deadline
            time.sleep(0.05)

    def close(self) -> None:
        processes: list[subprocess.Popen[Any]] = [*self.workers, self.scheduler, self.study]
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_a_machine_that_is_lost_takes_no_run_with_it(cluster: Cluster) -> None:
    cluster.wait_for_checkpoints()
    os.kill(cluster.workers[0].pid, signal.SIGKILL)
    out, errors = cluster.study.communicate(timeout=120)
    assert cluster.study.returncode == 0, errors
    rows = json.loads(out)["rows"]
    assert [row["seeds"] for row in rows] == [1, 1]
    assert not any(row["failures"] for row in rows)


@pytest.mark.slow
def test_a_scheduler_that_is_lost_is_a_sentence(cluster: Cluster) -> None:
    cluster.wait_for_checkpoints()
    os.kill(cluster.scheduler.pid, signal.SIGKILL)
    out, errors = cluster.study.communicate(timeout=120)
    assert "Traceback" not in errors, errors
    assert cluster.study.returncode in (0, 1), errors
    rows = json.loads(out)["rows"]
    assert [row["failures"] for row in rows] == [{"1": LOST}, {"1": LOST}]


def test_an_address_where_nobody_answers() -> None:
    with pytest.raises(UserError, match="No Dask scheduler answers at"):
        ClusterCrew("tcp://127.0.0.1:1")
