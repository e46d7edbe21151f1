"""`shortrun study plan|run|show`: runs that differ on purpose, and what their differences say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shortrun.cli.dispatch import Command, chosen
from shortrun.cli.flags import taken_from
from shortrun.cli.options import StudyPlan, StudyRun, StudyShow
from shortrun.cli.output import duration, message, show, show_pairs, visible_lines
from shortrun.cli.signals import StoppedAtOnce, catching
from shortrun.errors import counted, positive
from shortrun.recipe_file import headline
from shortrun.study.scale import Scale
from shortrun.study.study_file import Study, load_study, shipped_studies

if TYPE_CHECKING:  # these import torch
    from shortrun.study.ledger import Ledger
    from shortrun.study.run import Does

USAGE = """usage: shortrun study                    list the shipped studies
       shortrun study plan STUDY         what would run, what is there, what it takes and can show
       shortrun study run STUDY          do the runs that are missing; Ctrl-C saves, and running it again goes on
       shortrun study show STUDY         the table: each change with its difference and its noise

STUDY is a shipped study's name or a TOML file. Fields of a recipe (--data.path FILE) reach every run, and --scale.titles,
--scale.width, --scale.rows, --scale.vocabulary, --scale.epochs and --scale.tuning stand above the file's own scale.
`shortrun study run --help` has the rest."""


def study(argv: list[str]) -> None:
    """Runs one of the study commands."""
    commands: dict[str, Command] = {"plan": _plan, "run": _run, "show": _show}
    if not argv:
        about = {name: headline(path) for name, path in shipped_studies().items()}
        show_pairs("shipped studies: shortrun study plan NAME", about)
        return
    if argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    chosen(commands, argv[0], "study")(argv[1:])


def _asked(kind: type[Any], name: str, argv: list[str]) -> tuple[Any, Study]:
    """A command's options, and the study that it is about."""
    rest, overrides, mistakes = taken_from(argv, {"scale": Scale})
    options = tyro.cli(kind, prog=f"shortrun study {name}", args=rest)
    return options, load_study(options.study, overrides, mistakes)


def _ledger(study: Study, out: Path) -> Ledger:
    """The study's runs, looked for and prepared."""
    from shortrun.study.ledger import Ledger

    with Console(stderr=True, highlight=False).status("reading the study's runs") as status:
        return Ledger(study, out, lambda sentence: status.update(escape(message(sentence))))


def _plan(argv: list[str]) -> None:
    options, study = _asked(StudyPlan, "plan", argv)
    from shortrun.study.plan import plan_study
    from shortrun.study.run import default_workers

    found = plan_study(_ledger(study, options.out), positive(options.workers, "--workers") or default_workers())
    if options.json:
        print(json.dumps(found.as_dict()))
        return
    table = Table(title=escape(f"{found.study}: {found.scale}"), title_justify="left")
    for heading in ("change", "runs", "parameters", "steps", "passes", "memory", "time of a run"):
        table.add_column(heading)
    for row in found.rows:
        states = ", ".join(f"{seed} {state}" for seed, state in row.states.items())
        cells = (row.change, states, f"{row.parameters:,}", f"{row.steps:,}", f"{row.passes:,}")
        table.add_row(*map(escape, cells), f"{row.memory_bytes / 1e9:.2f} GB", duration(row.seconds))
    show(table)
    runs = ", ".join(f"{count} {state}" for state, count in found.runs.items())
    print(f"{counted(sum(found.runs.values()), 'run')}: {runs}")
    print(f"Still to do: {found.passes:,} passes, about {duration(found.seconds)} ({found.seconds_from})")
    print(f"{counted(found.workers, 'worker')} at once: up to {found.memory_bytes / 1e9:.1f} GB")
    for sentence in found.says:
        print(visible_lines(sentence))


def _run(argv: list[str]) -> None:
    options, study = _asked(StudyRun, "run", argv)
    from shortrun.study.ledger import alone
    from shortrun.study.run import Crew, default_workers

    workers = positive(options.workers, "--workers") or default_workers()
    crew: Does = Crew(workers)
    if options.cluster:
        from shortrun.study.cluster import ClusterCrew

        crew = ClusterCrew(options.cluster)
    with alone(options.out / study.name):
        _do(_ledger(study, options.out), crew, workers)
    _tell(_ledger(study, options.out), as_json=options.json)


def _do(ledger: Ledger, crew: Does, workers: int) -> None:
    """Has a crew do what is missing, and shows how it gets on."""
    from shortrun.cli.study_display import StudyDisplay
    from shortrun.study.run import do_missing

    with (
        StudyDisplay(ledger, workers) as display,
        catching(display.say, "Every run finishes its step and saves; once more to stop at once.") as stop,
    ):
        try:
            do_missing(ledger, crew, display, stop)
        except KeyboardInterrupt:
            raise StoppedAtOnce("Stopped at once; the same command goes on from the last checkpoints") from None


def _show(argv: list[str]) -> None:
    options, study = _asked(StudyShow, "show", argv)
    from shortrun.view.charts import require_chart

    require_chart(options.chart)
    _tell(
        _ledger(study, options.out),
        as_json=options.json,
        final=options.final,
        as_markdown=options.markdown,
        chart=options.chart,
    )


def _tell(
    ledger: Ledger, *, as_json: bool, final: bool = False, as_markdown: bool = False, chart: Path | None = None
) -> None:
    from shortrun.study.result import results, write_final
    from shortrun.view.charts import save, study_chart
    from shortrun.view.study import lines, markdown, sentences

    if final:
        write_final(ledger)
    found = results(ledger, "validation" if final else "tuning")
    if chart:
        save(study_chart(found), chart)
    if as_json:
        print(json.dumps(found.as_dict()))
        return
    if as_markdown:
        print(visible_lines(markdown(found)))
        return
    table = Table(title=escape(found.study), title_justify="left")
    headings, *rows = lines(found)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(escape, row))
    show(table)
    for sentence in sentences(found):
        print(visible_lines(sentence))
