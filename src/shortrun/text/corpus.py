"""The corpus: a recipe's documents, split by position, with the manifest that says what exactly they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from shortrun.cache import cached
from shortrun.disk import read_json, write_json
from shortrun.errors import UserError, did_you_mean
from shortrun.recipe import DataConfig
from shortrun.text.documents import Documents
from shortrun.text.sources import identify, read_prepared, read_source
from shortrun.text.synthetic import floor_nats

DOCUMENTS = "documents.arrow"


@dataclass(frozen=True)
class Corpus:
    """The documents of a recipe, and the range of each split.

    `train` is trained on, `validation` is scored; `tuning` and `heldout` exist where the recipe asks for them.
    """

    documents: Documents
    ranges: dict[str, tuple[int, int]]
    manifest: dict[str, Any]
    """JSON-ready: source, cleaning, sha256 of all selected documents, each split's counts, duplicates across splits."""

    def split(self, name: str) -> Documents:
        """The documents of a split; raises UserError if the recipe makes none of that name."""
        if name not in self.ranges:
            why = f" (data.{name}_titles is 0)" if name in ("tuning", "heldout") else ""
            raise UserError(f"This recipe has no split '{name}': {did_you_mean(name, self.ranges)}{why}")
        return self.documents[slice(*self.ranges[name])]

    @property
    def sha256(self) -> str:
        """Fingerprint of the selected documents, those held out left aside."""
        return str(self.manifest["sha256"])


def load_corpus(data: DataConfig) -> Corpus:
    """The corpus of a recipe, from the cache or made and put there.

    Splits are cut by position as Mainrun cuts them: the first int(n * (1 - val_frac)) documents train. The tuning documents
    are cut from the end of those; held-out documents are those beyond num_titles. A prepared corpus has its own validation
    documents, and a group of near-duplicates that the cut would go through is tuned on as a whole. Raises UserError where the
    data can't be read or leaves a split empty.
    """
    made_from = {"data": data.model_dump(mode="json", exclude={"path"}), "rows": identify(data)}
    where = ", ".join(Path(name).name for name in data.path) or data.source
    folder = cached("corpus", made_from, where, lambda folder: _write(data, folder))
    record = read_json(folder / "corpus.json")
    ranges = {name: (start, stop) for name, (start, stop) in record["ranges"].items()}
    return Corpus(Documents.open(folder / DOCUMENTS), ranges, record["manifest"])


def _write(data: DataConfig, folder: Path) -> None:
    """Reads, cleans and splits a recipe's documents into a folder."""
    source = read_prepared(data, folder / DOCUMENTS) if data.source == "corpus" else read_source(data)
    documents = source.documents
    selected = len(documents) if data.num_titles == "all" or source.train else data.num_titles
    boundary = source.train or int(selected * (1 - data.val_frac))
    cut = boundary - data.tuning_titles
    while source.group_D is not None and 0 < cut < boundary and source.group_D[cut] == source.group_D[cut - 1]:
        cut -= 1
    if not 0 < cut <= boundary < selected:
        share = "" if source.train else f"data.val_frac = {data.val_frac} and "
        raise UserError(
            f"{selected} document{'s' * (selected != 1)} with {share}data.tuning_titles = "
            f"{data.tuning_titles} leave{'s' * (selected == 1)} nothing to train on or nothing to validate; give more of them"
        )
    ranges = {
        "train": (0, cut),
        "tuning": (cut, boundary),
        "validation": (boundary, selected),
        "heldout": (selected, len(documents)),
    }
    ranges = {name: (start, stop) for name, (start, stop) in ranges.items() if start < stop}
    splits = {name: documents[start:stop] for name, (start, stop) in ranges.items()}
    manifest: dict[str, Any] = {
        **source.origin,
        "shuffle": data.shuffle and data.source != "synthetic",  # those come in random order
        "seed": data.seed,
        "normalise": list(data.normalise),
        "cleaning": dict(sorted((+source.changes).items())),
        "sha256": documents_sha256(documents[:selected]),
        "splits": {name: _counts(split) for name, split in splits.items()},
        "duplicates_across": {
            f"{later} in {earlier}": splits[later].also_in(splits[earlier])
            for earlier, later in combinations(splits, 2)
        },
    }
    if data.source == "synthetic":
        manifest["floor_nats"] = {name: floor_nats(split) for name, split in splits.items() if name != "train"}
    if not (folder / DOCUMENTS).exists():
        documents.save(folder / DOCUMENTS)
    write_json(folder / "corpus.json", {"ranges": ranges, "manifest": manifest})


def _counts(split: Documents) -> dict[str, Any]:
    """Counts and fingerprint; characters and bytes are those of the texts, without the documents' ends."""
    return {
        "documents": len(split),
        "characters": int(split.lengths_D().sum()),
        "bytes": split.bytes(),
        "sha256": documents_sha256(split),
        "duplicates_inside": split.repeated(),
    }


def documents_sha256(documents: Iterable[str]) -> str:
    """sha256 of documents joined by newlines, as UTF-8.

    A newline inside a document is hashed as a NUL, which no clean document has: where documents end is part of what they are.
    """
    digest = hashlib.sha256()
    for index, text in enumerate(documents):  # one at a time: joined, they would take several times their memory
        one_line = text.replace("\n", "\0")
        digest.update((one_line if index == 0 else "\n" + one_line).encode())
    return digest.hexdigest()
