"""A sweep of two processes on a PostgreSQL server, one of them killed on the way: is a trial lost, or counted twice?

    python benchmarks/killed_sweep.py lr-dropout-block --data.path hn-titles.parquet --out runs/killed-sweep

Two `shortrun sweep run` share the trials. After every few finished trials one of them gets SIGKILL with all its children, as
a machine that loses power, and is started again. At the end the trials are counted in the database and in the run folders,
and benchmarks/killed_sweep.json has the counts beside the sweep's result. The server lives as long as this script.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.postgres_server import postgres_server

from shortrun.runs.folder import runs_in

RESULT = Path(__file__).with_suffix(".json")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kill-after", type=int, nargs="*", default=[7, 18], help="finished trials before each kill")
    parser.add_argument("--within", type=float, default=20, help="seconds in which it then comes, at random")
    options, flags = parser.parse_known_args()
    with postgres_server() as url:
        found = swept(options.sweep, url, options.out, options.kill_after, options.within, flags)
    RESULT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found["counts"], indent=1))
    raise SystemExit(0 if found["counts"]["lost"] == found["counts"]["counted_twice"] == 0 else 1)


def swept(sweep: str, url: str, out: Path, kill_after: list[int], within: float, flags: list[str]) -> dict[str, Any]:
    """Runs a sweep in two processes and kills one after so many finished trials."""
    options = ["--storage", url, "--out", str(out), *flags]
    run = ["run", sweep, *options, "--train.threads", "1"]
    workers = [begun(run) for _ in range(2)]
    acknowledged: set[int] = set()
    kills: list[int] = []
    left = sorted(kill_after)
    while any(worker.poll() is None for worker in workers):
        time.sleep(1)
        ended = ended_trials(url, sweep)
        if ended != acknowledged:
            acknowledged |= ended
            print(f"{len(ended)} trials have ended, after {len(kills)} kills", file=sys.stderr)
        if left and len(ended) >= left[0] and workers[0].poll() is None:
            left.pop(0)
            time.sleep(random.uniform(0, within))  # somewhere inside a trial
            for pid in (workers[0].pid, *children_of(workers[0].pid)):
                os.kill(pid, signal.SIGKILL)
            workers[0].wait()
            kills.append(len(ended_trials(url, sweep)))
            workers[0] = begun(run)
    codes = [worker.returncode for worker in workers]
    shown = subprocess.run(
        [sys.executable, "-m", "shortrun", "sweep", "show", sweep, "--storage", url, "--out", str(out), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    result = json.loads(shown.stdout)
    return {"counts": counts(url, sweep, out, result, acknowledged, kills, codes), "result": result}


def counts(
    url: str, sweep: str, out: Path, result: dict[str, Any], acknowledged: set[int], kills: list[int], codes: list[int]
) -> dict[str, Any]:
    """What became of the trials, by the database, the result and the run folders."""
    ended = [trial for trial in result["trials"] if trial["state"] in ("COMPLETE", "PRUNED")]
    runs = Counter(trial["run"] for trial in ended)
    fingerprints = Counter(run.manifest()["fingerprint"] for run in runs_in(out))
    return {
        "asked_for": result["n_trials"],
        "ended": len(ended),
        "completed": sum(trial["state"] == "COMPLETE" for trial in ended),
        "pruned": sum(trial["state"] == "PRUNED" for trial in ended),
        "killed_after": kills,
        "exit_codes": codes,
        "tries_in_the_database": len(study_of(url, sweep).trials),
        "lost": len(acknowledged - ended_trials(url, sweep)) + sum(not Path(run).exists() for run in runs),
        "counted_twice": len(ended) - len(runs) + sum(count > 1 for count in fingerprints.values()),
        "run_folders": len(list(runs_in(out))),
    }


def study_of(url: str, sweep: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.load_study(study_name=Path(sweep).stem, storage=url.replace("postgresql://", "postgresql+psycopg://"))


def ended_trials(url: str, sweep: str) -> set[int]:
    """Numbers of the trials that the database holds as finished."""
    try:
        return {trial.number for trial in study_of(url, sweep).get_trials(deepcopy=False, states=ENDED)}
    except KeyError:  # not begun yet
        return set()


def begun(run: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "shortrun", "sweep", *run]
    return subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL)


def children_of(process: int) -> list[int]:
    """The processes below one, all levels."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    own = [pid for pid, parent in pairs if parent == process]
    return [*own, *(below for pid in own for below in children_of(pid))]


if __name__ == "__main__":
    main()
