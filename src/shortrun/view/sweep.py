"""What a sweep has found and what finding it has cost: as numbers, as Optuna's plots, and as a recipe."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from shortrun.disk import write_atomically
from shortrun.errors import UserError, counted
from shortrun.recipe_file import COMMAND_LINE, layers_of, recipe_beside, shipped_recipes, toml_value
from shortrun.study import sweep_storage as storage
from shortrun.study.scaled import Overrides, nested
from shortrun.study.search_space import searched
from shortrun.study.sweep_file import SweepFile

ORDER = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL]


@dataclass(frozen=True)
class TrialRow:
    """One trial, over all its tries."""

    number: int
    state: str
    loss: float | None
    """On the tuning documents, at the end; of a pruned one, where it was ended."""
    epochs: int | None
    """After how many epochs it was last looked at."""
    params: dict[str, Any]
    run: str | None
    passes: int | None
    seconds: float | None
    reason: str | None
    """Why it failed."""


@dataclass(frozen=True)
class SearchCost:
    """What the best trial's values have cost, all other trials included."""

    finished_trials: int
    pruned_trials: int
    failed_trials: int
    passes: int
    """Forward-backward passes over a batch."""
    hours: float
    """Of training, over all workers."""

    def __str__(self) -> str:
        failed = f", {self.failed_trials} more failed" if self.failed_trials else ""
        return (
            f"{counted(self.finished_trials, 'trial')} ({self.pruned_trials} pruned{failed}), "
            f"{self.passes:,} forward-backward passes, {self.hours:.2f} hours of training"
        )


@dataclass(frozen=True)
class SweepReport:
    """What `shortrun sweep show` shows."""

    sweep: str
    about: str
    base: str
    scale: str
    n_trials: int
    sampler: str
    seed: int
    pruner: str
    optuna: str
    """Its version."""
    search: dict[str, str]
    """The fields that were searched, and over what."""
    trials: tuple[TrialRow, ...]
    """Best first."""
    search_cost: SearchCost

    @property
    def best(self) -> TrialRow | None:
        return next((trial for trial in self.trials if trial.state == "COMPLETE"), None)

    def as_dict(self) -> dict[str, Any]:
        """What `shortrun sweep show --json` prints."""
        best = self.best
        return {**asdict(self), "best": asdict(best) if best else None}


def report_of(study: optuna.Study, file: SweepFile) -> SweepReport:
    """Reads a sweep's trials. Those set aside, and tries that were followed by another, are not among them."""
    began: dict[str, Any] = study.user_attrs.get("sweep", {})
    trials = list(storage.chains(study.get_trials(deepcopy=False)).values())
    rows = tuple(map(_row, sorted(trials, key=_rank)))
    return SweepReport(
        sweep=study.study_name,
        about=file.about,
        base=file.base,
        scale=str(file.scale),
        n_trials=file.n_trials,
        sampler=began.get("sampler", file.sampler),
        seed=began.get("seed", file.seed),
        pruner=began.get("pruner", file.pruner),
        optuna=study.user_attrs.get("optuna", "unknown"),
        search=began.get("search", {}),
        trials=rows,
        search_cost=_cost(trials, rows),
    )


def write_plots(study: optuna.Study, report: SweepReport, path: Path) -> None:
    """Writes Optuna's plots of a sweep as one HTML file that needs nothing else, no network either."""
    plots: dict[str, Callable[[optuna.Study], Any]] = {
        "Losses, trial by trial": optuna.visualization.plot_optimization_history,
        "How much each field matters": optuna.visualization.plot_param_importances,
        "Loss against each field": optuna.visualization.plot_slice,
        "Loss after each epoch": optuna.visualization.plot_intermediate_values,
    }
    parts = [f"<h1>{html.escape(report.sweep)}</h1>", *(f"<p>{html.escape(line)}</p>" for line in summary(report))]
    library = True
    for title, plot in plots.items():
        parts.append(f"<h2>{title}</h2>")
        try:
            figure = plot(study)
        except (ValueError, RuntimeError) as error:  # too few trials for it, or all with the same loss
            parts.append(f"<p>No plot: {html.escape(str(error))}</p>")
            continue
        parts.append(figure.to_html(full_html=False, include_plotlyjs=library))
        library = False
    page = "\n".join(
        [
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(report.sweep)}</title>',
            "<style>body { font: 16px/1.5 sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }</style>",
            *parts,
            "</html>\n",
        ]
    )
    write_atomically(path, page.encode())


def summary(report: SweepReport) -> list[str]:
    """The sentences that go with a sweep's table: how it was searched, at what scale, the best, the cost."""
    best = report.best
    return [
        f"{report.about} ({report.base}, {report.scale})",
        f"Best: trial {best.number}, tuning loss {best.loss:.4f}, {shown(best.params)}"
        if best
        else "No trial is complete yet",
        f"Search cost: {report.search_cost}",
        f"Values drawn by {report.sampler} with seed {report.seed}, pruner {report.pruner}, Optuna {report.optuna}",
    ]


def best_recipe(path: Path, file: SweepFile, report: SweepReport, overrides: Overrides, beside: Path) -> str:
    """The best trial's values as a recipe file at full scale, which extends the sweep's base.

    beside: the folder that the file will lie in. Raises UserError where there is no best, where [search] is no longer what
    was searched, and where a value works at the sweep's scale alone.
    """
    best = report.best
    if best is None:
        raise UserError(f"No trial of {report.sweep} is complete yet")
    fields = {field.name: field for field in searched(file.search)[0]}
    if lines := list(storage.changes(report.search, {name: str(field) for name, field in fields.items()})):
        raise UserError(
            "\n  ".join([f"[search] of {path} has changed since the trials; undo this to see the best:", *lines])
        )
    places = [(section, name) for section, _, name in (name.partition(".") for name in best.params)]
    found = nested(places, [fields[name].value(value) for name, value in best.params.items()])
    base = recipe_beside(path, file.base, "base")
    layers = layers_of(base)
    merged: dict[str, dict[str, Any]] = {}
    for values, origin in ((file.every, f"{path}: [every]"), (found, f"{path}: best"), (overrides, COMMAND_LINE)):
        layers.lay(values, origin)
        for section, given in values.items():
            merged.setdefault(section, {}).update(given)
    layers.recipe()
    name = base.stem if shipped_recipes().get(base.stem) == base else Path(os.path.relpath(base, beside)).as_posix()
    lines = [
        f"# {report.about}",
        f"# Where from: trial {best.number} of the sweep {report.sweep}, found on {report.scale} of {report.base}.",
        f"# Tuning loss there: {best.loss:.4f} (one seed). Not measured at full scale.",
        f"# Search cost: {report.search_cost}.",
        f"# Drawn by {report.sampler} with seed {report.seed}, pruner {report.pruner}, Optuna {report.optuna}.",
        f"extends = {toml_value(name)}",
    ]
    for section, given in merged.items():
        lines += ["", f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in given.items())]
    return "\n".join(lines) + "\n"


def shown(params: Mapping[str, Any]) -> str:
    """Values as a person reads them: `optim.lr 0.00123, model.dropout 0.1`."""
    return ", ".join(f"{name} {number(value)}" for name, value in params.items())


def number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _toml(value: Any) -> str:
    return toml_value(tuple(value) if isinstance(value, list) else value)


def _row(trial: FrozenTrial) -> TrialRow:
    told = trial.user_attrs
    last = trial.last_step
    return TrialRow(
        number=trial.number,
        state=trial.state.name,
        loss=trial.value if trial.value is not None or last is None else trial.intermediate_values[last],
        epochs=last,
        params=trial.params,
        run=told.get(storage.RUN),
        passes=told.get(storage.PASSES),
        seconds=told.get(storage.SECONDS),
        reason=told.get(storage.REASON),
    )


def _rank(trial: FrozenTrial) -> tuple[int, float, int]:
    loss = trial.value if trial.value is not None else float("inf")
    return (ORDER.index(trial.state), loss, trial.number)


def _cost(trials: Sequence[FrozenTrial], rows: Sequence[TrialRow]) -> SearchCost:
    """Each run is counted once, whichever trials share it."""
    runs = {row.run: row for row in rows if row.passes is not None}
    return SearchCost(
        finished_trials=storage.finished(trials),
        pruned_trials=sum(row.state == "PRUNED" for row in rows),
        failed_trials=sum(row.state == "FAIL" and row.reason is not None for row in rows),
        passes=sum(row.passes or 0 for row in runs.values()),
        hours=sum(row.seconds or 0.0 for row in runs.values()) / 3600,
    )
