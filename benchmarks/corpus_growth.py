"""What training holds in memory as the corpus grows, and how long a batch takes.

    python benchmarks/corpus_growth.py --titles 5000000

Titles are random words, one a time, never all there at once; they are encoded by a BPE learned from the first 20,000 and
laid into shuffled batches of 64 x 128 targets. Prints one JSON line: seconds to encode, resident and peak memory, bytes a
title beyond what the process had before, and the milliseconds of a batch.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from shortrun.recipe import Batches, Tokenizer
from shortrun.tokens.batches import SLICE, make_batches
from shortrun.tokens.kinds import make_tokenizer

WORDS = 5_000


def titles(seed: int) -> Iterator[str]:
    """Titles of 4 to 13 words that occur as words do: the k-th in proportion to 1 / k."""
    rng = np.random.default_rng(seed)
    words = np.array(["".join(rng.choice(list("etaoinshrdlu"), size=rng.integers(2, 9))) for _ in range(WORDS)])
    weights = 1 / np.arange(1, WORDS + 1)
    while True:
        drawn = words[rng.choice(WORDS, size=130_000, p=weights / weights.sum())]
        ends = np.cumsum(rng.integers(4, 14, size=13_000))
        for first, last in pairwise(ends):
            if last <= len(drawn):
                yield " ".join(drawn[first:last])


def resident() -> int:
    """Bytes in memory that are this process's own, without the pages of mapped files, which the system may drop."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=1_000_000)
    options = parser.parse_args()
    tokenizer = make_tokenizer(islice(titles(0), 20_000), Tokenizer(vocab_size=16_000))

    def encoded() -> Iterator[list[int]]:
        source = islice(titles(1), options.titles)
        while group := list(islice(source, SLICE)):
            yield from tokenizer.encode_many(group)

    before, start = resident(), time.perf_counter()
    shape = Batches(block_size=128, batch_size=64)
    batches = make_batches(encoded(), tokenizer.eos, tokenizer.vocab_size, shape, epochs=7, seed=0)
    seconds = time.perf_counter() - start
    batches.at(1)
    milliseconds = []
    for step in np.random.default_rng(2).integers(1, batches.steps_per_epoch, size=200):
        start = time.perf_counter()
        batches.at(int(step))
        milliseconds.append(1000 * (time.perf_counter() - start))
    after = resident()
    print(
        json.dumps(
            {
                "titles": options.titles,
                "tokens": batches.tokens_per_epoch,
                "seconds_to_make": round(seconds, 1),
                "resident_mb": round(after / 1e6),
                "bytes_a_title": round((after - before) / options.titles, 1),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
                "batch_ms": round(statistics.median(milliseconds), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
