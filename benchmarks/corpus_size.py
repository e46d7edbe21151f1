"""How much memory the corpus pipeline takes as its input grows, and how fast it is: a line of JSON for each size.

    python benchmarks/corpus_size.py --gigabytes 0.25 0.5 1 5 --workers 2

The input is generated, half of it as lines of JSON, half as Parquet: sentences of random words, documents of 2.5 kB on average, a
tenth of them exact duplicates and a tenth near-duplicates of earlier ones, one line in a thousand damaged. All rules but C4's run;
`--rules` alone runs none, and a document is then read, repaired and looked for duplicates.
Memory is the sum over all processes, looked at ten times a second: `own_mb` is what they have of their own, `pss_mb` also has
pages of files that are mapped, which the system takes back when it needs room. Throughput is input over processor time, so
that it says little about what else the machine did.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shortrun.pipeline.corpus_file import CorpusFile
from shortrun.pipeline.prepare import prepare_corpus
from shortrun.pipeline.runner import Crew, Progress

WORDS = 50_000
STOP_WORDS = ["the", "be", "to", "of", "and", "that", "have", "with"]
FILE_BYTES = 250_000_000
KEPT = 5_000
"""Earlier documents that a duplicate is of one of."""


def documents(seed: int) -> Iterator[str]:
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwyp"))
    words = ["".join(rng.choice(letters, size=size)) for size in rng.integers(3, 11, size=WORDS)]
    words = np.array(STOP_WORDS + words[len(STOP_WORDS) :], dtype=object)
    weights = 1 / np.arange(3, WORDS + 3)
    weights /= weights.sum()
    rng = np.random.default_rng([1, seed])
    earlier: list[str] = []
    while True:
        drawn = iter(rng.choice(WORDS, size=1_000_000, p=weights).tolist())
        left = 1_000_000
        while left > 20_000:
            fate = rng.random()
            if earlier and fate < 0.2:
                text = earlier[int(rng.integers(len(earlier)))]
                yield text if fate < 0.1 else text.replace(" ", " indeed ", 1)
                continue
            lines = []
            for _ in range(int(rng.lognormal(1.2, 0.9)) + 1):
                sentences = []
                for length in rng.integers(8, 25, size=int(rng.integers(2, 8))).tolist():
                    left -= length
                    sentences.append(" ".join([words[next(drawn)] for _ in range(length)]).capitalize() + ".")
                lines.append(" ".join(sentences))
                if left < 10_000:
                    break
            text = "\n".join(lines)
            if len(earlier) < KEPT:
                earlier.append(text)
            else:
                earlier[int(rng.integers(KEPT))] = text
            yield text


def generate(folder: Path, size: int) -> int:
    """Writes files of about `size` bytes of text in all; returns how many."""
    folder.mkdir(parents=True)
    written = number = 0
    while written < size:
        wanted = min(FILE_BYTES, size - written)
        texts, done = documents(number), 0
        if number % 2:
            with pq.ParquetWriter(folder / f"{number:03}.parquet", pa.schema([("text", pa.string())])) as writer:
                while done < wanted:
                    piece = [next(texts) for _ in range(2_000)]
                    done += sum(map(len, piece))
                    writer.write_table(pa.table({"text": piece}))
        else:
            with (folder / f"{number:03}.jsonl").open("w") as file:
                line = 0
                while done < wanted:
                    text = json.dumps({"text": next(texts)})
                    line += 1
                    done += file.write((text if line % 1_000 else text[:-3]) + "\n")
        written += done
        number += 1
    return written


class Memory(threading.Thread):
    """Looks at the memory of this process and of its children."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.pss = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            own = pss = 0
            for process in self._processes():
                try:
                    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
                except OSError:  # it has just ended
                    continue
                sizes = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
                pss += int(sizes["Pss"].split()[0])
                own += int(sizes["Pss_Anon"].split()[0])
            self.own, self.pss = max(self.own, own), max(self.pss, pss)

    def _processes(self) -> list[int]:
        found, waiting = [], [os.getpid()]
        while waiting:
            process = waiting.pop()
            found.append(process)
            for path in Path(f"/proc/{process}/task").glob("*/children"):
                try:
                    waiting += map(int, path.read_text().split())
                except OSError:
                    continue
        return found


def processor_seconds() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measured(size: int, workers: int, folder: Path, rules: list[str]) -> dict[str, object]:
    written = generate(folder / "input", size)
    file = CorpusFile.model_validate(
        {"root": str(folder / "input"), "input": [{"name": "generated", "path": ["."]}],
         "quality": {"rules": rules}}
    )  # fmt: skip
    stages: dict[str, float] = {}
    began = last = time.perf_counter()

    def told(at: Progress) -> None:
        nonlocal last
        now = time.perf_counter()
        stages[at.stage] = stages.get(at.stage, 0.0) + now - last
        last = now

    memory, before = Memory(), processor_seconds()
    memory.start()
    manifest = prepare_corpus("size", file, folder / "out", Crew(workers, told))
    memory.over.set()
    seconds, used = time.perf_counter() - began, processor_seconds() - before
    steps = {step["name"]: step for step in manifest["steps"]}
    return {
        "input_gb": round(written / 1e9, 3),
        "documents": steps["reading"]["documents_in"],
        "kept": sum(split["documents"] for split in manifest["splits"].values()),
        "workers": workers,
        "rules": rules,
        "seconds": round(seconds, 1),
        "mb_per_processor_second": round(written / 1e6 / used, 2),
        "own_mb": memory.own // 1000,
        "pss_mb": memory.pss // 1000,
        "stages": {name: round(took, 1) for name, took in stages.items()},
        "sha256": manifest["sha256"][:16],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--rules", nargs="*", default=["repetition", "gopher", "fineweb", "links"], help="none is faster"
    )
    parser.add_argument(
        "--folder", type=Path, help="where input and corpus lie meanwhile; left out, a temporary folder"
    )
    options = parser.parse_args()
    for gigabytes in options.gigabytes:
        folder = Path(tempfile.mkdtemp(prefix="corpus-size-", dir=options.folder))
        try:
            print(json.dumps(measured(int(gigabytes * 1e9), options.workers, folder, options.rules)), flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
