"""Reading a corpus that `shortrun data prepare` made: a folder of Parquet shards and a manifest.

Its split is used as it is. Within each split the documents come in the order of the recipe's seed, near-duplicates beside each
other, so that a cut between groups leaves none on both sides. Without a shuffle they come in the order of the shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shortrun.disk import file_sha256, read_json
from shortrun.errors import UserError, did_you_mean, first_line
from shortrun.limits import Shape, is_plain_name, require_shape, shortened
from shortrun.text.cleaning import cleaned
from shortrun.text.documents import Documents
from shortrun.text.files import ROWS_AT_ONCE, most_unfolded

MANIFEST = "manifest.json"
FORMAT = 1
COLUMNS = ["text", "group"]
STEP: Shape = {
    **dict.fromkeys(("name", "about"), str),
    **dict.fromkeys(("documents_in", "characters_in", "documents_out", "characters_out", "changed"), int),
    "reasons": {"*": {"documents": int, "characters": int, "examples": [{"place": str, "detail": str, "text": str}]}},
}
SHAPE: Shape = {
    **dict.fromkeys(("name", "about", "sha256"), str),
    "splits": {"*": dict.fromkeys(("documents", "characters", "bytes", "groups"), int)},
    "shards": [dict.fromkeys(("name", "split", "sha256"), str)],
    "inputs": [{"name": str}],
    "not_read": {"*": int},
    "steps": [STEP],
    "lengths": {"*": [int]},
}
"""What a manifest must hold."""
SCRATCH = "unordered.arrow"


def open_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared corpus; raises UserError where the folder holds none."""
    if folder.is_file():
        raise UserError(f'{folder} is a file; data.source = "corpus" reads a folder that `shortrun data prepare` made')
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / ".work").is_dir():
            raise UserError(f"{folder} holds a corpus that is not finished; `shortrun data prepare` goes on with it")
        if folder.is_dir():
            raise UserError(
                f"{folder} holds no prepared corpus, that is, no {MANIFEST}; `shortrun data prepare` makes one"
            )
        near = did_you_mean(folder.name, [each.parent.name for each in folder.parent.glob(f"*/{MANIFEST}")])
        raise UserError(f"There is no folder {folder}" + (f"; {near}" if "did you" in near else ""))
    manifest = read_json(path)
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("shards"), list):
        raise UserError(f"{path} is no manifest of a prepared corpus, or one of another version of shortrun")
    require_shape(manifest, SHAPE, path)
    for shard in manifest["shards"]:
        if not is_plain_name(shard["name"]):  # --replace removes it
            raise UserError(f"{path} is damaged: {shortened(shard['name'])} is no file of this folder")
    return manifest


def write_documents(
    folder: Path, target: Path, seed: int, *, shuffle: bool, normalise: tuple[str, ...], wanted: int | None
) -> tuple[Documents, int, NDArray[np.int64], Counter[str]]:
    """Writes a prepared corpus into one file that can be mapped: the training documents, then those that validate.

    wanted: how many documents to take, of both splits in proportion; None for all. Returns the documents, how many of them
    train, the group of each, and what cleaning changed. Memory does not grow with the corpus, but for some bytes a document. Raises UserError
    for a corpus that is damaged or has no documents to validate.
    """
    manifest = open_manifest(folder)
    if "validation" not in manifest["splits"]:
        raise UserError(f"{folder} has no validation documents; give split.validation a share in its corpus file")
    changes: Counter[str] = Counter()
    scratch = target.with_name(SCRATCH)
    groups: list[int] = []
    counts: list[int] = []
    schema = pa.schema([("document", pa.large_binary())])
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for split in ("train", "validation"):
            for texts, found in _batches(folder, manifest, split, normalise, changes):
                writer.write_batch(pa.record_batch([pa.array(texts, pa.large_binary())], schema=schema))
                groups += found
            counts.append(len(groups) - sum(counts))
    group_D = np.array(groups, np.int64)
    order = _order(group_D, counts, seed if shuffle else None, wanted)
    stored = Documents.open(scratch)
    train = sum(int(number < counts[0]) for number in order)
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for piece in _pieces(stored, order):
            writer.write_batch(pa.record_batch([pa.array(piece, pa.large_binary())], schema=schema))
    del stored
    scratch.unlink()
    return Documents.open(target), train, group_D[order], changes


def _batches(
    folder: Path, manifest: dict[str, Any], split: str, normalise: tuple[str, ...], changes: Counter[str]
) -> Iterator[tuple[list[bytes], list[int]]]:
    """Documents of a split and their groups, some at a time, in the order of the shards."""
    for shard in manifest["shards"]:
        if shard["split"] != split:
            continue
        path = folder / shard["name"]
        if not path.is_file() or file_sha256(path) != shard["sha256"]:
            raise UserError(
                f"{path} is missing or not what {MANIFEST} says; `shortrun data prepare --replace` makes it anew"
            )
        for rows, groups in _rows(path):
            kept = [
                (text.encode(), group)
                for row, group in zip(rows, groups, strict=True)
                for text in cleaned([row], changes, normalise)
            ]
            yield [text for text, _ in kept], [group for _, group in kept]


def _rows(path: Path) -> Iterator[tuple[list[str | None], list[int]]]:
    """The documents of a shard and their groups, some at a time; raises UserError for what is no shard."""
    unfolded, most = 0, most_unfolded(path.stat().st_size)
    try:
        with pq.ParquetFile(path) as file:
            kinds = {name: file.schema_arrow.field(name).type for name in COLUMNS}
            if kinds != {"text": pa.string(), "group": pa.int64()}:
                raise OSError("its columns are others")
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=COLUMNS, use_threads=False):
                unfolded += batch.nbytes
                if unfolded > most:
                    raise OSError(f"it unfolds into more than {most:,} bytes")
                yield batch.column("text").to_pylist(), batch.column("group").to_pylist()
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError, MemoryError, OverflowError) as error:
        raise UserError(f"{path} is no shard of a corpus: {first_line(error)}") from None


def _order(group_D: NDArray[np.int64], counts: list[int], seed: int | None, wanted: int | None) -> NDArray[np.int64]:
    """Which documents are taken, in which order: each split by itself, groups together."""
    taken = []
    start = 0
    for count in counts:
        group = group_D[start : start + count]
        order = np.arange(count)
        if seed is not None:
            place = np.empty(count, np.int64)
            place[np.random.default_rng(seed).permutation(count)] = order
            _, inverse = np.unique(group, return_inverse=True)
            first = np.full(int(inverse.max(initial=-1)) + 1, count)
            np.minimum.at(first, inverse, place)
            order = np.lexsort((place, first[inverse]))
        if wanted is not None:
            order = order[: max(1, round(wanted * count / len(group_D)))]
        taken.append(order + start)
        start += count
    return np.concatenate(taken)


def _pieces(stored: Documents, order: NDArray[np.int64], most_bytes: int = 1 << 24) -> Iterator[list[bytes]]:
    """The documents in that order, some at a time."""
    piece: list[bytes] = []
    size = 0
    for number in order.tolist():
        piece.append(stored.column[number].as_py())
        size += len(piece[-1])
        if size >= most_bytes:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
