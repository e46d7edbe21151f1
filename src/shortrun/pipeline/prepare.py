"""The door to the pipeline: `prepare_corpus` makes the corpus of a file, or goes on with it.

Work happens in stages: the plan, units, decisions, shards, the manifest. Each leaves files in OUT/.work, so that work that was
interrupted in any way goes on from there and ends in the same bytes. The manifest is written last: a folder that has one is whole.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from shortrun.disk import read_json, write_json
from shortrun.errors import UserError
from shortrun.limits import require_no_link
from shortrun.pipeline.corpus_file import CorpusFile
from shortrun.pipeline.decisions import Decisions, decide
from shortrun.pipeline.groups import Corpus
from shortrun.pipeline.manifest import manifest_of
from shortrun.pipeline.plan import WORK, Plan, make_plan
from shortrun.pipeline.runner import Crew
from shortrun.pipeline.shards import ShardJob, do_shard
from shortrun.pipeline.work import counts_of, do_unit, is_done, text_steps
from shortrun.text.prepared import MANIFEST, open_manifest


def prepare_corpus(
    name: str, file: CorpusFile, out: Path, crew: Crew | None = None, *, replace: bool = False
) -> dict[str, Any]:
    """Makes the corpus of a file in the folder `out`; returns its manifest.

    replace: whether a corpus that lies there may go. Raises UserError for what can't work, Stopped where the crew is
    asked to stop.
    """
    crew = crew or Crew()
    require_no_link(out / WORK)  # what is left in it from other work is removed
    text_steps(file)  # a library that is missing is said at once
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            try:
                return _prepared(name, file, out, crew, replace)
            finally:
                with suppress(OSError):  # Windows keeps what is open
                    (out / ".lock").unlink()
    except Timeout:
        raise UserError(f"Another process is preparing {out}") from None


def _prepared(name: str, file: CorpusFile, out: Path, crew: Crew, replace: bool) -> dict[str, Any]:
    begun = (out / WORK).is_dir()
    plan = make_plan(name, file, out, crew)
    if (out / MANIFEST).is_file():
        there = open_manifest(out)
        if there.get("key") == plan.place.folder.name and not replace:
            clear(plan)
            return there
        if not replace:
            shutil.rmtree(plan.place.folder)
            raise UserError(
                f"{out} holds a corpus of another file or other inputs; --replace puts this one in its place, "
                "or --out names another folder"
            )
    elif not begun and (strange := sorted(out.glob("*.parquet"))):
        clear(plan)
        raise UserError(
            f"{strange[0]} is no part of a prepared corpus, so that {out} is left alone; --out names another folder"
        )
    for other in plan.place.folder.parent.iterdir():  # begun with other settings
        if other != plan.place.folder:
            shutil.rmtree(other)
    jobs = plan.unit_jobs()
    rest = [job for job in jobs if not is_done(plan.place, job.number)]
    before = sum(job.unit.bytes for job in jobs) - sum(job.unit.bytes for job in rest)
    crew.do("reading and cleaning", do_unit, rest, [job.unit.bytes for job in rest], before)
    crew.do("finding duplicates", decide_for, [plan], [1])
    shards = shard_jobs(plan)
    rest_shards = [job for job in shards if not job.record.is_file()]
    written = sum(job.shard.bytes for job in shards) - sum(job.shard.bytes for job in rest_shards)
    crew.do("writing shards", do_shard, rest_shards, [job.shard.bytes for job in rest_shards], written)
    return finish(plan)


def corpus_of(plan: Plan) -> Corpus:
    """The documents that the units left, numbered."""
    starts = [0]
    for number in range(len(plan.units)):
        starts.append(starts[-1] + counts_of(plan.place, number)[0])
    return Corpus(plan.place, tuple(starts), tuple(unit.input for unit in plan.units))


def decide_for(plan: Plan) -> None:
    """The stage between units and shards, which looks at all documents."""
    decide(corpus_of(plan), plan.file)


def shard_jobs(plan: Plan) -> list[ShardJob]:
    """The shards that were decided on, with their names."""
    starts = corpus_of(plan).starts
    inputs = tuple(plan.file.input[unit.input].title for unit in plan.units)
    jobs: list[ShardJob] = []
    for shard in Decisions.open(plan.place).shards:
        number = sum(job.shard.split == shard.split for job in jobs)
        name = f"{shard.split}-{number:05}.parquet"
        jobs.append(ShardJob(shard, name, plan.place, starts, inputs))
    return jobs


def finish(plan: Plan) -> dict[str, Any]:
    """Puts the shards into their folder, when all are there, then the manifest, and removes the working folder."""
    jobs = shard_jobs(plan)
    manifest = manifest_of(plan, Decisions.open(plan.place), [read_json(job.record) for job in jobs])
    if (plan.out / MANIFEST).is_file():  # of a corpus that is to go
        old = open_manifest(plan.out)["shards"]
        (plan.out / MANIFEST).unlink()
        for shard in old:
            (plan.out / shard["name"]).unlink(missing_ok=True)
    for job in jobs:
        if job.path.exists():  # it is there already, where this was interrupted
            job.path.replace(plan.out / job.name)
    write_json(plan.out / MANIFEST, manifest)
    clear(plan)
    return manifest


def clear(plan: Plan) -> None:
    shutil.rmtree(plan.place.folder.parent, ignore_errors=True)
