"""How much memory training takes as its corpus grows: a line of JSON for each size.

    python benchmarks/corpus_training.py --megabytes 25 250 --tokenizer-path FOLDER

Documents of random words, 2.5 kB each, become a prepared corpus, of which about 0.2 MB validate whatever its size. Then a
process of its own makes ids of it and takes two steps of `mini-gpt`, scored before and after. `own` is memory of its own, the
most of fifty looks a second; `resident` is the peak of all, with pages of mapped files, which the system takes back when it
needs room. `model` is weights, gradients and what AdamW remembers; `beside_it` is the peak of all without that.
FOLDER holds GPT-2's vocabulary (tokenizer.path); left out, it comes from the hub.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from shortrun.pipeline.corpus_file import CorpusFile
from shortrun.pipeline.prepare import prepare_corpus
from shortrun.recipe_file import load_recipe
from shortrun.train.fit import fit
from shortrun.train.prepare import prepare

WORDS, WORDS_A_DOCUMENT = 50_000, 400
VALIDATION_BYTES = 200_000


def memory(what: str) -> float:
    """MB of a line of /proc/self/status: RssAnon is memory of its own, VmHWM the peak of all."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[what].split()[0]) / 1000


class Watch(threading.Thread):
    """Looks at this process' own memory, and remembers the most since it was last asked."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0

    def run(self) -> None:
        while True:
            self.most = max(self.most, memory("RssAnon"))
            time.sleep(0.02)

    def since(self) -> float:
        most, self.most = max(self.most, memory("RssAnon")), 0.0
        return most


def a_corpus(folder: Path, size: int) -> Path:
    """A prepared corpus of about so many bytes."""
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("etaoinshrdlu"), size=length)) for length in rng.integers(3, 9, WORDS)])
    weights = 1 / np.arange(3, WORDS + 3)
    weights /= weights.sum()
    source = folder / "documents.jsonl"
    written = 0
    with source.open("w") as file:
        while written < size:
            drawn = words[rng.choice(WORDS, size=(500, WORDS_A_DOCUMENT), p=weights)]
            for document in drawn.tolist():
                written += file.write(json.dumps({"text": " ".join(document).capitalize() + "."}) + "\n")
    file_of = {"input": [{"path": [str(source)]}], "split": {"validation": VALIDATION_BYTES / size}}
    prepare_corpus("generated", CorpusFile.model_validate(file_of), folder / "corpus")
    source.unlink()
    return folder / "corpus"


def measured(corpus: Path, tokenizer_path: str | None) -> dict[str, float]:
    """In the process that trains."""
    watch = Watch()
    watch.start()
    sections: dict[str, dict[str, Any]] = {
        "data": {"source": "corpus", "path": [str(corpus)], "num_titles": "all"},
        "train": {"threads": 1, "device": "cpu"},
    }
    if tokenizer_path:
        sections["tokenizer"] = {"path": tokenizer_path}
    recipe = load_recipe("mini-gpt", sections)
    at_start = watch.since()
    prepared = prepare(recipe)
    preparing = watch.since()
    result = fit(prepared, recipe, corpus.parent / "run", max_steps=2)
    training, peak = watch.since(), memory("VmHWM")
    model = 4 * 4 * result.budget.parameters / 1e6
    return {
        "corpus_mb": round(sum(path.stat().st_size for path in corpus.glob("*.parquet")) / 1e6),
        "documents": len(prepared.train) + len(prepared.validation.documents),
        "tokens": len(prepared.train.ids_N),
        "process_own_mb": round(at_start),
        "preparing_own_mb": round(preparing),
        "training_own_mb": round(training),
        "resident_mb": round(peak),
        "model_mb": round(model),
        "beside_it_mb": round(peak - model),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[25.0, 250.0])
    parser.add_argument("--tokenizer-path", help="the folder of GPT-2's vocabulary")
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.corpus:
        print(json.dumps(measured(options.corpus, options.tokenizer_path)), flush=True)
        return
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory(prefix="corpus-training-") as folder:
            corpus = a_corpus(Path(folder), int(megabytes * 1e6))
            command = [sys.executable, __file__, "--corpus", str(corpus)]
            command += ["--tokenizer-path", options.tokenizer_path] if options.tokenizer_path else []
            subprocess.run(command, env=os.environ | {"SHORTRUN_CACHE": f"{folder}/cache"}, check=True)


if __name__ == "__main__":
    main()
