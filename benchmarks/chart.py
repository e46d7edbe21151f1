"""Draws how cost grows: tokens a second and memory against width, vocabulary and corpus, from benchmarks/results.json.

python benchmarks/chart.py            writes docs/growth.svg
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator

HERE = Path(__file__).parent
SPEED, MEMORY = "#1f6fb2", "#c2571a"


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """One panel each for width, vocabulary and titles, on the CPU; speed and memory have an axis each, all from zero."""
    rows = [row for row in rows if row["device"] == "cpu"]
    grown = [row for row in rows if "width" in row]
    matplotlib.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "shortrun", "font.size": 9, "axes.spines.top": False}
    )
    figure, panels = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr,call-arg]
    both(panels[0], "width", [row for row in grown if row["vocabulary"] == 16_000])
    both(panels[1], "vocabulary", [row for row in grown if row["width"] == 512])
    corpus = sorted((row for row in rows if "titles" in row), key=lambda row: row["titles"])
    if not grown or not corpus:
        raise SystemExit("measure first: python benchmarks/run.py --only growth, and --only corpus")
    panels[2].plot([row["titles"] for row in corpus], [row["ours"] / 1000 for row in corpus], "s-", color=MEMORY)
    x_axis(panels[2], "titles", [row["titles"] for row in corpus])
    panels[2].set_ylabel("memory without the model, GB", color=MEMORY)
    from_zero(panels[2])
    figure.savefig(out, metadata={"Date": None, "Description": f"of {digest(grown + corpus)}"})
    plt.close(figure)


def digest(rows: list[dict[str, Any]]) -> str:
    """Which rows a drawing shows: the beginning of their sha256."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def both(speed: Axes, what: str, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: row[what])
    values = [row[what] for row in rows]
    speed.plot(values, [row["ours"] for row in rows], "o-", color=SPEED)
    speed.set_ylabel("tokens a second", color=SPEED)
    memory = speed.twinx()
    memory.plot(values, [row["ours_peak_gb"] for row in rows], "s--", color=MEMORY)
    memory.set_ylabel("peak memory, GB", color=MEMORY)
    x_axis(speed, what, values)
    for axes in (speed, memory):
        from_zero(axes)


def from_zero(axes: Axes) -> None:
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])


def x_axis(axes: Axes, what: str, values: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(values)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:.0f}" if what == "width" else EngFormatter(sep=""))
    axes.set_xlabel(what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "growth.svg")
    options = parser.parse_args()
    draw(json.loads(options.results.read_text())["rows"], options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
