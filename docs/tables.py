"""Writes the tables of README.md and docs/ that quote results, between their markers, from the files in docs/results/.

    python docs/tables.py                                  write all tables anew
    python docs/tables.py add RUN --recipe NAME [--claimed 1.29] [--step-seconds 0.43] [--machine TEXT] [--commit HASH]
                                                           take a finished run's losses into docs/results/runs.json
    python docs/tables.py chart                            draw the loss over minutes anew (docs/images/time-to-loss.svg)
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

from shortrun.errors import counted
from shortrun.runs.folder import RunFolder
from shortrun.study.table import ResultRow, StudyResult
from shortrun.train.objective import steps_before_rdrop
from shortrun.view.charts import RUN_COLOURS, altair_library, save
from shortrun.view.curves import read_curves
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
                (
                    f"`{row['recipe']}`{row['on'].removesuffix(' on HN-100k').removesuffix(',')}", held["claimed"] or "–",
                    _loss(held["official_loss"]), told, _loss(row["loss"]),
                )
            )  # fmt: skip
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


MILESTONES = (1.40, 1.30, 1.25, 1.20, 1.15)
"""Losses that the table of minutes asks for."""


def time_to_loss() -> str:
    """Minutes until an evaluation first showed at most so much, of every run whose steps were timed; the fastest first."""
    timed = sorted((row for row in _runs() if row.get("curve")), key=lambda row: float(row["curve"][-1][0]))
    headings = ("recipe", *(f"{most:.2f}" for most in MILESTONES), "whole run", "`loss`", "s a step", "machine")
    return markdown_table(
        headings,
        [
            (
                f"`{row['recipe']}`{row['on']}", *(_reached(row["curve"], most) for most in MILESTONES),
                f"{row['curve'][-1][0]:.1f}", f"**{_loss(row['loss'])}**", _seconds(row["step_seconds"]), row["machine"],
            )
            for row in timed
        ],
    )  # fmt: skip


def minutes_chart() -> Any:
    """The validation loss over minutes of training, a line for each run whose steps were timed."""
    alt = altair_library()
    points = [
        {"recipe": f"{row['recipe']}{row['on']}", "minutes": minutes, "loss": loss}
        for row in _runs()
        for minutes, loss in row.get("curve", ())
    ]
    return (
        alt.Chart(alt.Data(values=points), width=640, height=360)
        .mark_line(point=True)
        .encode(
            x=alt.X("minutes:Q", title="minutes of training on 2 cores", scale=alt.Scale(type="log")),
            y=alt.Y("loss:Q", title="validation loss (nats per character)", scale=alt.Scale(zero=False)),
            color=alt.Color(
                "recipe:N", title=None, scale=alt.Scale(range=list(RUN_COLOURS)), legend=alt.Legend(labelLimit=400)
            ),
        )
    )


def _reached(curve: list[list[float]], most: float) -> str:
    return next((f"{minutes:.1f}" for minutes, loss in curve if loss <= most), "–")


def _seconds(each: list[float]) -> str:
    """Seconds of a step; with two of them, the second is of the steps that R-Drop passes twice."""
    return ", ".join(f"{seconds:.2f}" for seconds in each)


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
    seeds = {scale: max(len(row["losses"]) for row in rows.values()) for scale, rows in found.items()}
    headings = (f"{scale}, {counted(seeds[scale], 'seed')}" for scale in found)
    return markdown_table(("change", "at full size", *headings), body)


def _difference(row: dict[str, Any], known: float) -> str:
    low, high = row["interval"]
    turned = " **turned**" if known >= CLEAR and high < 0 else ""
    return f"{row['difference']:+.4f} ({low:+.4f} to {high:+.4f}){turned}"


def where_the_loss_lies() -> str:
    """What `shortrun breakdown RUN --json` printed of `best-cpu`, as shares of the loss."""
    found = json.loads((RESULTS / "breakdown-best-cpu.json").read_text(encoding="utf-8"))
    body = [
        (
            group if first else "",
            part["name"],
            f"{part['tokens']:,}",
            f"{part['nats'] / part['tokens']:.2f}",
            f"{part['share']:.1%}",
        )
        for group, parts in found["groups"].items()
        if len(parts) > 1
        for first, part in ((part is parts[0], part) for part in parts)
    ]
    body.append(("upper or lower case alone", "", "", "", f"{found['case_share']:.1%}"))
    return markdown_table(("tokens by", "", "how many", "nats per token", "share of the loss"), body)


KILLED_SWEEP = ROOT / "benchmarks" / "killed_sweep.json"


def killed_sweep() -> str:
    """What became of the trials of a sweep whose process was killed, and its best ones."""
    told = json.loads(KILLED_SWEEP.read_text(encoding="utf-8"))
    counts, result = told["counts"], told["result"]
    cost = result["search_cost"]
    facts = markdown_table(
        ("of the trials", ""),
        [
            ("asked for", str(counts["asked_for"])),
            ("finished", f"{counts['ended']}: {counts['completed']} completed, {counts['pruned']} pruned"),
            ("finished when a process was killed", " and ".join(map(str, counts["killed_after"]))),
            ("tries in the database", str(counts["tries_in_the_database"])),
            ("run folders", str(counts["run_folders"])),
            ("lost", str(counts["lost"])),
            ("counted twice", str(counts["counted_twice"])),
        ],
    )
    completed = [trial for trial in result["trials"] if trial["state"] == "COMPLETE"]
    fields = list(result["best"]["params"])
    best = markdown_table(
        ("trial", "tuning loss", *(f"`{field}`" for field in fields)),
        [
            (str(trial["number"]), _loss(trial["loss"]), *(f"{trial['params'][field]:.3g}" for field in fields))
            for trial in sorted(completed, key=lambda trial: float(trial["loss"]))[:5]
        ],
    )
    searched = (
        f"Search cost: {cost['finished_trials']} trials, {cost['passes']:,} passes, {cost['hours']:.2f} hours of runs."
    )
    return f"{facts}\n\n{best}\n\n{searched}"


TABLES: dict[str, Callable[[], str]] = {
    "results": results, "short-results": short_results, "heldout": heldout, "begun": begun,
    "proxy-scale": proxy_scale, "time-to-loss": time_to_loss,
    "killed-sweep": killed_sweep, "where-the-loss-lies": where_the_loss_lies,
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
    minutes = "not timed" if row["minutes"] is None else f"{round(row['minutes'], 1):g}"
    return (
        f"`{row['recipe']}`{row['on']}", row["claimed"] or "–", _loss(row["official_loss"]), f"{row['coverage']:.1%}",
        f"**{_loss(row['loss'])}**", _loss(row["bits_per_byte"]), minutes, row["machine"], f"`{row['commit']}`",
    )  # fmt: skip


def _loss(value: float) -> str:
    return f"{value:.4f}"


def _add(options: argparse.Namespace) -> None:
    folder = RunFolder.open(options.run)
    scores = folder.finished_scores()
    if scores is None:
        raise SystemExit(f"{options.run} has not ended")
    kept = {key: round(scores[key], 4) for key in ("loss", "official_loss", "coverage", "bits_per_byte")}
    row = {
        "recipe": options.recipe, "on": options.on, "claimed": options.claimed, **kept, "minutes": options.minutes,
        "machine": options.machine, "commit": options.commit, "whole": True, "public": options.public,
        "fingerprint": scores["fingerprint"],
    }  # fmt: skip
    if options.step_seconds:
        curves = read_curves(options.run)
        assert curves.max_steps is not None
        single = steps_before_rdrop(curves.max_steps, folder.recipe().train)
        cost = options.step_seconds
        curve = [
            [(min(at.step, single) * cost[0] + max(at.step - single, 0) * cost[-1]) / 60, at.loss]
            for at in curves.evaluations
            if at.step > 1
        ]
        row |= {"step_seconds": cost, "curve": [[round(minutes, 2), round(loss, 4)] for minutes, loss in curve]}
        row["minutes"] = row["curve"][-1][0]
    same = ("fingerprint", "recipe", "on")
    others = []
    for (
        one
    ) in _runs():  # a run that is added again takes the place of what was said of it, and keeps its held-out losses
        if all(one.get(key) == row[key] for key in same):
            row = {**({"heldout": one["heldout"]} if "heldout" in one else {}), **row}
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
    add.add_argument("--minutes", type=float, help="of the whole run, with other work beside it")
    add.add_argument("--step-seconds", type=float, nargs="+", metavar="S",
                     help="of a step with nothing else running; a second one is of R-Drop's steps")  # fmt: skip
    of_study = commands.add_parser("study")
    of_study.add_argument("result", type=Path)
    of_study.add_argument("--as", dest="name", help="the name of its file and marker; left out, the study's")
    commands.add_parser("chart")
    options = parser.parse_args()
    if options.command == "add":
        _add(options)
    elif options.command == "chart":
        save(minutes_chart(), ROOT / "docs" / "images" / "time-to-loss.svg")
    elif options.command == "study":
        told = json.loads(options.result.read_text(encoding="utf-8"))
        (RESULTS / f"{options.name or told['study']}.json").write_text(
            json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    for page in PAGES:
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
