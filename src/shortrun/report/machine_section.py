"""What each run is, on what it was made, and what repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from shortrun.errors import counted
from shortrun.recipe_file import to_toml
from shortrun.report.blocks import Block, Code, Paragraph, RunCard, Section
from shortrun.report.subjects import NamedRun
from shortrun.runs.folder import RunFolder


def repeat_section(runs: Sequence[NamedRun], command: str, study_command: str = "") -> Section:
    """The commands, and the machine and versions on which they give the same bits."""
    return Section.of("How to repeat it", _repeat(runs, command, study_command))


def recipe_section(run: NamedRun) -> Section:
    """Every field of a run's recipe."""
    return Section.of(f"Recipe of {run.name}", _recipe(run))


def _recipe(run: NamedRun) -> Iterator[Block]:
    yield Code(to_toml(run.recipe).strip())


def _repeat(runs: Sequence[NamedRun], command: str, study_command: str) -> Iterator[Block]:
    yield Paragraph("This report:")
    yield Code(command)
    if study_command:
        yield Paragraph("All runs of the study, those left out that there are already:")
        yield Code(study_command)
    yield Paragraph(
        "Each run, from its own folder. With the same versions, threads and kind of processor it has the same bits."
    )
    for run in runs:
        yield _card(run)


def _card(run: NamedRun) -> RunCard:
    machine, data, scores = run.manifest["machine"], run.manifest["data"], run.scores
    facts = [("folder", str(run.folder.path)), ("data", f"{data['source']}, sha256 {data['sha256'][:12]}")]
    if run.others:
        facts.append(("other seeds", ", ".join(path.name for path in run.others)))
    if scores:
        budget = f"{counted(scores['steps'], 'step')}, {scores['passes']:,} passes, {scores['flops']:.2e} FLOP, "
        facts.append(("budget", f"{budget}{scores['seconds'] / 60:.1f} minutes"))
    if not run.finished:
        facts.append(("state", f"not finished: {run.progress}"))
    threads = counted(machine.get("threads") or 0, "thread")
    facts += [
        ("computed", f"on {machine.get('device')} in {machine.get('precision')}, {threads}"),
        ("machine", f"{machine.get('processor')}, {machine.get('platform')}"),
        ("versions", ", ".join(f"{name} {machine.get(name)}" for name in ("shortrun", "torch", "python"))),
    ]
    recipes = [RunFolder(path).recipe_file for path in (run.folder.path, *run.others)]
    commands = [shlex.join(["shortrun", "train", str(recipe), "--out", "NEW"]) for recipe in recipes]
    return RunCard(run.name, tuple(facts), "\n".join(commands))
