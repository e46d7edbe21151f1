"""Sources: where a recipe's documents come from, selected exactly as Mainrun selects its titles.

The rows of a source are put in the order of `datasets.Dataset.shuffle(seed)`, and documents are taken from the front until
there are enough. Cleaning comes after the order, so a blank row never changes which documents follow it.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shortrun.disk import file_sha256
from shortrun.errors import UserError, did_you_mean, missing_extra
from shortrun.recipe import DataConfig
from shortrun.text.cleaning import cleaned
from shortrun.text.documents import Documents
from shortrun.text.files import read_column, require_file
from shortrun.text.headlines import headlines_sha256
from shortrun.text.prepared import open_manifest, write_documents
from shortrun.text.synthetic import sample_titles

HUB_DATASET = "julien040/hacker-news-posts"


@dataclass(frozen=True)
class Source:
    """Clean documents in order, where they come from, and what cleaning changed."""

    documents: Documents
    origin: dict[str, Any]
    changes: Counter[str] = field(default_factory=Counter)
    train: int = 0
    """How many of them train, at the beginning, where the source has a split of its own."""
    group_D: NDArray[np.int64] | None = None
    """The group of near-duplicates of each, where the source knows them; a group's documents are neighbours."""


def identify(data: DataConfig) -> dict[str, Any]:
    """What decides a source's rows, without reading them: names and sha256 of files, the hub's commit, the grammar's sha256.

    A file's name says how it is read, and stands in the manifest.

    Raises UserError for a file that is missing or of no known kind.
    """
    match data.source:
        case "synthetic":
            return {"grammar": headlines_sha256()}
        case "hackernews":
            return {"version": _hub_version(_hub_table(data))}
        case "corpus":
            return {"corpus": open_manifest(Path(data.path[0]))["sha256"]}
    paths = [Path(name) for name in data.path]
    for path in paths:
        require_file(path)
    return {"files": [[path.name, file_sha256(path)] for path in paths]}


def read_source(data: DataConfig) -> Source:
    """The documents that a recipe takes: num_titles (or all), then heldout_titles more."""
    wanted = None if data.num_titles == "all" else data.num_titles + data.heldout_titles
    if data.source == "synthetic":  # its titles are clean, and come in random order
        return Source(Documents.of(sample_titles(wanted or 0, data.seed)), {"source": "synthetic"})
    changes: Counter[str] = Counter()
    rows, origin = _file_rows(data.path, data.column, changes) if data.source == "file" else _hub_rows(data)
    # what Dataset.shuffle(seed) does
    order = np.random.default_rng(data.seed).permutation(len(rows)) if data.shuffle else None
    titles = data.source == "hackernews"
    documents = Documents.of(islice(cleaned(rows.rows(order), changes, data.normalise, one_line=titles), wanted))
    if wanted is not None and len(documents) < wanted:
        raise UserError(_too_few(data, len(documents)))
    return Source(documents, origin, changes)


def read_prepared(data: DataConfig, target: Path) -> Source:
    """The documents of a prepared corpus, written into the file `target` and mapped from there."""
    folder = Path(data.path[0])
    wanted = None if data.num_titles == "all" else data.num_titles
    manifest = open_manifest(folder)
    there = sum(split["documents"] for split in manifest["splits"].values())
    if wanted is not None and wanted > there:
        raise UserError(
            f"{folder} has {there:,} documents, fewer than data.num_titles = {wanted:,} asks for; give --data.num-titles "
            f"{there} or all"
        )
    documents, train, group_D, changes = write_documents(
        folder, target, data.seed, shuffle=data.shuffle, normalise=data.normalise, wanted=wanted
    )
    inputs = [{key: value for key, value in each.items() if key != "listed"} for each in manifest["inputs"]]
    origin = {"source": "corpus", "name": manifest["name"], "corpus": manifest["sha256"], "inputs": inputs}
    return Source(documents, origin, changes, train, group_D)


def documents_from_files(
    paths: Sequence[str], column: str, normalise: Sequence[str] = (), *, one_line: bool = False
) -> Source:
    """Every document of some files, cleaned and normalised, in order; as titles, where each is one line."""
    changes: Counter[str] = Counter()
    rows, origin = _file_rows(paths, column, changes)
    documents = Documents.of(cleaned(rows.rows(), changes, normalise, one_line=one_line))
    if not documents:
        raise UserError(f"{', '.join(paths)}: there is no document to read")
    return Source(documents, origin, changes)


def _file_rows(paths: Sequence[str], column: str, changes: Counter[str]) -> tuple[Documents, dict[str, Any]]:
    rows = Documents.of(())
    files = []
    for name in paths:
        found, sha256 = read_column(Path(name), column, changes)
        rows = rows.joined(found)
        size = Path(name).stat().st_size
        files.append({"name": Path(name).name, "rows": len(found), "bytes": size, "sha256": sha256})
    return rows, {"source": "file", "files": files}


def _hub_rows(data: DataConfig) -> tuple[Documents, dict[str, Any]]:
    """The rows of the hub data set, in its own order."""
    table = _hub_table(data)
    if data.column not in table.column_names:
        near = did_you_mean(data.column, table.column_names)
        raise UserError(f"{HUB_DATASET} has no column '{data.column}' (data.column); {near}")
    kind = table.features.arrow_schema.field(data.column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{HUB_DATASET}: column '{data.column}' holds {kind}, not text")
    column: pa.ChunkedArray = table.data.table.column(data.column).cast(pa.large_binary())
    origin = {
        "source": "hackernews",
        "dataset": HUB_DATASET,
        "revision": data.revision,
        "version": _hub_version(table),
    }
    return Documents(column), origin


def _hub_table(data: DataConfig) -> Any:
    """The hub data set, by the `datasets` library: over the network, or from the library's cache of an earlier download."""
    try:
        import datasets
    except ImportError:
        instead = ", or give documents of your own by --data.path FILE"
        raise missing_extra('data.source = "hackernews"', "hub", instead) from None
    try:
        with _no_retries_without_network():
            return datasets.load_dataset(HUB_DATASET, split="train", revision=data.revision)
    except Exception as error:  # the library and what it stands on raise many kinds
        raise UserError(
            f"The data set {HUB_DATASET} could not be loaded ({type(error).__name__}: {error}). It comes over the network; "
            "--data.path FILE takes documents from a file instead"
        ) from None


@contextmanager
def _no_retries_without_network() -> Iterator[None]:
    """Where the hub's name can't be resolved, its library looks at once for an earlier download, instead of after 28 seconds."""
    import datasets
    from huggingface_hub import constants

    switches = ((datasets.config, "HF_HUB_OFFLINE"), (constants, "HF_HUB_OFFLINE"))
    before = [getattr(module, name) for module, name in switches]
    offline = not getproxies() and not _resolves(urlsplit(constants.ENDPOINT).hostname or "")
    try:
        for module, name in switches:
            setattr(module, name, offline or getattr(module, name))
        yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _hub_version(table: Any) -> str | None:
    """What the library caches the rows under: on the hub, the commit they are of, pinned or not."""
    return Path(table.cache_files[0]["filename"]).parent.name if table.cache_files else None


def _too_few(data: DataConfig, found: int) -> str:
    """The sentence for a source with fewer documents than asked for, with what to ask for instead."""
    asked, most = f"data.num_titles = {data.num_titles:,} asks for", found - data.heldout_titles
    if data.heldout_titles:
        asked = f"data.num_titles = {data.num_titles:,} and data.heldout_titles = {data.heldout_titles:,} ask for"
    if most > 1:
        # "all" takes every document, so it leaves none to hold out
        advice = f"give --data.num-titles {most}" + ("" if data.heldout_titles else " or all")
    else:
        advice = "lower --data.heldout-titles" if found > 1 else "training needs two at least"
    return f"{_name(data)} has {found:,} document{'s' * (found != 1)}, fewer than {asked}; {advice}"


def _name(data: DataConfig) -> str:
    return ", ".join(data.path) if data.source == "file" else HUB_DATASET
