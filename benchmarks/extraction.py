"""How well libraries take the main text out of pages, and how fast: one table and a JSON file.

    python benchmarks/extraction.py [--pages N] [--data ../shared/data/web/html-pages.parquet]

The pages are CleanEval's (Baroni et al. 2008), with a text that a person cleaned. A page's score is the F1 of its tokens,
counted as often as they occur; what stands in the table is the mean over pages. "~" is a 95 % bootstrap interval over pages of the difference to
trafilatura's own default. The set wraps each page in a tag of its own, <text>, which no parser expects; the second F1 is
without it. Seconds are processor time of one process, and the libraries take turns, a page each.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from shortrun.pipeline.extraction import EXTRACTORS, extractor

HERE = Path(__file__).parent
REFERENCE = "trafilatura"
WORD = re.compile(r"\w+")
WRAPPER = re.compile(rb"\A\s*<text [^>]*>|</text>\s*\Z")


def gold(text: str) -> Counter[str]:
    """The tokens of a gold text, without the address in its first line and the marks of paragraphs."""
    return tokens(re.sub(r"<[a-z/]+>", " ", re.sub(r"\A\s*URL:.*\n", "", text)))


def tokens(text: str) -> Counter[str]:
    return Counter(WORD.findall(text.lower()))


def f1(found: Counter[str], wanted: Counter[str]) -> tuple[float, float, float]:
    """F1, precision and recall of tokens, each counted as often as it occurs; two empty texts agree."""
    if not found or not wanted:
        return (float(found == wanted),) * 3
    both = (found & wanted).total()
    precision, recall = both / found.total(), both / wanted.total()
    return 2 * both / (found.total() + wanted.total()), precision, recall


def interval(differences: NDArray[np.float64], draws: int = 10_000) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    means = [differences[rng.integers(0, len(differences), len(differences))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared/data/web/html-pages.parquet")
    parser.add_argument("--pages", type=int, help="only the first N")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the libraries speak about broken pages
    pages = pq.read_table(options.data).slice(0, options.pages).to_pylist()
    names = list(EXTRACTORS)
    functions = {name: extractor(name) for name in names}
    scores: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    unwrapped: dict[str, list[float]] = {name: [] for name in names}
    seconds = dict.fromkeys(names, 0.0)
    failed = Counter[str]()
    for name in names:  # caches and models are filled before the clock runs
        functions[name](pages[0]["html"])
    for page in pages:
        wanted = gold(page["gold_text"])
        for name in names:
            for html in (page["html"], WRAPPER.sub(b"", page["html"])):
                begun = time.process_time()
                try:
                    text = functions[name](html)
                except Exception:
                    text = ""
                    failed[name] += html is page["html"]
                took = time.process_time() - begun
                score = f1(tokens(text), wanted)
                if html is page["html"]:
                    seconds[name] += took
                    scores[name].append(score)
                else:
                    unwrapped[name].append(score[0])
    report(options.data, pages, names, scores, unwrapped, seconds, failed)


def report(data, pages, names, scores, unwrapped, seconds, failed) -> None:  # type: ignore[no-untyped-def]
    """Prints the table and writes it beside this file."""
    table = Table("library", "F1", "~", "precision", "recall", "F1 without <text>", "pages/s", "no text or failed")
    kept = []
    base = np.array([score[0] for score in scores[REFERENCE]])
    for name in sorted(names, key=lambda name: -np.mean([score[0] for score in scores[name]])):
        means = np.mean(scores[name], axis=0)
        low, high = interval(np.array([score[0] for score in scores[name]]) - base)
        nothing = sum(score == (0.0, 0.0, 0.0) for score in scores[name])
        row = {
            "library": f"{name} {version(name)}",
            "f1": means[0], "difference": [low, high], "precision": means[1], "recall": means[2],
            "f1_unwrapped": float(np.mean(unwrapped[name])),
            "pages_per_second": len(pages) / seconds[name], "failed": failed[name], "scored_0": nothing,
        }  # fmt: skip
        kept.append(row)
        table.add_row(
            row["library"], f"{means[0]:.4f}", f"{low:+.4f} to {high:+.4f}", f"{means[1]:.4f}", f"{means[2]:.4f}",
            f"{row['f1_unwrapped']:.4f}", f"{row['pages_per_second']:.0f}", str(nothing),
        )  # fmt: skip
    Console(width=140).print(table)
    print(f"{len(pages)} pages of {data.name}, {sum(len(page['html']) for page in pages) / 1e6:.1f} MB of HTML")
    if len(pages) > 700:
        (HERE / "extraction.json").write_text(json.dumps({"pages": len(pages), "libraries": kept}, indent=2) + "\n")


if __name__ == "__main__":
    main()
