"""Runs on a Dask cluster: two real workers, one of them killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shortrun.errors import UserError
from shortrun.recipe_file import to_toml
from shortrun.study.cluster import ClusterCrew
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


@pytest.mark.slow
def test_a_machine_that_is_lost_takes_no_run_with_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(to_toml(tiny_recipe(None, train={"epochs": 60, "checkpoint_every": 20})))
    (tmp_path / "two.toml").write_text(FILE)
    scheduler_file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-c", "import sys; from dask.cli import run_cli; sys.exit(run_cli())"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [
            *dask,
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(scheduler_file),
        ],
        **quiet,  # type: ignore[call-overload]
    )
    deadline = time.monotonic() + 60
    while not scheduler_file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    address = json.loads(scheduler_file.read_text())["address"]
    command = [*dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory"]
    workers = [
        subprocess.Popen([*command, str(tmp_path / name)], **quiet)  # type: ignore[call-overload]
        for name in ("one", "other")
    ]
    try:
        study = subprocess.Popen(
            [
                sys.executable, "-m", "shortrun", "study", "run", str(tmp_path / "two.toml"), "--out", str(tmp_path / "runs"),
                "--cluster", address, "--json",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while len(list((tmp_path / "runs").rglob("checkpoints/[0-9]*/checkpoint.json"))) < 2:
            assert study.poll() is None, study.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(workers[0].pid, signal.SIGKILL)
        out, errors = study.communicate(timeout=120)
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
    assert study.returncode == 0, errors
    rows = json.loads(out)["rows"]
    assert [row["seeds"] for row in rows] == [1, 1]
    assert not any(row["failures"] for row in rows)


def test_an_address_where_nobody_answers() -> None:
    with pytest.raises(UserError, match="No Dask scheduler answers at"):
        ClusterCrew("tcp://127.0.0.1:1")
