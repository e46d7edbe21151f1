"""Sittings of runs as real processes that can be killed, and what is compared after them.

A process is forked from a server that has imported everything (multiprocessing's forkserver), so that it begins in a hundredth of
a second and a soak has time for hundreds of faults. It runs a command line as `shortrun` does, with some of this around it:
each checkpoint and result is acknowledged in a file outside the run, syncs are recorded, gradients spoiled, memory limited.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shortrun.recipe import Recipe
from shortrun.recipe_file import to_toml
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["shortrun.cli.commands", "shortrun.cli.display", "shortrun.api", "shortrun.track.tracking", "shortrun.cli.sweep",
     "shortrun.study.sweep", "shortrun.study.run", "sympy", "pandas", "pyarrow.pandas_compat", "dateutil.parser",
     "rich._emoji_codes"]
)  # fmt: skip
PATIENCE = 300
"""Seconds after which a sitting counts as hanging. It takes one or two."""
VARIANTS: dict[str, dict[str, Any]] = {
    "shuffled": {"batches": {"mode": "shuffled"}, "train": {"checkpoint_every": 1}},
    "stream": {"batches": {"mode": "stream"}, "train": {"checkpoint_every": 3}},
    "documents": {"batches": {"mode": "documents"}, "train": {"ema": 0.9}},
}
"""Recipes that take turns: ways to make batches, checkpoints often and seldom, with an average of the weights and without."""


@dataclass(frozen=True)
class Around:
    """What is put around the command of one sitting."""

    acks: Path
    """Gets a line for each thing that was acknowledged: `saved STEP` or `ended STEP`."""
    syncs: Path | None = None
    """A folder in which `soak_power` records what is on disk for sure."""
    cut_at: int | None = None
    """The sync after which the process is killed."""
    nan_at: int | None = None
    """The step whose gradient becomes NaN."""
    memory: int | None = None
    """Bytes that training may take above what the process has when it begins."""


@dataclass
class Sitting:
    """A process that runs one command."""

    process: Any
    out: Path
    code: int | None = None

    def wait(self) -> int:
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"a sitting hung for {PATIENCE} s: {self.said}")
        self.code = self.process.exitcode
        assert self.code is not None
        require(self.code < 0 or "Traceback" not in self.said, f"a traceback: {self.said}")
        return self.code

    def send(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.process.exitcode is None:
            os.kill(self.process.pid, number)

    @property
    def said(self) -> str:
        """What it wrote on standard error."""
        return self.out.read_text(encoding="utf-8") if self.out.exists() else ""


@dataclass
class Place:
    """Where faults happen: a folder with data, a cache, and a recipe for each variant that has been trained undisturbed."""

    folder: Path
    rng: random.Random
    _number: int = 0
    _whole: dict[str, tuple[Path, float]] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "titles.txt"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every process here, which has a cache of its own."""
        return {**os.environ, "SHORTRUN_CACHE": str(self.folder / "cache")}

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        words = "Show HN Ask why Rust is fast and small λ models für Zürich 日本語 C++ GPT-4 (2014) releases".split()
        rng = random.Random(7)
        titles = [" ".join(rng.choices(words, k=rng.randint(2, 9))) for _ in range(400)]
        self.data.write_text("\n".join(titles) + "\n", encoding="utf-8")

    def new(self, name: str) -> Path:
        """A path in a folder of its own, where nothing is yet."""
        self._number += 1
        folder = self.folder / f"{self._number:05}"
        folder.mkdir()
        return folder / name

    def tidy(self) -> None:
        """Removes what earlier faults left, but for the undisturbed runs."""
        kept = {run.parent for run, _ in self._whole.values()}
        for folder in self.folder.glob("[0-9]*"):
            if folder not in kept:
                shutil.rmtree(folder)

    def recipe(self, variant: str) -> Path:
        """The recipe file of a variant."""
        file = self.folder / f"{variant}.toml"
        if not file.exists():
            file.write_text(to_toml(self.described(**VARIANTS[variant])), encoding="utf-8")
        return file

    def described(self, **sections: dict[str, Any]) -> Recipe:
        values: dict[str, dict[str, Any]] = {
            "data": {"path": [str(self.data)], "num_titles": 400},
            "tokenizer": {"vocab_size": 300},
            "batches": {"block_size": 16, "batch_size": 32},
            "model": {"n_layer": 1, "n_head": 2, "d_model": 16, "dropout": 0.2},
            "optim": {"name": "adamw", "lr": 3e-3},
            "train": {"epochs": 2, "evals_per_epoch": 3, "threads": 1, "device": "cpu"},
        }
        for section, fields in sections.items():
            values[section] = {**values.get(section, {}), **fields}
        return Recipe.model_validate(values)

    def any_variant(self) -> str:
        return self.rng.choice(list(VARIANTS))

    def whole(self, variant: str) -> tuple[Path, float]:
        """The undisturbed run of a variant, and how many seconds it took."""
        if variant not in self._whole:
            run = self.new("whole")
            for path in (self.new("warm-up"), run):  # the first one also makes what the cache then has
                start = time.monotonic()
                sitting = self.begin("train", self.recipe(variant), "--out", path, "--json")
                assert sitting.wait() == 0, sitting.said
                self._whole[variant] = run, time.monotonic() - start
        return self._whole[variant]

    def begin(
        self, *argv: str | Path, acks: Path | None = None, environment: dict[str, str] | None = None, **around: Any
    ) -> Sitting:
        """A process that runs `shortrun ARGV`, with an `Around` of these settings."""
        out = self.new("said")
        injected = Around(acks or self.new("acks"), **around)
        variables = {**self.environment, **(environment or {})}
        process = PROCESSES.Process(target=run_in_child, args=([*map(str, argv)], out, injected, variables))
        process.start()
        return Sitting(process, out)

    def go_on(self, run: Path, variant: str) -> str:
        """Resumes a run to its end, or begins it where there is none yet; returns what was said."""
        argv = ["resume", run] if run.exists() else ["train", self.recipe(variant), "--out", run]
        sitting = self.begin(*argv, "--json")
        require(sitting.wait() == 0, f"the run could not go on: {sitting.said}")
        return sitting.said


def require(holds: object, sentence: str) -> None:
    """Raises AssertionError, also under `python -O`."""
    if not holds:
        raise AssertionError(sentence)


def run_in_child(argv: list[str], out: Path, around: Around, environment: dict[str, str]) -> None:
    """What a child does: the command, with its standard error in a file."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, path in ((1, os.devnull), (2, out)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    from shortrun.cli import commands

    put_around(around)
    code = commands.run(argv)
    sys.stderr.flush()
    os._exit(code)


def put_around(around: Around) -> None:
    """Wraps functions of the package in this process."""
    from shortrun.runs.folder import RunFolder
    from shortrun.train import loop
    from shortrun.train.step import TrainingStep

    if around.syncs:
        import soak_power

        soak_power.record(around.syncs, around.cut_at)
    acks = os.open(around.acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledged(function: Callable[..., Any], line: Callable[..., str]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            result = function(*args)
            os.write(acks, line(*args).encode() + b"\n")
            return result

        return call

    loop.save_checkpoint = acknowledged(
        loop.save_checkpoint, lambda _folder, progress, _write: f"saved {progress.step}"
    )
    RunFolder.write_result = acknowledged(  # type: ignore[method-assign]
        RunFolder.write_result, lambda _folder, result: f"ended {result.budget.steps}"
    )
    if around.nan_at is not None:
        gradient = TrainingStep._gradient

        def spoiled(self: TrainingStep, batch: Any, seed: tuple[int, int], rdrop: bool) -> Any:
            loss = gradient(self, batch, seed, rdrop)
            if seed[1] == around.nan_at:
                next(iter(self.model.parameters())).grad.view(-1)[0] = float("nan")  # type: ignore[union-attr]
            return loss

        TrainingStep._gradient = spoiled  # type: ignore[method-assign]
    if around.memory is not None:
        run, memory = loop.Loop.run, around.memory

        def limited(self: loop.Loop, last: int, stop: Any) -> Any:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            return run(self, last, stop)

        loop.Loop.run = limited  # type: ignore[method-assign]


def acknowledged_step(acks: Path) -> tuple[int, bool]:
    """The last step whose checkpoint was acknowledged, and whether the result was."""
    lines = acks.read_text().split("\n")[:-1] if acks.exists() else []
    return max((int(line.split()[1]) for line in lines if line.startswith("saved")), default=0), any(
        line.startswith("ended") for line in lines
    )


def require_nothing_lost(run: Path, acks: Path, about: str) -> None:
    """Raises AssertionError where something that was acknowledged is no longer there."""
    step, ended = acknowledged_step(acks)
    if not step:
        return
    require(run.exists(), f"{about}: the checkpoint of step {step} was acknowledged, and there is no run")
    folder = RunFolder.open(run)
    newest, damaged = newest_checkpoint(folder)
    found = newest.progress.step if newest else 0
    require(
        found >= step, f"{about}: the checkpoint of step {step} was acknowledged, the newest is of {found}: {damaged}"
    )
    assert newest is not None
    log = folder.metrics_file.read_bytes()[: newest.progress.metrics_bytes]
    require(len(log) == newest.progress.metrics_bytes, f"{about}: lines of metrics.jsonl before step {found} are lost")
    steps = [event["step"] for event in map(json.loads, log.splitlines()) if event["event"] == "training_step"]
    require(steps == list(range(1, found + 1)), f"{about}: metrics.jsonl does not hold every step up to {found}")
    if ended:
        require(folder.finished_scores(), f"{about}: the result was acknowledged and is not there")


def differences(one: Path, other: Path) -> list[str]:
    """In what the ends of two runs differ; nothing where they are the same, bit for bit."""
    runs = [RunFolder.open(path) for path in (one, other)]
    ends = [newest_checkpoint(run)[0] for run in runs]
    weights = [end.path.joinpath("model.safetensors").read_bytes() if end else b"" for end in ends]
    scores = [
        {key: (run.scores() or {}).get(key) for key in ("loss", "official_loss", "tokens", "complete")} for run in runs
    ]
    found = {
        "weights": weights,
        "metrics": [_timeless(run) for run in runs],
        "scores": scores,
        "nats": [run.nats().nats_D.tolist() for run in runs],
        "fingerprint": [run.fingerprint() for run in runs],
    }
    return [name for name, (first, second) in found.items() if first != second]


def _timeless(run: RunFolder) -> list[dict[str, Any]]:
    """The log without what a clock or a place decides."""
    return [
        {key: value for key, value in event.items() if key not in ("timestamp", "elapsed_time", "log_file")}
        for event in run.metrics()
    ]
