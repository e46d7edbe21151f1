"""Small files that unfold into more than all memory, each read in a process that may take 1 GiB: `python -m tests.bombs FOLDER`.

Prints one JSON object: what is said of each.
"""

from __future__ import annotations

import gzip
import io
import json
import resource
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from shortrun.check.run import check_log
from shortrun.disk import read_json
from shortrun.errors import ShortrunError
from shortrun.pipeline.corpus_file import CorpusFile
from shortrun.pipeline.prepare import prepare_corpus
from shortrun.recipe import Recipe
from shortrun.runs.arrays import read_arrays
from shortrun.runs.checkpoints import Checkpoint, Progress, load_state, require_weights
from shortrun.text.files import read_column

GIB = 2**30


def main(folder: Path) -> None:
    read_column(written(folder / "first.txt", b"what the libraries need once\n"), "title", Counter())
    told = {}
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for name, read in bombs(folder).items():  # they are made before the limit is set
        resource.setrlimit(resource.RLIMIT_AS, (taken + GIB, resource.RLIM_INFINITY))
        try:
            told[name] = f"read: {str(read())[:200]}"
        except (ShortrunError, ValueError, OSError) as error:
            told[name] = str(error)[:300]
    print(json.dumps(told, indent=1))


def bombs(folder: Path) -> dict[str, Callable[[], Any]]:

    def column(name: str) -> Callable[[], int]:
        return lambda: len(read_column(folder / name, "title", Counter())[0])

    written(folder / "zeros.txt.gz", packed(b"a", 3 * GIB))
    written(folder / "lines.jsonl.gz", packed(b'{"title": "a"}\n', 2 * GIB))
    table(folder / "one-word.parquet", "a", 200_000_000)
    table(folder / "long-word.parquet", "a" * 1_000_000, 100_000)
    written(folder / "number.jsonl", b'{"title": ' + b"9" * 1_000_000 + b"}\n")
    written(folder / "deep.jsonl", b'{"title": ' + b"[" * 1_000_000 + b"\n")
    written(folder / "no-text.jsonl", b'{"title": [' + b"1," * 1_000_000 + b"1]}\n")
    written(folder / "log", b'{"event": "' + b"x" * 100_000_000 + b'"}\n{"event": "device_info"}\n')
    written(folder / "deep.json", b'{"a": ' * 500 + b"1" + b"}" * 500)
    written(folder / "large.json", b'{"a": "' + b"x" * 70_000_000 + b'"}')
    arrays(
        folder / "unfolds.npz",
        np.lib.format.header_data_from_array_1_0(np.zeros(1)) | {"shape": (20_000_000,)},
        160_000_000,
    )
    arrays(folder / "lies.npz", np.lib.format.header_data_from_array_1_0(np.zeros(1)) | {"shape": (2**50,)}, 8)
    nats = {"validation": "f"}
    weights = folder / "weights"
    weights.mkdir()
    written(weights / "model.safetensors", struct.pack("<Q", 2**62) + b"{}")
    giant = {"a": {"dtype": "F32", "shape": [2**30, 2**10], "data_offsets": [0, 2**42]}}
    (folder / "giant").mkdir()
    header = json.dumps(giant).encode()
    written(folder / "giant" / "model.safetensors", struct.pack("<Q", len(header)) + header)
    state = folder / "state"
    state.mkdir()
    saved = io.BytesIO()
    torch.save({"optimizer": {}, "documents_seen": torch.zeros(10_000_000, dtype=torch.int64)}, saved)
    with zipfile.ZipFile(saved) as whole, zipfile.ZipFile(state / "state.pt", "w", zipfile.ZIP_DEFLATED) as small:
        for member in whole.infolist():
            small.writestr(member.filename, whole.read(member))
    laughing: list[Any] = [0.0]
    for _ in range(12):
        laughing = [laughing] * 100
    (folder / "laughs").mkdir()
    torch.save({"optimizer": laughing, "documents_seen": torch.zeros(1)}, folder / "laughs" / "state.pt")
    del saved
    (folder / "small").mkdir()
    save_file({"a": torch.zeros(1)}, folder / "small" / "model.safetensors")
    deep = Recipe.model_validate({"model": {"n_layer": 1000, "d_model": 65_536, "n_head": 8}})
    return {
        "gzip: one line": column("zeros.txt.gz"),
        "gzip: many lines": column("lines.jsonl.gz"),
        "parquet: 200 million rows": column("one-word.parquet"),
        "parquet: one long text in every row": column("long-word.parquet"),
        "json: a number of a million digits": column("number.jsonl"),
        "json: nested without end": column("deep.jsonl"),
        "json: a list for a text": column("no-text.jsonl"),
        "corpus": lambda: corpus(folder),
        "a line of 100 MB in a log": lambda: check_log(folder / "log"),
        "nested manifest": lambda: read_json(folder / "deep.json"),
        "large manifest": lambda: read_json(folder / "large.json"),
        "npz that unfolds": lambda: read_arrays(folder / "unfolds.npz", nats, (folder / "unfolds.npz").stat().st_size),
        "npz that lies": lambda: read_arrays(folder / "lies.npz", nats, GIB),
        "safetensors with a header of 2^62 bytes": lambda: require_weights(
            Recipe(), 300, Checkpoint(weights, Progress())
        ),
        "safetensors with a tensor that is not there": lambda: require_weights(
            Recipe(), 300, Checkpoint(folder / "giant", Progress())
        ),
        "a recipe that no machine holds": lambda: require_weights(deep, 300, Checkpoint(folder / "small", Progress())),
        "state that unfolds": lambda: load_state(Checkpoint(state, Progress())),
        "state of lists in lists": lambda: load_state(Checkpoint(folder / "laughs", Progress())),
    }


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def packed(word: bytes, size: int) -> bytes:
    """A gzip file that unfolds into so many bytes of one word: one member many times, which are one file together."""
    block = word * (2**24 // len(word))
    return gzip.compress(block) * (size // len(block))


def table(path: Path, word: str, rows: int) -> None:
    """A Parquet file that holds one word once, and says that it stands in so many rows."""
    piece = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array([word]))
    with pq.ParquetWriter(path, pa.schema([("title", piece.type)]), write_statistics=False) as file:
        for _ in range(rows // 100_000):
            file.write_table(pa.table({"title": piece}), row_group_size=100_000)


def arrays(path: Path, header: dict[str, Any], size: int) -> None:
    """An .npz file with one array of zeros, compressed, whose header is given."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("validation.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        while size > 0:
            file.write(b"\0" * min(size, 2**24))
            size -= 2**24


def corpus(folder: Path) -> dict[str, Any]:
    """The same files, prepared as a corpus."""
    paths = ["zeros.txt.gz", "long-word.parquet", "number.jsonl", "deep.jsonl", "first.txt"]
    inputs = [{"path": [name], "name": name, "column": "title", "document": "line"} for name in paths]
    file = CorpusFile.model_validate(
        {"root": str(folder), "input": inputs, "duplicates": {"near": "off"}, "split": {"validation": 0}}
    )
    made = prepare_corpus("bombs", file, folder / "out")
    return {step["name"]: {name: each["documents"] for name, each in step["reasons"].items()} for step in made["steps"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
