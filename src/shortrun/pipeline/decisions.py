"""What becomes of each document that the steps left: a shard of a split, or a reason to leave it out.

Documents of validation inputs come first in the order of units. So the first document of a group is one of them where the
group has any, and whatever else belongs to such a group leaves training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortrun.disk import read_json, write_json
from shortrun.errors import UserError, counted
from shortrun.pipeline.corpus_file import CorpusFile
from shortrun.pipeline.draw import drawn
from shortrun.pipeline.fingerprints import BYTES, CHARACTERS
from shortrun.pipeline.groups import Corpus, Numbers, first_equal, near_groups
from shortrun.pipeline.steps import EXAMPLE_CHARACTERS, MOST_EXAMPLES, Reason, Tally
from shortrun.pipeline.work import Place, rows_of

SPLITS = ("train", "validation")
HELD, EQUAL, NEAR = -1, -2, -3
STEPS = {
    HELD: ("held out", "like a document of a validation input"),
    EQUAL: ("exact duplicates", "equal to an earlier document"),
    NEAR: ("near-duplicates", "nearly equal to an earlier document"),
}
"""The step that gives each code below 0, and its reason, in the order of the steps."""
CODES, GROUPS = "codes", "groups"
"""The arrays with a code and with the first document of its group for each document."""
RESULT = "decisions.json"


@dataclass
class Shard:
    """One file of the corpus, before it is written."""

    code: int
    """Twice its number in its split, plus 1 for validation: the code of its documents."""
    first_unit: int
    last_unit: int
    documents: int = 0
    bytes: int = 0

    @property
    def split(self) -> str:
        return SPLITS[self.code % 2]


@dataclass
class Decisions:
    """What was decided, but for each document's code, which lies in a file."""

    tallies: dict[str, Tally]
    shards: list[Shard] = field(default_factory=list)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of each split its documents, characters, bytes and groups of near-duplicates."""
    lengths: dict[str, list[int]] = field(default_factory=dict)
    """How many documents of each split have 1, 2 to 3, 4 to 7, ... characters."""

    def save(self, place: Place) -> None:
        write_json(place.folder / RESULT, asdict(self))

    @classmethod
    def open(cls, place: Place) -> Decisions:
        values = read_json(place.folder / RESULT)
        tallies = {name: Tally.of(tally) for name, tally in values["tallies"].items()}
        return cls(**{**values, "tallies": tallies, "shards": [Shard(**shard) for shard in values["shards"]]})


def decide(corpus: Corpus, file: CorpusFile) -> Decisions:
    """Finds duplicates and groups and draws the splits; what is found lies in the working folder then.

    Raises UserError where nothing is left to train on.
    """
    equal = first_equal(corpus)
    near = file.duplicates.near != "off"
    groups = near_groups(corpus, file.duplicates.bands if near else 0, equal)
    decisions = _Placing(corpus, file, equal, groups).placed(drawn(corpus, file, groups))
    if not decisions.splits["train"]["documents"]:
        raise UserError(
            f"There is nothing to train on: the steps leave {counted(corpus.documents, 'document')}, of which "
            f"{decisions.splits['validation']['documents']:,} validate and the others are duplicates"
        )
    decisions.save(corpus.place)
    return decisions


class _Placing:
    """Gives documents their codes, a unit at a time, and counts."""

    def __init__(self, corpus: Corpus, file: CorpusFile, equal: Numbers, groups: Numbers) -> None:
        self.corpus, self.file, self.equal, self.groups = corpus, file, equal, groups
        self.held_stop = corpus.starts[sum(file.input[each].split == "validation" for each in corpus.inputs)]
        self.does = {HELD: self.held_stop > 0, EQUAL: file.duplicates.exact, NEAR: file.duplicates.near == "drop"}
        self.examples: dict[int, list[int]] = {code: [] for code, does in self.does.items() if does}
        self.tallies = {code: Tally() for code in self.examples}
        self.splits = {name: {"documents": 0, "characters": 0, "bytes": 0, "groups": 0} for name in SPLITS}
        self.lengths = {name: np.zeros(64, np.int64) for name in SPLITS}
        self.shards: dict[int, Shard] = {}

    def placed(self, validates: NDArray[np.bool_]) -> Decisions:
        codes: Any = self.corpus.array(CODES, np.int32)
        for unit, numbers in self.corpus.ranges():
            own = np.arange(numbers.start, numbers.stop)
            group = np.asarray(self.groups[numbers])
            code = np.where(validates[group], 1, 0).astype(np.int32)
            if self.does[NEAR]:
                code[group != own] = NEAR
            if self.does[EQUAL]:
                code[self.equal[numbers] != own] = EQUAL
            code[(group < self.held_stop) & (own >= self.held_stop)] = HELD
            characters, size = (self.corpus.column(unit, each).astype(np.int64) for each in (CHARACTERS, BYTES))
            self._count(code, own, characters)
            for kind, name in enumerate(SPLITS):
                mine = code == kind
                split = self.splits[name]
                code[mine] = self._sharded(unit, split["bytes"], size[mine], kind)
                split["documents"] += int(mine.sum())
                split["characters"] += int(characters[mine].sum())
                split["bytes"] += int(size[mine].sum())
                split["groups"] += int((group == own)[mine].sum())
                self.lengths[name] += np.bincount(np.log2(characters[mine]).astype(int), minlength=64)
            codes[numbers] = code
        self._add_examples()
        return Decisions(
            {STEPS[code][0]: tally for code, tally in self.tallies.items()},
            [self.shards[code] for code in sorted(self.shards, key=lambda code: (code % 2, code))],
            self.splits,
            {name: np.trim_zeros(bins, "b").tolist() for name, bins in self.lengths.items()},
        )

    def _count(self, code: NDArray[np.int32], own: Numbers, characters: Numbers) -> None:
        """Adds a unit's documents to the tallies of the steps."""
        left = np.ones(len(code), bool)
        for each, tally in self.tallies.items():
            tally.documents_in += int(left.sum())
            tally.characters_in += int(characters[left].sum())
            gone = code == each
            if gone.any():
                reason = tally.reasons.setdefault(STEPS[each][1], Reason())
                reason.documents += int(gone.sum())
                reason.characters += int(characters[gone].sum())
                self.examples[each] += own[gone][: MOST_EXAMPLES - len(self.examples[each])].tolist()
            left &= ~gone
            tally.documents_out += int(left.sum())
            tally.characters_out += int(characters[left].sum())

    def _sharded(self, unit: int, before: int, size: Numbers, kind: int) -> NDArray[np.int64]:
        """The shards of a split's documents in a unit, which has `before` bytes so far."""
        codes = 2 * ((before + np.cumsum(size) - size) // self.file.output.shard_bytes) + kind
        for code in np.unique(codes).tolist():
            shard = self.shards.setdefault(code, Shard(code, unit, unit))
            shard.last_unit = unit
            shard.documents += int((codes == code).sum())
            shard.bytes += int(size[codes == code].sum())
        return codes

    def _add_examples(self) -> None:
        """Puts the first duplicates beside what they are like."""
        like = {
            number: int(self.equal[number] if code == EQUAL else self.groups[number])
            for code, numbers in self.examples.items()
            for number in numbers
        }
        found = dict(self._rows({*like, *like.values()}))
        for code, numbers in self.examples.items():
            for number in numbers:
                text, place = found[number]
                example = {
                    "place": place,
                    "detail": f"like {found[like[number]][1]}",
                    "text": text[:EXAMPLE_CHARACTERS],
                }
                self.tallies[code].reasons[STEPS[code][1]].examples.append(example)

    def _rows(self, wanted: set[int]) -> Iterator[tuple[int, tuple[str, str]]]:
        for unit in sorted({self.corpus.unit_of(number) for number in wanted}):
            for number, row in enumerate(rows_of(self.corpus.place, unit), self.corpus.starts[unit]):
                if number in wanted:
                    yield number, row
