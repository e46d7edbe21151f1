"""The pipeline's stages as `datatrove` pipelines, for its executors: on this machine, by Slurm, by Ray.

    def make(stage, pipeline, tasks, depends):
        return SlurmPipelineExecutor(pipeline, tasks=tasks, depends=depends, job_name=stage, time="4:00:00", ...)

    last_stage("mine", file, Path("corpora/mine"), tasks=64, make=make).run()

All machines see the input and the output folder under the same paths. Each task does its share of the units or shards, in the
same files as `prepare_corpus`, so that the documents are the same and either goes on with what the other began.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortrun.errors import UserError
from shortrun.pipeline.corpus_file import CorpusFile
from shortrun.pipeline.plan import Plan, make_plan
from shortrun.pipeline.prepare import decide_for, finish, shard_jobs
from shortrun.pipeline.runner import Crew
from shortrun.pipeline.shards import do_shard
from shortrun.pipeline.work import do_unit, is_done

Executor = Any
"""A `datatrove.executor.PipelineExecutor`, which has no types."""
Make = Callable[[str, list[Any], int, Executor | None], Executor]
"""Makes an executor from a stage's name, its pipeline, how many tasks share it, and the executor that must be done before."""


@dataclass(frozen=True)
class UnitsBlock:
    """A task's share of the units."""

    folder: Path

    def __call__(self, _: Any, rank: int, world_size: int) -> None:
        plan = Plan.open(self.folder)
        for job in plan.unit_jobs()[rank::world_size]:
            if not is_done(plan.place, job.number):
                do_unit(job)


@dataclass(frozen=True)
class DecisionsBlock:
    """Duplicates and splits, by one task."""

    folder: Path

    def __call__(self, _: Any, _rank: int, _world_size: int) -> None:
        decide_for(Plan.open(self.folder))


@dataclass(frozen=True)
class ShardsBlock:
    """A task's share of the shards."""

    folder: Path

    def __call__(self, _: Any, rank: int, world_size: int) -> None:
        for job in shard_jobs(Plan.open(self.folder))[rank::world_size]:
            if not job.record.is_file():
                do_shard(job)


@dataclass(frozen=True)
class ManifestBlock:
    """The manifest, by one task."""

    folder: Path

    def __call__(self, _: Any, _rank: int, _world_size: int) -> None:
        finish(Plan.open(self.folder))


def last_stage(name: str, file: CorpusFile, out: Path, tasks: int, make: Make) -> Executor:
    """The executor of the last stage, which depends on all others; its `run` makes the corpus of a file in the folder `out`.

    Looks at the input files at once, on this machine. Raises UserError for what can't work.
    """
    if (out / "manifest.json").is_file():
        raise UserError(f"{out} holds a corpus already")
    out.mkdir(parents=True, exist_ok=True)
    folder = make_plan(name, file, out.absolute(), Crew()).place.folder
    stages: list[tuple[str, Any, int]] = [
        ("units", UnitsBlock(folder), tasks),
        ("decisions", DecisionsBlock(folder), 1),
        ("shards", ShardsBlock(folder), tasks),
        ("manifest", ManifestBlock(folder), 1),
    ]
    executor: Executor | None = None
    for stage, block, shared_by in stages:
        executor = make(stage, [block], shared_by, executor)
    return executor
