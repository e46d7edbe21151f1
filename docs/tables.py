"""Writes the tables of README.md and docs/ that quote results, between their markers, from the files in docs/results/.

    python docs/tables.py                                  write all tables anew
    python docs/tables.py add RUN --recipe NAME [--claimed 1.29] [--minutes 47] [--machine TEXT] [--commit HASH]
                                                           take a finished run's losses into docs/results/runs.json
    python docs/tables.py study RESULT.json [--as NAME]    take what `shortrun study show NAME --json` printed

A marker is a comment `<!-- table: NAME -->`, and the table ends at `<!-- /table -->`. A test says when one is stale.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from shortrun.runs.folder import RunFolder
from shortrun.study.table import ResultRow, StudyResult
from shortrun.view.study import markdown
from shortrun.view.text import markdown_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
RUNS = RESULTS / "runs.json"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)


def results() -> str:
    """Every whole run of a shipped recipe, the lowest loss first."""
    rows = sorted((row for row in _runs() if row["whole"]), key=lambda row: float(row["loss"]))
    headings = (
        "recipe",
        "claimed",
        "`official_loss`",
        "coverage",
        "`loss`",
        "`bits_per_byte`",
        "minutes",
        "machine",
        "commit",
    )
    return markdown_table(headings, [_row(row) for row in rows])


def begun() -> str:
    """Runs of which only the first steps were taken."""
    rows = [row for row in _runs() if not row["whole"]]
    headings = ("recipe", "steps", "claimed, whole", "`official_loss`", "coverage", "`loss`", "`bits_per_byte`")
    return markdown_table(
        headings,
        [
            (
                f"`{row['recipe']}`", f"{row['steps']} of {row['of_steps']}", row["claimed"] or "–", _loss(row["official_loss"]),
                f"{row['coverage']:.1%}", _loss(row["loss"]), _loss(row["bits_per_byte"]),
            )
            for row in rows
        ],
    )  # fmt: skip


def heldout() -> str:
    """Losses on the 20,000 titles beyond the first 100,000."""
    headings = ("recipe", "claimed", "`official_loss`", "`loss` (95 % interval over titles)", "on validation")
    rows = []
    for row in _runs():
        if held := row.get("heldout"):
            low, high = held["interval"]
            told = f"{held['loss']:.4f} ({low:.4f} to {high:.4f})"
            rows.append(
                (f"`{row['recipe']}`", held["claimed"] or "–", _loss(held["official_loss"]), told, _loss(row["loss"]))
            )
    return markdown_table(headings, rows)


def short_results() -> str:
    """What README shows: the lowest losses, and what anyone can repeat."""
    rows = sorted((row for row in _runs() if row["whole"]), key=lambda row: (not row["public"], float(row["loss"])))
    headings = ("recipe", "`loss`", "`official_loss`", "coverage", "anyone can repeat it")
    return markdown_table(
        headings,
        [
            (
                f"`{row['recipe']}`{row['on']}", _loss(row["loss"]), _loss(row["official_loss"]), f"{row['coverage']:.1%}",
                row["public"] or "no",
            )
            for row in rows
        ],
    )  # fmt: skip


def study(name: str) -> str:
    """A study's table with its sentences and reasons, without its heading, which the page has."""
    told = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    rows = [ResultRow(**{**row, "losses": row["losses"]}) for row in told["rows"]]
    return markdown(StudyResult(**{**told, "rows": rows})).partition("\n\n")[2].strip()


SCALES = ("small", "medium", "large")
CLEAR = 0.015
"""Effects at full size of at least this much must keep their sign."""


def proxy_scale() -> str:
    """What changes do at each scale, beside what they are known to do at full size; then how many signs and orders hold."""
    known = json.loads((RESULTS / "proxy-known.json").read_text(encoding="utf-8"))
    found = {}
    for scale in SCALES:
        file = RESULTS / f"proxy-scale-{scale}.json"
        if file.exists():
            rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
            found[scale] = {row["change"]: row for row in rows if row["change"] in known}
    order = sorted(known, key=lambda change: -known[change]["effect"])
    body = [
        (
            change,
            known[change]["told"],
            *(_difference(rows[change], known[change]["effect"]) for rows in found.values()),
        )
        for change in order
    ]
    clear = [change for change in order if known[change]["effect"] >= CLEAR]
    signs = [sum(rows[change]["difference"] > 0 for change in clear) for rows in found.values()]
    ranks = [
        kendalltau([rows[change]["difference"] for change in order], [known[change]["effect"] for change in order])
        for rows in found.values()
    ]
    body.append((f"*signs kept, of {len(clear)}*", "", *(str(kept) for kept in signs)))
    body.append(("*order kept (Kendall's tau)*", "1", *(f"{rank.statistic:.2f}" for rank in ranks)))
    return markdown_table(("change", "at full size", *found), body)


def _difference(row: dict[str, Any], known: float) -> str:
    low, high = row["interval"]
    turned = " **turned**" if known >= CLEAR and high < 0 else ""
    return f"{row['difference']:+.4f} ({low:+.4f} to {high:+.4f}){turned}"


TABLES: dict[str, Callable[[], str]] = {
    "results": results, "short-results": short_results, "heldout": heldout, "begun": begun,
    "proxy-scale": proxy_scale,
}  # fmt: skip


def table(name: str) -> str:
    """The table of a marker; one that is no table of runs is a study's."""
    return TABLES[name]() if name in TABLES else study(name)


def renewed(page: str) -> str:
    """A page with all its tables written anew."""
    return MARKED.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[4]}", page)


def _runs() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RUNS.read_text(encoding="utf-8"))
    return found


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    minutes = "not timed" if row["minutes"] is None else f"{row['minutes']:g}"
    return (
        f"`{row['recipe']}`{row['on']}", row["claimed"] or "–", _loss(row["official_loss"]), f"{row['coverage']:.1%}",
        f"**{_loss(row['loss'])}**", _loss(row["bits_per_byte"]), minutes, row["machine"], f"`{row['commit']}`",
    )  # fmt: skip


def _loss(value: float) -> str:
    return f"{value:.4f}"


def _add(options: argparse.Namespace) -> None:
    scores = RunFolder.open(options.run).finished_scores()
    if scores is None:
        raise SystemExit(f"{options.run} has not ended")
    kept = {key: round(scores[key], 4) for key in ("loss", "official_loss", "coverage", "bits_per_byte")}
    row = {
        "recipe": options.recipe, "on": options.on, "claimed": options.claimed, **kept, "minutes": options.minutes,
        "machine": options.machine, "commit": options.commit, "whole": True, "public": options.public,
        "fingerprint": scores["fingerprint"],
    }  # fmt: skip
    same = ("fingerprint", "recipe", "on")
    others = []
    for (
        one
    ) in _runs():  # a run that is added again takes the place of what was said of it, and keeps its held-out losses
        if all(one.get(key) == row[key] for key in same):
            row = {**one, **row}
        else:
            others.append(one)
    lines = [" " + json.dumps(one, ensure_ascii=False) for one in (*others, row)]
    RUNS.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    add = commands.add_parser("add")
    add.add_argument("run", type=Path)
    for name in ("recipe", "claimed", "machine", "commit"):
        add.add_argument(f"--{name}", default="")
    add.add_argument("--on", default="", help="what stands behind the recipe's name: the data, the seed")
    add.add_argument("--public", default="", help="the command by which anyone can repeat it")
    add.add_argument("--minutes", type=float, help="with nothing else running")
    of_study = commands.add_parser("study")
    of_study.add_argument("result", type=Path)
    of_study.add_argument("--as", dest="name", help="the name of its file and marker; left out, the study's")
    options = parser.parse_args()
    if options.command == "add":
        _add(options)
    elif options.command == "study":
        told = json.loads(options.result.read_text(encoding="utf-8"))
        (RESULTS / f"{options.name or told['study']}.json").write_text(
            json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    for page in PAGES:
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
