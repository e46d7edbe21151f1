"""What each run is, on what it was made, and what repeats it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shortrun.errors import counted
from shortrun.recipe_file import to_toml
from shortrun.report.blocks import Block, Code, Paragraph, RunCard, Section
from shortrun.report.subjects import NamedRun


def repeat_section(runs: Sequence[NamedRun], command: str) -> Section:
    """The commands, and the machine and versions on which they give the same bits."""
    return Section("How to repeat it", tuple(_repeat(runs, command)))


def recipe_section(run: NamedRun) -> Section:
    """Every field of a run's recipe."""
    return Section(f"Recipe of {run.name}", (Code(to_toml(run.recipe).strip()),))


def _repeat(runs: Sequence[NamedRun], command: str) -> Iterator[Block]:
    yield Paragraph("This report:")
    yield Code(command)
    yield Paragraph(
        "Each run, from its own folder. With the same versions, threads and kind of processor it has the same bits."
    )
    for run in runs:
        machine, data, scores = run.manifest["machine"], run.manifest["data"], run.scores
        facts = [("folder", str(run.folder.path)), ("data", f"{data['source']}, sha256 {data['sha256'][:12]}")]
        if scores:
            budget = f"{counted(scores['steps'], 'step')}, {scores['passes']:,} passes, {scores['flops']:.2e} FLOP, "
            facts.append(("budget", f"{budget}{scores['seconds'] / 60:.1f} minutes"))
        threads = counted(machine.get("threads") or 0, "thread")
        facts += [
            ("computed", f"on {machine.get('device')} in {machine.get('precision')}, {threads}"),
            ("machine", f"{machine.get('processor')}, {machine.get('platform')}"),
            ("versions", ", ".join(f"{name} {machine.get(name)}" for name in ("shortrun", "torch", "python"))),
        ]
        yield RunCard(run.name, tuple(facts), f"shortrun train {run.folder.recipe_file} --out NEW")
