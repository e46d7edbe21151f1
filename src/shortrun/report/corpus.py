"""A prepared corpus as a page, from its manifest: what each step did, what it rejected, how long the documents are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shortrun.errors import UserError, counted
from shortrun.report.blocks import Block, Code, Figure, Items, Paragraph, Report, Section, Table
from shortrun.report.extra import require
from shortrun.report.html import write_html
from shortrun.report.plain import spec
from shortrun.view.corpus_chart import lengths_chart

FEWER = (5, 2, 1, 0)
"""Examples of each reason, where more would make the page too large."""


def write_corpus_page(folder: Path, manifest: dict[str, Any], examples: int, command: str, path: Path) -> int:
    """Writes the page with as many examples of each reason as its limit of size allows; returns how many those are."""
    require()
    for number in (examples, *(fewer for fewer in FEWER if fewer < examples)):
        try:
            write_html(corpus_report(folder, manifest, number, command), path)
        except UserError:  # too large
            if not number:
                raise
        else:
            return number
    raise AssertionError("the last try returns or raises")


def corpus_report(folder: Path, manifest: dict[str, Any], examples: int, command: str) -> Report:
    """The page's content. command: what makes it again."""
    read, kept = manifest["steps"][0], manifest["splits"].values()
    documents, characters = (sum(split[what] for split in kept) for what in ("documents", "characters"))
    return Report(
        title=f"Corpus: {manifest['about'] or manifest['name']}",
        summary=f"{counted(read['documents_in'], 'document')} were read. {documents:,} are kept "
        f"({_share(documents, read['documents_in'])}), with {characters:,} characters "
        f"({_share(characters, read['characters_in'])}).",
        date=datetime.now(tz=UTC).strftime("%Y-%m-%d"),
        sections=(
            Section("Steps", tuple(_steps(manifest))),
            Section("Splits", tuple(_splits(manifest))),
            Section("Lengths", tuple(_lengths(manifest, command))),
            *(
                Section(f"Rejected by {step['name']}", tuple(_rejected(step, examples)))
                for step in manifest["steps"]
                if step["reasons"]
            ),
            Section("How to repeat it", (Code(command), Paragraph(f"{folder}, sha256 {manifest['sha256']}"))),
        ),
        data=manifest,
        command=command,
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _steps(manifest: dict[str, Any]) -> Iterator[Block]:
    keys = ("documents_in", "documents_out", "characters_in", "characters_out", "changed")
    headings = ("step", "documents in", "out", "characters in", "out", "changed")
    rows = [(step["name"], *(f"{step[key]:,}" for key in keys)) for step in manifest["steps"]]
    yield Table(headings, tuple(rows), "Each step gets what the one before it let through")
    yield Items(tuple((step["name"], step["about"]) for step in manifest["steps"]))
    for name, number in manifest["not_read"].items():
        yield Paragraph(f"Not read: {counted(number, 'file')} of the kind {name}.")


def _splits(manifest: dict[str, Any]) -> Iterator[Block]:
    keys = ("documents", "groups", "characters", "bytes")
    rows = [
        (
            name,
            *(f"{split[key]:,}" for key in keys),
            f"{sum(shard['split'] == name for shard in manifest['shards']):,}",
        )
        for name, split in manifest["splits"].items()
    ]
    yield Table(("split", *keys, "shards"), tuple(rows), "Documents of a group are near-duplicates of one another")


def _lengths(manifest: dict[str, Any], command: str) -> Iterator[Block]:
    if not any(any(bins) for bins in manifest["lengths"].values()):
        yield Paragraph("No document is left.")
        return
    yield Figure(
        name="lengths",
        caption="Documents that are kept, by their length. The axis is logarithmic: each bar is twice as long as the one before.",
        chart=spec(lengths_chart(manifest["lengths"])),
        command=command,
    )


def _rejected(step: dict[str, Any], examples: int) -> Iterator[Block]:
    """The reasons by how often they were given, each with its examples."""
    reasons = sorted(step["reasons"].items(), key=lambda each: -each[1]["documents"])
    yield Table(("reason", "documents"), tuple((reason, f"{found['documents']:,}") for reason, found in reasons))
    for reason, found in reasons:
        rows = [(one["place"], one["detail"], one["text"]) for one in found["examples"][:examples]]
        if rows:
            caption = f"{reason}: {len(rows)} of {counted(found['documents'], 'document')}"
            yield Table(("place", "detail", "how it begins"), tuple(rows), caption)
