"""Faults, one after the other, each in a real process and followed by what it must not have cost (docs/faults.md).

python benchmarks/soak.py                           every kind once
python benchmarks/soak.py --kills 200               until that many kills have struck, with the other kinds between them
python benchmarks/soak.py --seconds 3600            for an hour
python benchmarks/soak.py --only "power cut" --faults 100
python benchmarks/soak.py --markdown                the table of the page, from benchmarks/soak.json

Every fault has a seed of its own, printed when it was not survived; --seed and --only repeat it. What was lost stays in the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("soak.json")
KILL = "kill -9"


@dataclass
class Count:
    """How one kind of fault has gone."""

    faults: int = 0
    survived: int = 0
    lost: int = 0
    """Rounds after which something was lost or different, or the message did not say what happened."""
    seconds: float = 0.0
    impossible: str = ""
    """Why this machine can't have it."""


def strike(name: str, place: Any, count: Count) -> str | None:
    """One round of a kind of fault; returns what was lost, if anything."""
    from soak_faults import FAULTS, Impossible

    start = time.monotonic()
    try:
        struck = FAULTS[name](place)
        count.faults += struck
        count.survived += struck
    except Impossible as error:
        count.impossible = str(error)
    except AssertionError as error:
        count.faults += 1
        count.lost += 1
        return str(error)
    finally:
        count.seconds += time.monotonic() - start
    return None


def soak(options: argparse.Namespace) -> dict[str, Count]:
    """Strikes until what was asked for is reached; prints a line for each fault that was not survived."""
    from soak_faults import FAULTS
    from soak_sittings import Place

    names = [options.only] if options.only else list(FAULTS)
    counts = {name: Count() for name in names}
    place = Place(Path(tempfile.mkdtemp(prefix="soak-", dir=options.folder)), random.Random(options.seed))
    began, seed, kept = time.monotonic(), options.seed, False
    while not _enough(options, counts, time.monotonic() - began, seed - options.seed):
        possible = [name for name in names if not counts[name].impossible]
        # every kind once, then kills in two of three rounds, because they are the ones to be counted
        others = possible[(seed - options.seed) // 3 % len(possible)]
        name = names[seed - options.seed] if seed - options.seed < len(names) else others
        if options.kills and seed - options.seed >= len(names) and seed % 3:
            name = KILL
        place.rng.seed(seed)
        lost = strike(name, place, counts[name])
        if lost:
            kept = True
            print(f"lost: {name}, --seed {seed}: {lost}", flush=True)
        else:
            place.tidy()
        seed += 1
        if seed % 25 == 0:
            print(table(counts), file=sys.stderr, flush=True)
    if kept:
        print(f"what was lost lies in {place.folder}")
    else:
        shutil.rmtree(place.folder)
    return counts


def _enough(options: argparse.Namespace, counts: dict[str, Count], seconds: float, rounds: int) -> bool:
    if options.seconds or options.kills or options.faults:
        return bool(
            (options.seconds and seconds >= options.seconds)
            or (options.kills and counts[KILL].faults >= options.kills)
            or (options.faults and sum(count.faults for count in counts.values()) >= options.faults)
        )
    return rounds >= len(counts)


def table(counts: dict[str, Count]) -> str:
    """The counts by kind as Markdown."""
    lines = ["| fault | struck | survived | lost | seconds |", "|---|---|---|---|---|"]
    for name, count in counts.items():
        if count.impossible:
            lines.append(f"| {name} | not here: {count.impossible} | | | |")
        else:
            lines.append(f"| {name} | {count.faults} | {count.survived} | {count.lost} | {count.seconds:.0f} |")
    sums = [sum(getattr(count, key) for count in counts.values()) for key in ("faults", "survived", "lost", "seconds")]
    return "\n".join([*lines, f"| all | {sums[0]} | {sums[1]} | {sums[2]} | {sums[3]:.0f} |"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--faults", type=int, help="stop after this many faults of any kind")
    parser.add_argument("--kills", type=int, help="stop after this many kills, which then come in two of three rounds")
    parser.add_argument("--only", help="one kind of fault, by its name in the table")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each next one counts it up")
    parser.add_argument("--folder", help="where the runs lie; the system's folder for temporary files otherwise")
    parser.add_argument(
        "--out", type=Path, help=f"write the counts there as JSON, {RESULTS.name} beside this file for the page"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table of the JSON, and do nothing else")
    options = parser.parse_args()
    if options.markdown:
        rows = json.loads(RESULTS.read_text())["rows"]
        print(table({row.pop("fault"): Count(**row) for row in rows}))
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.append(str(Path(__file__).parent))
    counts = soak(options)
    print(table(counts))
    if options.out:
        rows = [{"fault": name, **asdict(count)} for name, count in counts.items()]
        command = f"python benchmarks/soak.py {' '.join(sys.argv[1:])}"
        result = {"command": command, "date": str(date.today()), "machine": platform.platform(), "rows": rows}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(count.lost for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
