"""Sources: where a recipe's titles come from, selected exactly as Mainrun selects them.

The rows of a source are put in the order of `datasets.Dataset.shuffle(seed)`, and titles are taken from the front until
there are enough. Cleaning comes after the order, so a blank row never changes which titles follow it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shortrun.errors import UserError, did_you_mean
from shortrun.recipe import Data
from shortrun.text.cleaning import cleaned
from shortrun.text.files import read_column, require_file
from shortrun.text.synthetic import sample_titles

HUB_DATASET = "julien040/hacker-news-posts"


@dataclass(frozen=True)
class Titles:
    """Clean titles in order, where they come from, and what cleaning changed."""

    titles: list[str]
    origin: dict[str, Any]
    changes: Counter[str] = field(default_factory=Counter)


def preflight(data: Data) -> None:
    """Raises UserError for a file that is missing or of no known kind, before anything is read."""
    for name in data.path:
        require_file(Path(name))


def read_titles(data: Data) -> Titles:
    """The titles that a recipe takes: num_titles (or all), then heldout_titles more."""
    wanted = None if data.num_titles == "all" else data.num_titles + data.heldout_titles
    if data.source == "synthetic":
        return Titles(sample_titles(wanted or 0, data.seed), {"source": "synthetic"})
    changes: Counter[str] = Counter()
    rows, origin = _file_rows(data.path, data.column, changes) if data.source == "file" else _hub_rows(data)
    order: Sequence[int] | np.ndarray[Any, Any] = range(len(rows))
    if data.shuffle:
        order = np.random.default_rng(data.seed).permutation(len(rows))  # what Dataset.shuffle(seed) does
    titles = list(islice(cleaned((rows[index] for index in order), changes, data.normalise), wanted))
    if wanted is not None and len(titles) < wanted:
        raise UserError(_too_few(data, len(titles)))
    return Titles(titles, origin, changes)


def titles_from_files(paths: Sequence[str], column: str, normalise: Sequence[str] = ()) -> Titles:
    """Every title of some files, cleaned and normalised, in order."""
    changes: Counter[str] = Counter()
    rows, origin = _file_rows(paths, column, changes)
    titles = list(cleaned(rows, changes, normalise))
    if not titles:
        raise UserError(f"{', '.join(paths)}: there is no title to read")
    return Titles(titles, origin, changes)


def _file_rows(paths: Sequence[str], column: str, changes: Counter[str]) -> tuple[list[str | None], dict[str, Any]]:
    rows: list[str | None] = []
    files = []
    for name in paths:
        found, sha256 = read_column(Path(name), column, changes)
        rows += found
        size = Path(name).stat().st_size
        files.append({"name": Path(name).name, "rows": len(found), "bytes": size, "sha256": sha256})
    return rows, {"source": "file", "files": files}


def _hub_rows(data: Data) -> tuple[list[str | None], dict[str, Any]]:
    """The rows of the hub data set, in its own order. Needs the network, or the library's cache of an earlier download.

    `version` in the origin is what the library caches the rows under: on the hub, the commit they are of, pinned or not.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            'data.source = "hackernews" reads the hub by the `datasets` library: pip install "shortrun[hub]", '
            "or give titles of your own by --data.path FILE"
        ) from None
    try:
        table = datasets.load_dataset(HUB_DATASET, split="train", revision=data.revision)
    except Exception as error:  # the library and what it stands on raise many kinds
        raise UserError(
            f"The data set {HUB_DATASET} could not be loaded ({type(error).__name__}: {error}). It comes over the network; "
            "--data.path FILE takes titles from a file instead"
        ) from None
    if data.column not in table.column_names:
        near = did_you_mean(data.column, table.column_names)
        raise UserError(f"{HUB_DATASET} has no column '{data.column}' (data.column); {near}")
    kind = table.features.arrow_schema.field(data.column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{HUB_DATASET}: column '{data.column}' holds {kind}, not text")
    rows: list[str | None] = table.with_format(None)[data.column][:]
    version = Path(table.cache_files[0]["filename"]).parent.name if table.cache_files else None
    origin = {"source": "hackernews", "dataset": HUB_DATASET, "revision": data.revision, "version": version}
    return rows, origin


def _too_few(data: Data, found: int) -> str:
    """The sentence for a source with fewer titles than asked for, with what to ask for instead."""
    asked, most = f"data.num_titles = {data.num_titles:,} asks for", found - data.heldout_titles
    if data.heldout_titles:
        asked = f"data.num_titles = {data.num_titles:,} and data.heldout_titles = {data.heldout_titles:,} ask for"
    if most > 1:
        # "all" takes every title, so it leaves none to hold out
        advice = f"give --data.num-titles {most}" + ("" if data.heldout_titles else " or all")
    else:
        advice = "lower --data.heldout-titles" if found > 1 else "training needs two at least"
    return f"{_name(data)} has {found:,} title{'s' * (found != 1)}, fewer than {asked}; {advice}"


def _name(data: Data) -> str:
    return ", ".join(data.path) if data.source == "file" else HUB_DATASET
