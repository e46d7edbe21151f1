"""What each run is, on what it ran, and what repeats it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shortrun.errors import counted
from shortrun.recipe_file import to_toml
from shortrun.view.report.blocks import Block, Code, Items, Paragraph, Section, Table
from shortrun.view.report.subjects import NamedRun


def repeat_section(runs: Sequence[NamedRun], commands: Sequence[str]) -> Section:
    return Section("How to repeat it", tuple(_repeat(runs, commands)))


def recipe_section(run: NamedRun) -> Section:
    """Every field of a run's recipe."""
    return Section(f"Recipe of {run.name}", (Code(to_toml(run.recipe).strip()),))


def _repeat(runs: Sequence[NamedRun], commands: Sequence[str]) -> Iterator[Block]:
    yield Paragraph("This report:")
    yield Code("\n".join(commands))
    yield Paragraph("Each run, from its own folder; on the machine, versions and threads below the result has the same bits:")
    yield Code("\n".join(f"shortrun train {run.folder.recipe_file} --out NEW" for run in runs))
    yield Paragraph("Where the runs were made:")
    made = dict.fromkeys(_machine(run) for run in runs)
    yield Items(tuple((", ".join(run.name for run in runs if _machine(run) == machine), machine) for machine in made))
    yield Table(
        ("run", "folder", "FLOP", "data"),
        tuple(
            (
                run.name,
                str(run.folder.path),
                f"{run.scores['flops']:.2e}" if run.scores else "-",
                run.manifest["data"]["sha256"][:12],
            )
            for run in runs
        ),
    )


def _machine(run: NamedRun) -> str:
    machine = run.manifest["machine"]
    return (
        f"{machine.get('device')} in {machine.get('precision')}, {counted(machine.get('threads') or 0, 'thread')}, "
        f"{machine.get('processor')}, {machine.get('platform')}; shortrun {machine.get('shortrun')}, torch "
        f"{machine.get('torch')}, Python {machine.get('python')}"
    )
