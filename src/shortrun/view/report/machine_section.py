"""What each run is, on what it ran, and what repeats it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shortrun.recipe_file import to_toml
from shortrun.view.report.blocks import Block, Code, Paragraph, Section, Table
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
    rows = []
    for run in runs:
        machine, data = run.manifest["machine"], run.manifest["data"]
        budget = run.scores
        rows.append(
            (
                run.name,
                str(run.folder.path),
                f"{machine.get('device')}, {machine.get('precision')}, {machine.get('threads')} threads",
                str(machine.get("processor")),
                f"shortrun {machine.get('shortrun')}, torch {machine.get('torch')}, Python {machine.get('python')}",
                f"{budget['flops']:.2e}" if budget else "-",
                data["sha256"][:12],
            )
        )
    yield Table(("run", "folder", "computed on", "processor", "versions", "FLOP", "data"), tuple(rows), caption="Where the runs were made")
