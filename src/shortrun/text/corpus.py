"""The corpus: a recipe's titles, split by position, with the manifest that says what exactly they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from shortrun.errors import UserError, did_you_mean
from shortrun.recipe import Data
from shortrun.text.sources import preflight, read_titles
from shortrun.text.synthetic import floor_nats


@dataclass(frozen=True)
class Split:
    """Titles with one purpose."""

    name: str
    titles: Sequence[str]

    def manifest(self) -> dict[str, Any]:
        """Counts and fingerprint; characters and bytes without the titles' ends, the sha256 of the titles a line each."""
        return {
            "titles": len(self.titles),
            "characters": sum(len(title) for title in self.titles),
            "bytes": sum(len(title.encode()) for title in self.titles),
            "sha256": fingerprint(self.titles),
            "duplicates_inside": len(self.titles) - len(set(self.titles)),
        }


@dataclass(frozen=True)
class Corpus:
    """The splits of a recipe's titles. Only `train` is trained on; `tuning` and `heldout` exist where asked for."""

    train: Split
    validation: Split
    tuning: Split | None
    heldout: Split | None
    manifest: dict[str, Any]
    """JSON-ready: source, cleaning, sha256 of all selected titles, each split's counts, duplicates across splits."""

    def split(self, name: str) -> Split:
        """A split by name; raises UserError if the recipe makes none of that name."""
        found = {split.name: split for split in (self.train, self.validation, self.tuning, self.heldout) if split}
        if name not in found:
            why = f" (data.{name}_titles is 0)" if name in ("tuning", "heldout") else ""
            raise UserError(f"This recipe has no split '{name}': {did_you_mean(name, found)}{why}")
        return found[name]


def load_corpus(data: Data) -> Corpus:
    """Reads, cleans and splits by position as Mainrun does: the first int(n * (1 - val_frac)) titles train.

    The tuning titles are cut from the end of those; held-out titles are those beyond num_titles.
    """
    preflight(data)
    source = read_titles(data)
    selected = len(source.titles) if data.num_titles == "all" else data.num_titles
    titles, beyond = source.titles[:selected], source.titles[selected:]
    boundary = int(selected * (1 - data.val_frac))
    if not data.tuning_titles < boundary < selected:
        raise UserError(
            f"{selected} titles with data.val_frac = {data.val_frac} and data.tuning_titles = {data.tuning_titles} leave "
            "nothing to train on or nothing to validate; give more titles"
        )
    cut = boundary - data.tuning_titles
    train, validation = Split("train", titles[:cut]), Split("validation", titles[boundary:])
    tuning = Split("tuning", titles[cut:boundary]) if data.tuning_titles else None
    heldout = Split("heldout", beyond) if data.heldout_titles else None
    splits = [split for split in (train, tuning, validation, heldout) if split]
    manifest: dict[str, Any] = {
        **source.origin,
        "shuffle": data.shuffle and data.source != "synthetic",  # those come in random order
        "seed": data.seed,
        "normalise": list(data.normalise),
        "cleaning": dict(sorted((+source.changes).items())),
        "sha256": fingerprint(titles),
        "splits": {split.name: split.manifest() for split in splits},
        "duplicates_across": {
            f"{later.name} in {earlier.name}": _repeated(later, earlier) for earlier, later in combinations(splits, 2)
        },
    }
    if data.source == "synthetic":
        manifest["floor_nats"] = {split.name: floor_nats(split.titles) for split in splits if split is not train}
    return Corpus(train, validation, tuning, heldout, manifest)


def fingerprint(titles: Sequence[str]) -> str:
    """sha256 of titles joined by newlines, as UTF-8."""
    digest = hashlib.sha256()
    for index, title in enumerate(titles):  # one at a time: joined, they would take several times their memory
        digest.update((title if index == 0 else "\n" + title).encode())
    return digest.hexdigest()


def _repeated(later: Split, earlier: Split) -> int:
    """How many titles of `later` also stand in `earlier`."""
    known = set(earlier.titles)
    return sum(title in known for title in later.titles)
