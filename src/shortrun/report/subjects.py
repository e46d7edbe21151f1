"""What a report is about: runs, studies and sweeps, and which of their runs are looked into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shortrun.errors import UserError
from shortrun.recipe import Recipe
from shortrun.report.names import apart
from shortrun.report.plain import shown
from shortrun.runs.folder import RunFolder
from shortrun.study.table import StudyResult
from shortrun.view.curves import Curves, Evaluated, read_curves

if TYPE_CHECKING:  # it needs Optuna, which whoever reports on runs alone need not have
    from shortrun.view.sweep import SweepReport

Split = Literal["tuning", "validation"]


@dataclass(frozen=True)
class NamedRun:
    """A run under the name that it has in the report."""

    name: str
    folder: RunFolder
    others: tuple[Path, ...] = ()
    """The runs of its study that differ from it in their seeds alone."""

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

    @cached_property
    def curves(self) -> Curves:
        return read_curves(self.folder.path)

    @property
    def finished(self) -> bool:
        """Whether it has taken all its steps and was scored."""
        return self.scores.get("complete") is True

    @property
    def steps(self) -> int:
        """Steps that its scores are of, or that stand in the log of a run without any."""
        logged = self.curves.steps_N
        return int(self.scores["steps"] if self.scores else logged[-1] if len(logged) else 0)

    def last_evaluation(self, split: Split) -> Evaluated | None:
        """The last one in its log."""
        return self.curves.on(split).last

    def loss(self, split: Split) -> float | None:
        """Of its last step, or while it has no scores, of its last evaluation."""
        if self.scores:
            found: float | None = self.scores["loss" if split == "validation" else "tuning_loss"]
            return found
        last = self.last_evaluation(split)
        return last.loss if last else None

    @property
    def progress(self) -> str:
        """How far it is, as the end of a sentence; empty of a finished run."""
        if self.finished:
            return ""
        most = self.curves.max_steps
        return f"{self.steps:,} of {most:,} steps" if most else "no step"


@dataclass(frozen=True)
class Subjects:
    """Everything that one report is about."""

    runs: tuple[Path, ...] = ()
    studies: tuple[StudyResult, ...] = ()
    sweeps: tuple[SweepReport, ...] = ()
    final: bool = False
    """Whether the validation documents of studies and sweeps may be looked at."""

    @property
    def split(self) -> Split:
        """The documents whose losses are shown. Studies and sweeps choose by tuning documents, until someone asks for the others."""
        return "validation" if self.final or not (self.studies or self.sweeps) else "tuning"

    @property
    def title(self) -> str:
        names = [*(study.study for study in self.studies), *(sweep.sweep for sweep in self.sweeps)]
        return ", ".join([*names, *(run.resolve().name for run in self.runs)])

    def named_runs(self) -> list[NamedRun]:
        """The runs that are looked into: those given, one of each row of a study, the best of a sweep; each once.

        The first is what the others are compared with. Raises UserError where there is none.
        """
        found = [*self._of_studies(), *self._of_sweeps(), *((run.resolve().name, run, ()) for run in self.runs)]
        places: dict[Path, tuple[str, Path, tuple[Path, ...]]] = {}
        for name, path, others in found:
            places.setdefault(path.resolve(), (shown(name), path, others))
        if not places:
            raise UserError(f"{self.title or 'The report'} has no run yet, so there is nothing to report")
        names = apart((name for name, _, _ in places.values()), numbered="{} ({})")
        return [
            NamedRun(name, RunFolder.open(path), others)
            for name, (_, path, others) in zip(names, places.values(), strict=True)
        ]

    def last(self, runs: Sequence[NamedRun]) -> NamedRun:
        """The run that the report is about in the end: of a study the best row, else the last run."""
        best = [row for study in self.studies for row in study.rows if row.loss is not None and row.runs]
        if not best or self.runs or self.sweeps:
            return runs[-1]
        place = Path(min(best, key=lambda row: row.loss or 0.0).runs[0]).resolve()
        return next((run for run in runs if run.folder.path.resolve() == place), runs[-1])

    def _of_studies(self) -> Iterator[tuple[str, Path, tuple[Path, ...]]]:
        for study in self.studies:
            for row in study.rows:
                if row.runs:
                    first, *others = map(Path, row.runs)
                    yield row.change, first, tuple(others)

    def _of_sweeps(self) -> Iterator[tuple[str, Path, tuple[Path, ...]]]:
        for sweep in self.sweeps:
            if sweep.best and sweep.best.run:
                yield f"{sweep.sweep}, trial {sweep.best.number}", Path(sweep.best.run), ()


def names_of(paths: Sequence[str], runs: Sequence[NamedRun]) -> tuple[str, ...]:
    """The names that the runs in these folders have in the report, as far as they are in it."""
    names = {run.folder.path.resolve(): run.name for run in runs}
    places = (Path(path).resolve() for path in paths)
    return tuple(names[place] for place in places if place in names)
