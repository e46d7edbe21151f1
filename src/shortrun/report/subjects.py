"""What a report is about: runs, studies and sweeps, and which of their runs are looked into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortrun.errors import UserError
from shortrun.recipe import Recipe
from shortrun.runs.folder import RunFolder
from shortrun.study.table import StudyResult

if TYPE_CHECKING:  # it needs Optuna, which whoever reports on runs alone need not have
    from shortrun.view.sweep import SweepReport


@dataclass(frozen=True)
class NamedRun:
    """A run under the name that it has in the report."""

    name: str
    folder: RunFolder
    change: str = ""
    """What is special about it, as its study says."""

    @cached_property
    def recipe(self) -> Recipe:
        return self.folder.recipe()

    @cached_property
    def scores(self) -> dict[str, Any]:
        """What scores.json holds; empty while the run has none."""
        return self.folder.scores() or {}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return self.folder.manifest()


@dataclass(frozen=True)
class Subjects:
    """Everything that one report is about."""

    runs: tuple[Path, ...] = ()
    studies: tuple[StudyResult, ...] = ()
    sweeps: tuple[SweepReport, ...] = ()

    @property
    def title(self) -> str:
        names = [*(study.study for study in self.studies), *(sweep.sweep for sweep in self.sweeps)]
        return ", ".join([*names, *(run.name for run in self.runs)])

    def named_runs(self) -> list[NamedRun]:
        """The runs that are looked into: those given, one of each row of a study, the best of a sweep; each once.

        The first is what the others are compared with. Raises UserError where there is none.
        """
        found = [*self._of_studies(), *self._of_sweeps(), *((run.name, run, "") for run in self.runs)]
        names: dict[str, NamedRun] = {}
        places: set[Path] = set()
        for name, path, change in found:
            if path.resolve() not in places:
                places.add(path.resolve())
                unique = _unique(name, names)
                names[unique] = NamedRun(unique, RunFolder.open(path), change)
        if not names:
            raise UserError(f"{self.title or 'The report'} has no run yet, so there is nothing to report")
        return list(names.values())

    def last(self, runs: Sequence[NamedRun]) -> NamedRun:
        """The run that the report is about in the end: of a study the best row, else the last run."""
        best = [row for study in self.studies for row in study.rows if row.loss is not None and row.runs]
        if not best or self.runs or self.sweeps:
            return runs[-1]
        place = Path(min(best, key=lambda row: row.loss or 0.0).runs[0]).resolve()
        return next((run for run in runs if run.folder.path.resolve() == place), runs[-1])

    def _of_studies(self) -> Iterator[tuple[str, Path, str]]:
        for study in self.studies:
            for row in study.rows:
                if row.runs:
                    yield row.change, Path(row.runs[0]), ""

    def _of_sweeps(self) -> Iterator[tuple[str, Path, str]]:
        for sweep in self.sweeps:
            if sweep.best and sweep.best.run:
                yield best_name(sweep), Path(sweep.best.run), ""


def best_name(sweep: SweepReport) -> str:
    """What the run of a sweep's best trial is called."""
    return f"{sweep.sweep}, trial {sweep.best.number}" if sweep.best else sweep.sweep


def _unique(name: str, taken: Mapping[str, Any]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name} ({number})"
    return unique
