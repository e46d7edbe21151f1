"""`shortrun report`: runs, studies and sweeps as one document."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.markup import escape

from shortrun.cli.flags import taken_from
from shortrun.cli.options import Report
from shortrun.cli.output import message
from shortrun.disk import require_writable, write_atomically
from shortrun.errors import UserError, did_you_mean
from shortrun.limits import read_toml
from shortrun.recipe_file import named_file
from shortrun.runs.folder import runs_near
from shortrun.study.scale import Scale
from shortrun.study.study_file import shipped_studies

if TYPE_CHECKING:  # these import torch or optuna
    from shortrun.report.subjects import Subjects
    from shortrun.study.table import StudyResult
    from shortrun.view.sweep import SweepReport


def report(argv: list[str]) -> None:
    """Writes a report in each form that was asked for; without any, a page beside nothing else in the current folder."""
    rest, overrides, mistakes = taken_from(argv, {"scale": Scale})
    options = tyro.cli(Report, prog="shortrun report", args=rest)
    from shortrun.report.extra import require

    require()
    for path in (options.html, options.pdf, options.json):
        require_writable(path)
    from shortrun.report.content import report_of

    with Console(stderr=True, highlight=False).status("reading") as status:

        def tell(sentence: str) -> None:
            status.update(escape(message(sentence)))

        subjects = _subjects(options, overrides, mistakes, tell)
        made = report_of(subjects, ["report", *argv], tell)
        written = _write(made, options, tell)
    for path in written:
        print(f"wrote {path}")


def _subjects(options: Any, overrides: Any, mistakes: list[str], tell: Callable[[str], None]) -> Subjects:
    """What was named: run folders by their recipe.toml, studies and sweeps by their names or files."""
    from shortrun.report.subjects import Subjects
    from shortrun.study.sweep_file import shipped_sweeps

    runs: list[Path] = []
    studies: list[StudyResult] = []
    sweeps: list[SweepReport] = []
    for name in options.subjects:
        if (Path(name) / "recipe.toml").is_file():
            runs.append(Path(name))
        elif found := named_file(name, shipped_studies() | shipped_sweeps()):
            if _is_sweep(found):
                sweeps.append(_sweep(name, options))
            else:
                studies.append(_study(name, options, overrides, mistakes, tell))
        else:
            known = {*shipped_studies(), *shipped_sweeps()}
            raise UserError(
                f"{name} is no run folder, study or sweep: {runs_near(Path(name)) or did_you_mean(name, known)}"
            )
    if mistakes:
        raise UserError("\n".join(mistakes))
    return Subjects(tuple(runs), tuple(studies), tuple(sweeps), options.final)


def _is_sweep(path: Path) -> bool:
    """Whether a file is a sweep; one that can't be read is left to the reader of studies, which says why."""
    try:
        return "search" in read_toml(path)
    except (OSError, ValueError):
        return False


def _study(
    name: str, options: Any, overrides: Any, mistakes: Sequence[str], tell: Callable[[str], None]
) -> StudyResult:
    from shortrun.study.ledger import Ledger
    from shortrun.study.result import results, write_final
    from shortrun.study.study_file import load_study

    ledger = Ledger(load_study(name, overrides, list(mistakes)), options.out, tell)
    if options.final:
        write_final(ledger)
    return results(ledger, "validation" if options.final else "tuning")


def _sweep(name: str, options: Any) -> SweepReport:
    from shortrun.study.sweep_file import read_sweep
    from shortrun.study.sweep_storage import find_study, storage_url
    from shortrun.view.sweep import report_of

    path, file = read_sweep(name)
    return report_of(find_study(options.storage or storage_url(options.out, path.stem), path.stem), file)


def _write(made: Any, options: Any, tell: Callable[[str], None]) -> list[Path]:
    from shortrun.report.html import write_html
    from shortrun.report.myst import write_myst
    from shortrun.report.names import anchor
    from shortrun.report.pdf import write_pdf

    page = options.html
    if not (options.html or options.pdf or options.myst or options.json):
        page = Path(f"{anchor(made.title)}.html")
    written = []
    for path, write in (
        (page, write_html),
        (options.pdf, write_pdf),
        (options.myst, write_myst),
        (options.json, _write_json),
    ):
        if path:
            tell(f"writing {path}")
            try:
                write(made, path)
            except OSError as error:
                raise UserError(f"{path} can't be written: {error.strerror or error}") from None
            written.append(path)
    return written


def _write_json(made: Any, path: Path) -> None:
    write_atomically(path, (json.dumps(made.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
