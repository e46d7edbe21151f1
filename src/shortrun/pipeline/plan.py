"""The plan: files, their fingerprints, the units in their order, and the working folder that belongs to exactly these."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shortrun.disk import json_sha256, read_json, write_json
from shortrun.pipeline.corpus_file import CorpusFile, Input
from shortrun.pipeline.files import FoundFile, find_files
from shortrun.pipeline.hub import open_hub
from shortrun.pipeline.runner import Crew
from shortrun.pipeline.units import Planned, Unit, grouped, plan_file, ranges
from shortrun.pipeline.work import Place, UnitJob

FORMAT = 1
"""Counted up when the same input would make another corpus."""
LIBRARIES = ("ftfy", "py3langid", "pyarrow", "rensa", "resiliparse", "trafilatura", "justext")
MOST_LISTED = 1_000
"""Input files that a manifest lists one by one."""
RESULT = "plan.json"
WORK = ".work"
"""The folder inside the corpus's where work lies until it is done."""


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    name: str
    file: CorpusFile
    out: Path
    place: Place
    units: tuple[Unit, ...]
    inputs: list[dict[str, Any]]
    """What the manifest says of each input."""
    not_read: dict[str, int]

    def unit_jobs(self) -> list[UnitJob]:
        return [UnitJob(number, unit, self.place, self.file) for number, unit in enumerate(self.units)]

    def save(self) -> None:
        self.place.folder.mkdir(parents=True, exist_ok=True)
        kept = {
            "name": self.name,
            "file": self.file.model_dump(mode="json", exclude_unset=True),
            "out": str(self.out),
            "root": str(self.place.root),
            "units": [asdict(unit) for unit in self.units],
            "inputs": self.inputs,
            "not_read": self.not_read,
        }
        write_json(self.place.folder / RESULT, kept)

    @classmethod
    def open(cls, folder: Path) -> Plan:
        """The plan of a working folder, for whoever works in it on another machine."""
        kept = read_json(folder / RESULT, 2**32)
        units = tuple(Unit(**{**unit, "files": tuple(unit["files"])}) for unit in kept["units"])
        file = CorpusFile.model_validate(kept["file"])
        place = Place(folder, Path(kept["root"]))
        return cls(kept["name"], file, Path(kept["out"]), place, units, kept["inputs"], kept["not_read"])


def make_plan(name: str, file: CorpusFile, out: Path, crew: Crew) -> Plan:
    """Looks at every input file once. Raises UserError with every input that can't be read."""
    root = Path(file.root)
    found = find_files(file.input, root, out)
    files = found.files
    sizes = [(root / each.name).stat().st_size for each in files]
    planned = crew.do("looking at the input", partial(_planned, root, file), files, sizes)
    units: list[Unit] = []
    described: dict[int, dict[str, Any]] = {}
    # those of validation come first, so that what is like one of them is found to be the later one
    for number in sorted(range(len(file.input)), key=lambda number: _order(file.input[number])):
        about = file.input[number]
        if about.hub:
            made, described[number] = _of_hub(number, about, file.output.unit_bytes)
            units += made
            continue
        mine = [(each, plan) for each, plan in zip(files, planned, strict=True) if each.input == number]
        units += [unit for each, plan in mine for unit in plan.units]
        units += grouped([plan for each, plan in mine if each.is_document], number, file.output.unit_bytes)
        described[number] = _described(about, [plan for _, plan in mine])
    inputs = [described[number] for number in range(len(file.input))]
    installed = {library: there for library in LIBRARIES if (there := _version(library))}
    key = json_sha256({"format": FORMAT, "file": file.decides(), "inputs": inputs, "libraries": installed})
    place = Place(out / WORK / key[:16], root.absolute())
    plan = Plan(name, file, out, place, tuple(units), inputs, dict(sorted(found.not_read.items())))
    plan.save()
    return plan


def _order(about: Input) -> int:
    return ("validation", "train", "auto").index(about.split)


def _planned(root: Path, file: CorpusFile, found: FoundFile) -> Planned:
    return plan_file(root, found, file.input[found.input], file.output.unit_bytes)


def _of_hub(number: int, about: Input, unit_bytes: int) -> tuple[list[Unit], dict[str, Any]]:
    table = open_hub(about)
    rows = len(table)
    size = int(table.data.nbytes)
    origin = Path(table.cache_files[0]["filename"]).parent.name if table.cache_files else ""
    described = {"name": about.title, "hub": about.hub, "rows": rows, "version": origin}
    return list(ranges(number, "hub", str(about.hub), rows, size, unit_bytes)), described


def _described(about: Input, planned: Sequence[Planned]) -> dict[str, Any]:
    """What the manifest says of an input's files; of very many, the sha256 of their names and sha256s."""
    lines = "".join(f"{plan.sha256}  {plan.name}\n" for plan in planned)
    made: dict[str, Any] = {
        "name": about.title,
        "files": len(planned),
        "bytes": sum(plan.bytes for plan in planned),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }
    if len(planned) <= MOST_LISTED:
        made["listed"] = [{"name": plan.name, "bytes": plan.bytes, "sha256": plan.sha256} for plan in planned]
    return made


def _version(library: str) -> str | None:
    try:
        return version(library)
    except ModuleNotFoundError:
        return None
