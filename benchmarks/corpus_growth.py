"""What the batches hold in memory as the corpus grows, and how long one takes to make.

    python benchmarks/corpus_growth.py --titles 5000000

Titles are random words, never all there at once. They are encoded into a file by a BPE learned from the first 20,000, as
`shortrun train` does it, and laid into shuffled batches of 64 x 128 targets, of which 200 are then made at random steps.
Prints one JSON line. Memory is what the process has of its own, in MB; pages of mapped files are apart, because the system
takes them back when it needs room.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from shortrun.recipe import BatchesConfig, TokenizerConfig
from shortrun.text.corpus import Corpus
from shortrun.text.documents import Documents
from shortrun.tokens.batches import make_batches
from shortrun.tokens.encoded import encoded_split
from shortrun.tokens.kinds import make_tokenizer

WORDS = 5_000


def titles(seed: int) -> Iterator[str]:
    """Titles of 6 to 20 words, about 14 tokens; words occur as they do in text, the k-th in proportion to 1 / k."""
    rng = np.random.default_rng(0)  # every seed draws from the same words
    words = ["".join(rng.choice(list("etaoinshrdlu"), size=rng.integers(2, 9))) for _ in range(WORDS)]
    weights = 1 / np.arange(1, WORDS + 1)
    rng = np.random.default_rng([1, seed])
    while True:
        ends = np.cumsum(rng.integers(6, 21, size=10_000)).tolist()
        drawn = [words[k] for k in rng.choice(WORDS, size=ends[-1], p=weights / weights.sum()).tolist()]
        for first, last in pairwise([0, *ends]):
            yield " ".join(drawn[first:last])


def a_corpus(count: int, folder: Path) -> Corpus:
    """So many titles to train on, in a mapped file."""
    source = islice(titles(1), count)
    with pa.OSFile(str(folder / "titles.arrow"), "wb") as sink:
        schema = pa.schema([("document", pa.large_binary())])
        with pa.ipc.new_file(sink, schema) as writer:
            while piece := list(islice(source, 50_000)):
                writer.write_table(pa.table({"document": Documents.of(piece).column}))
    documents = Documents.open(folder / "titles.arrow")
    return Corpus(documents, {"train": (0, count)}, {"splits": {"train": {"sha256": f"{count} titles"}}})


def memory(what: str) -> int:
    """Bytes of a line of /proc/self/status: RssAnon is memory of its own, RssFile mapped files, VmHWM the peak of all."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[what].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SHORTRUN_CACHE"] = folder
        print(json.dumps(measured(a_corpus(options.titles, Path(folder)))))


def measured(corpus: Corpus) -> dict[str, float]:
    tokenizer = make_tokenizer(islice(titles(0), 20_000), TokenizerConfig(vocab_size=16_000))
    tokenizer.encode_many(list(islice(titles(1), 50_000)))  # what one slice leaves behind is no part of the growth
    empty, start = memory("RssAnon"), time.perf_counter()
    shape = BatchesConfig(block_size=128, batch_size=64)
    batches = make_batches(encoded_split(corpus, "train", tokenizer), shape, epochs=7, seed=0)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    batches.at(1)
    order_ms = 1000 * (time.perf_counter() - start)
    before, peak_before = memory("RssAnon"), memory("VmHWM")
    during, milliseconds = [], []
    for step in np.random.default_rng(2).integers(1, batches.steps_per_epoch, size=200, endpoint=True):
        start = time.perf_counter()
        batches.at(int(step))
        milliseconds.append(1000 * (time.perf_counter() - start))
        during.append(memory("RssAnon"))
    number = len(corpus.documents)
    return {
        "titles": number,
        "tokens": batches.tokens_per_epoch,
        "seconds_to_encode": round(seconds, 1),
        "empty_mb": round(empty / 1e6, 1),
        "before_steps_mb": round(before / 1e6, 1),
        "most_in_steps_mb": round(max(during) / 1e6, 1),
        "bytes_a_title": round((max(during) - empty) / number, 1),
        "mapped_files_mb": round(memory("RssFile") / 1e6, 1),
        "peak_before_steps_mb": round(peak_before / 1e6, 1),
        "peak_mb": round(memory("VmHWM") / 1e6, 1),
        "order_ms": round(order_ms, 1),
        "batch_ms": round(statistics.median(milliseconds), 3),
    }


if __name__ == "__main__":
    main()
