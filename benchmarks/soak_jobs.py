"""Faults of studies and sweeps: a worker that dies, and a database that goes. Every run must end as if it were alone."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from soak_sittings import Place, Sitting, differences, require

from shortrun.recipe_file import to_toml
from shortrun.runs.folder import runs_in

STUDY = """
about = "One run of the soak."
base = "base.toml"
form = "ladder"
seeds = [1]

[scale]
tuning = 0.1

[[change]]
name = "heads"
reason = "It hardly matters here."
model.n_head = 4
"""
SWEEP = """
about = "Two trials of the soak."
base = "base.toml"
n_trials = 2
sampler = "random"
seed = 3
pruner = "none"

[scale]
tuning = 0.1

[search]
optim.lr = { low = 1e-3, high = 1e-2, log = true }
"""


class Database(Protocol):
    """What a sweep's server must be able to do."""

    url: str

    def start(self) -> None: ...
    def crash(self) -> None: ...
    def drop_connections(self) -> None: ...
    def close(self) -> None: ...


def a_worker_dies(place: Place) -> int:
    """Kills the worker of a study at a random moment of a run; the study itself must end by itself."""
    file, out = _file(place, STUDY), place.new("runs")
    sitting = place.begin("study", "run", file, "--out", out, "--workers", "1", "--json")
    _wait_for_checkpoint(out, sitting)
    time.sleep(place.rng.uniform(0, 0.5))
    workers = _children(sitting.process.pid)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    require(sitting.wait() == 0, f"the study did not survive its worker: {sitting.said}")
    require("its process died (SIGKILL); it is begun once more" in " ".join(sitting.said.split()), sitting.said)
    _require_runs_as_alone(place, out, 2)
    return 1


def a_sweeps_database_goes(place: Place, server: Callable[[], Database]) -> int:
    """Drops a sweep's connections, or stops its server for a while; the same command must then go on."""
    database = server()
    try:
        file, out = _file(place, SWEEP), place.new("runs")
        argv = ("sweep", "run", file, "--out", out, "--storage", database.url, "--json")
        quickly = {"SHORTRUN_HEARTBEAT": "1"}
        sitting = place.begin(*argv, environment=quickly)
        _wait_for_checkpoint(out, sitting)
        time.sleep(place.rng.uniform(0, 0.5))
        if place.rng.random() < 0.5:
            database.drop_connections()
            code = sitting.wait()
        else:
            database.crash()
            code = sitting.wait()
            require(code == 1, f"exit code {code} without a server: {sitting.said}")
            database.start()
        said = " ".join(sitting.said.split())
        require(code == 0 or (code == 1 and "Run it again to go on" in said), f"exit code {code}: {sitting.said}")
        again = place.begin(*argv, environment=quickly)
        require(again.wait() == 0, f"the sweep could not go on: {again.said}")
        _require_runs_as_alone(place, out, 2)
    finally:
        database.close()
    return 1


def _file(place: Place, text: str) -> Path:
    file = place.new("file.toml")
    file.write_text(text, encoding="utf-8")
    recipe = place.described(train={"epochs": 8, "checkpoint_every": 5})
    (file.parent / "base.toml").write_text(to_toml(recipe), encoding="utf-8")
    return file


def _wait_for_checkpoint(out: Path, sitting: Sitting) -> None:
    deadline = time.monotonic() + 120
    while not list(out.glob("**/checkpoints/*/checkpoint.json")):
        require(sitting.process.exitcode is None and time.monotonic() < deadline, f"no checkpoint: {sitting.said}")
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] or [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def _require_runs_as_alone(place: Place, out: Path, number: int) -> None:
    """Each run must be finished, and as it is when its recipe is trained by itself."""
    runs = [run for run in runs_in(out) if run.finished_scores()]
    require(len(runs) == number, f"{len(runs)} runs are finished in {out}, not {number}: {[run.path for run in runs]}")
    chosen = place.rng.choice(runs)
    alone = place.new("alone")
    sitting = place.begin("train", chosen.recipe_file, "--out", alone, "--json")
    require(sitting.wait() == 0, sitting.said)
    found = differences(chosen.path, alone)
    require(not found, f"{chosen.path} ends in other {', '.join(found)} than {json.dumps(str(alone))}")
