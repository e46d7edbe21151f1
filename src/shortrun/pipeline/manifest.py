"""The manifest: what went in, what every step did, what came out. Nothing in it depends on the machine or on how long it took."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from shortrun import __version__
from shortrun.disk import json_sha256
from shortrun.pipeline.decisions import Decisions
from shortrun.pipeline.extraction import Extraction
from shortrun.pipeline.fingerprints import described
from shortrun.pipeline.plan import Plan
from shortrun.pipeline.steps import Tally
from shortrun.pipeline.work import counts_of, text_steps
from shortrun.text.prepared import FORMAT


def manifest_of(plan: Plan, decisions: Decisions, shards: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest of a corpus whose shards are written."""
    totals: dict[str, Tally] = {}
    for number in range(len(plan.units)):
        for name, tally in counts_of(plan.place, number)[1].items():
            totals.setdefault(name, Tally()).join(tally)
    totals.update(decisions.tallies)
    about = _about(plan, totals)
    return {
        "format": FORMAT,
        "shortrun": __version__,
        "name": plan.name,
        "about": plan.file.about,
        "key": plan.place.folder.name,
        "file": plan.file.decides(),
        "inputs": plan.inputs,
        "not_read": plan.not_read,
        "steps": [
            {"name": name, "about": about[name], **asdict(tally)}
            for name, tally in totals.items()
            if name != "extraction" or tally.documents_in
        ],
        "splits": {name: split for name, split in decisions.splits.items() if split["documents"]},
        "lengths": decisions.lengths,
        "shards": shards,
        "sha256": json_sha256([[shard["name"], shard["sha256"]] for shard in shards]),
    }


def _about(plan: Plan, totals: dict[str, Tally]) -> dict[str, str]:
    """What each step is, with its library and its source."""
    file = plan.file
    about = {step.name: step.about for step in text_steps(file)}
    about["reading"] = "records of the input files; those that are damaged are left out"
    if totals["extraction"].documents_in:
        about["extraction"] = Extraction(file.extraction.library).about
    about["held out"] = "documents like one of a validation input leave training"
    about["exact duplicates"] = "the first of equal documents is kept, by 64 bits of sha256"
    if file.duplicates.near != "off":
        about["near-duplicates"] = described(file.duplicates)
        about["held out"] += f"; {about['near-duplicates']}"
    return about
