"""`shortrun sweep`: search a recipe's fields, show what was found, write the best as a recipe."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from shortrun.cli.dispatch import Command, chosen
from shortrun.cli.flags import taken_from
from shortrun.cli.options import SweepBest, SweepRun, SweepShow
from shortrun.cli.signals import StoppedAtOnce, catching
from shortrun.errors import UserError, missing_extra, positive

if TYPE_CHECKING:
    import optuna

USAGE = """usage: shortrun sweep run FILE [--workers N] [--section.field VALUE ...]    train until n_trials trials are finished
       shortrun sweep show FILE [--html PAGE]                              the trials, best first, and what they have cost
       shortrun sweep best FILE [--out-file RECIPE]                        the best as a recipe that `shortrun train` takes

FILE is a sweep's shipped name or a TOML file (docs/sweeps.md)."""


def sweep(argv: list[str]) -> None:
    actions: dict[str, Command] = {"run": _run, "show": _show, "best": _best}
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    action = chosen(actions, argv[0], "sweep")
    require_optuna()
    action(argv[1:])


def require_optuna() -> None:
    """Raises UserError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise missing_extra("A sweep", "sweep")


def _run(argv: list[str]) -> None:
    rest, overrides, mistakes = taken_from(argv)
    options = tyro.cli(SweepRun, prog="shortrun sweep run", args=rest)
    from shortrun.cli.sweep_display import SweepDisplay, show_report
    from shortrun.study.sweep import run_sweep
    from shortrun.study.sweep_file import load_sweep
    from shortrun.view.sweep import report_of

    workers = positive(options.workers, "--workers") or 1
    loaded = load_sweep(options.sweep, overrides, mistakes)
    with (
        SweepDisplay() as display,
        catching(display.say, "Finishing the steps and saving; once more to stop at once.") as stop,
    ):
        try:
            run_sweep(loaded, options.out, workers=workers, url=options.storage, on_trial=display, stop=stop)
        except KeyboardInterrupt:
            raise StoppedAtOnce("Stopped at once; the same command goes on from the last checkpoints") from None
    report = report_of(_study(options.out, loaded.name, options.storage), loaded.file)
    if options.json:
        print(json.dumps(report.as_dict()))
        return
    show_report(report)


def _show(argv: list[str]) -> None:
    options = tyro.cli(SweepShow, prog="shortrun sweep show", args=argv)
    from shortrun.cli.sweep_display import show_report
    from shortrun.study.sweep_file import read_sweep
    from shortrun.view.sweep import report_of, write_plots

    path, file = read_sweep(options.sweep)
    study = _study(options.out, path.stem, options.storage)
    report = report_of(study, file)
    if options.html:
        write_plots(study, report, options.html)
    if options.json:
        print(json.dumps(report.as_dict()))
        return
    show_report(report)


def _best(argv: list[str]) -> None:
    rest, overrides, mistakes = taken_from(argv)
    options = tyro.cli(SweepBest, prog="shortrun sweep best", args=rest)
    if mistakes:
        raise UserError("\n".join(mistakes))
    from shortrun.disk import write_atomically
    from shortrun.study.sweep_file import read_sweep
    from shortrun.view.sweep import best_recipe, report_of

    path, file = read_sweep(options.sweep)
    report = report_of(_study(options.out, path.stem, options.storage), file)
    beside = options.out_file.parent if options.out_file else Path()
    recipe = best_recipe(path, file, report, overrides, beside)
    if options.out_file:
        write_atomically(options.out_file, recipe.encode())
    if options.json:
        found = report.as_dict()
        print(json.dumps({"recipe": recipe, "best": found["best"], "search_cost": found["search_cost"]}))
    elif options.out_file:
        print(f"wrote {options.out_file}: shortrun train {options.out_file}")
    else:
        print(recipe, end="")


def _study(out: Path, name: str, url: str | None) -> optuna.Study:
    from shortrun.study.sweep_storage import find_study, storage_url

    return find_study(url or storage_url(out, name), name)
