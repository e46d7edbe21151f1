"""The parts of the corpus pipeline: cuts of files, duplicates against a plain computation, each rule at its limit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shortrun.errors import UserError
from shortrun.pipeline import corpus_file
from shortrun.pipeline import rules as limits
from shortrun.pipeline.corpus_file import Input
from shortrun.pipeline.draw import mixed
from shortrun.pipeline.files import FoundFile
from shortrun.pipeline.fingerprints import BANDS, pieces
from shortrun.pipeline.groups import Corpus, first_equal, near_groups
from shortrun.pipeline.quality import C4, FineWeb, Gopher, Links
from shortrun.pipeline.readers import read_unit
from shortrun.pipeline.records import Record
from shortrun.pipeline.repair import Language, Repair
from shortrun.pipeline.repetition import Repetition
from shortrun.pipeline.steps import Rejected, Step
from shortrun.pipeline.text import Text
from shortrun.pipeline.units import plan_file
from shortrun.pipeline.work import Place
from tests.corpus_inputs import prose

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def records_of(root: Path, name: str, unit_bytes: int, **about: str) -> list[Record]:
    """All records of a file, read in units of a size."""
    kind = Path(name).suffix
    given_input = Input(path=(name,), **about)  # type: ignore[arg-type]
    planned = plan_file(root, FoundFile(0, name, kind, None, False), given_input, unit_bytes)
    found = [record for unit in planned.units for record in read_unit(unit, given_input, root, 1_000_000)]
    assert all(isinstance(record, Record) for record in found)
    return found  # type: ignore[return-value]


line = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20)


@in_one_folder
@given(st.lists(line, max_size=30), st.integers(1, 60), st.sampled_from(["\n", "\r\n"]), st.booleans())
@example(["a"], 1, "\n", False)
def test_lines_are_the_same_wherever_a_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], size: int, end: str, last: bool
) -> None:
    monkeypatch.setattr("shortrun.pipeline.units.BLOCK", 7)
    monkeypatch.setattr("shortrun.pipeline.readers.BLOCK", 5)
    (tmp_path / "a.txt").write_bytes((end.join(lines) + end * last).encode())
    whole = (end.join(lines) + end * last).encode().decode().split("\n")
    expected = [(number, text.rstrip("\r")) for number, text in enumerate(whole, 1)]
    if expected[-1][1] == "":
        expected.pop()
    found = [(record.place, record.content) for record in records_of(tmp_path, "a.txt", size, document="line")]
    assert found == [(f"a.txt, line {number}", text.removeprefix("\ufeff")) for number, text in expected]


@in_one_folder
@given(st.integers(0, 40), st.integers(1, 7), st.integers(1, 400))
def test_rows_are_the_same_wherever_a_table_is_cut(tmp_path: Path, rows: int, group: int, size: int) -> None:
    texts = [f"text {number}" for number in range(rows)]
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), tmp_path / "a.parquet", row_group_size=group)
    found = [(record.place, record.content) for record in records_of(tmp_path, "a.parquet", size)]
    assert found == [(f"a.parquet, row {number}", text) for number, text in enumerate(texts, 1)]


def test_hub_data_sets_are_read_in_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    from shortrun.pipeline.prepare import prepare_corpus
    from tests.corpus_inputs import corpus_file

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub").mkdir()
    texts = [prose(seed) for seed in range(30)]
    datasets.Dataset.from_dict({"text": texts}).to_parquet(tmp_path / "hub" / "train.parquet")
    file = corpus_file(tmp_path, {"hub": str(tmp_path / "hub")})
    manifest = prepare_corpus("hub", file, tmp_path / "out")
    assert manifest["inputs"][0]["rows"] == 30
    assert sum(split["documents"] for split in manifest["splits"].values()) == 30
    with pytest.raises(UserError, match='no column "txt"; did you mean'):
        prepare_corpus("hub", corpus_file(tmp_path, {"hub": str(tmp_path / "hub"), "column": "txt"}), tmp_path / "o")
    with pytest.raises(UserError, match="could not be loaded"):
        prepare_corpus("hub", corpus_file(tmp_path, {"hub": str(tmp_path / "none")}), tmp_path / "o")


@dataclass(frozen=True)
class Made(Corpus):
    """Documents whose fingerprints are given."""

    rows: NDArray[np.uint64]

    def column(self, unit: int, column: int) -> NDArray[np.uint64]:
        return self.rows[self.starts[unit] : self.starts[unit + 1], column]


@in_one_folder
@given(
    st.lists(st.tuples(*[st.integers(0, 6)] * 4), max_size=25),
    st.lists(st.integers(0, 25), max_size=3),
    st.integers(1, 30),
)
def test_groups_are_those_of_a_plain_search(
    tmp_path: Path, fingerprints: list[tuple[int, int, int, int]], cuts: list[int], most_rows: int
) -> None:
    """Equal texts share all bands; two texts are near where one band agrees; groups are what hangs together."""
    count = len(fingerprints)
    rows = np.zeros((count, BANDS + 3), np.uint64)
    for number, (text, *_) in enumerate(fingerprints):
        first = next(index for index, other in enumerate(fingerprints) if other[0] == text)
        rows[number, 0] = text
        rows[number, BANDS:] = fingerprints[first][1:]
    starts = tuple(sorted([0, *(min(cut, count) for cut in cuts), count]))
    corpus = Made(Place(tmp_path, tmp_path), starts, (0,) * (len(starts) - 1), rows)
    equal = first_equal(corpus, most_rows)
    texts = rows[:, 0].tolist()
    assert equal.tolist() == [texts.index(text) for text in texts]
    groups = near_groups(corpus, 3, equal, most_rows)
    expected = list(range(count))
    for _ in range(count):
        for one in range(count):
            for other in range(count):
                if (rows[one, BANDS:] == rows[other, BANDS:]).any():
                    expected[one] = expected[other] = min(expected[one], expected[other])
    assert groups.tolist() == expected


def test_draws_are_even_and_differ_with_the_seed() -> None:
    hashes = np.arange(100_000, dtype=np.uint64)
    shares = [float((mixed(hashes, seed) < np.uint64(2**64 // 20)).mean()) for seed in (0, 1, 1337)]
    assert all(abs(share - 0.05) < 0.004 for share in shares)
    assert len({tuple((mixed(hashes[:100], seed) < np.uint64(2**62)).tolist()) for seed in (0, 1, 1337)}) == 3


def test_pieces_are_runs_of_words_and_of_letters_where_words_have_no_spaces() -> None:
    assert pieces("The cat, the CAT sat.", 3) == ["the cat the", "cat the cat", "the cat sat"]
    assert pieces("one two", 3) == ["one two"]
    assert pieces("日本語です", 3) == ["日 本 語", "本 語 で", "語 で す"]
    assert pieces("!?", 3) == ["!?"]


def cases() -> Iterator[tuple[str, Step, str, str | None]]:
    """A rule, a text, and the reason that it gives; None where it lets the text pass."""
    good = prose(1)
    words = " ".join(f"word{number} the of" for number in range(40))
    gopher = Gopher(limits.Gopher())
    yield "prose", gopher, good, None
    yield "few", gopher, "that have " * 24 + "word", "too few words"
    yield "enough", gopher, "that have " * 24 + "longer words", None
    yield "short", gopher, "a b the of " * 20, "words too short or too long"
    yield "hashes", gopher, words + " #" * 14, "too many hashes"
    yield "some hashes", gopher, words + " #" * 11, None
    yield "ellipses", gopher, words + " ...…" * 8, "too many ellipses"
    yield "bullets", gopher, "\n".join(f"• the number of {word}" for word in good.split()), "lines with bullets"
    yield "cut off", gopher, good.replace("\n", "...\n"), "lines that end in an ellipsis"
    yield "numbers", gopher, words + " 12345" * 40, "too few words with a letter"
    yield "no stop words", gopher, "hello there world " * 20, "too few stop words"
    repetition = Repetition(limits.Repetition())
    yield "prose", repetition, good, None
    yield "lines", repetition, "\n".join(["a line", "b line"] * 5 + [good]), "repeated lines"
    yield (
        "long lines",
        repetition,
        "\n".join([f"{number}" for number in range(9)] + ["x" * 99] * 2),
        "characters in repeated lines",
    )
    yield "paragraphs", repetition, "\n\n".join(["one", "one", "two"]), "repeated paragraphs"
    yield "two words", repetition, " ".join(f"{number} very much" for number in range(50)), "one run of 2 words"
    yield "five words", repetition, f"{good} {' '.join(good.split()[:40])}", "repeated runs of 5 words"
    yield "empty", repetition, "", None
    c4 = C4(limits.C4())
    sentences = "A first one here. A second one. A third one. A fourth one. A fifth one."
    yield "prose", c4, sentences, None
    yield "four", c4, "A first one here. A second one. A third one. A fourth one.", "too few sentences"
    yield "code", c4, sentences + " {", "curly bracket"
    yield "filler", c4, sentences + " Lorem ipsum", "lorem ipsum"
    yield "menu", c4, "Home\nAbout us\nContact", "no line left"
    fineweb = FineWeb(limits.FineWeb())
    long = "A line of more than thirty characters"
    yield "prose", fineweb, good, None
    yield "no points", fineweb, "\n".join([f"{long} {number}" for number in range(9)]), "lines without punctuation"
    yield "one point", fineweb, "\n".join([f"{long} {number}" for number in range(7)] + [f"{long}."]), None
    yield "list", fineweb, "\n".join([f"Item {number}." for number in range(7)] + [long, long]), "short lines"
    yield (
        "again",
        fineweb,
        "\n".join([f"{long}."] * 2 + [f"{long} {number}." for number in range(6)]),
        "characters in repeated lines",
    )
    links = Links(limits.Links())
    yield "prose", links, good, None
    yield "links", links, "See https://example.com/a/b and www.example.org/c", "links"
    yield "notice", links, "All rights reserved.\n\nSome text.", "boilerplate"
    yield "one of three", links, "All rights reserved.\n\nSome text.\n\nMore text.", None


@pytest.mark.parametrize(
    ("step", "text", "reason"), [case[1:] for case in cases()], ids=[f"{case[1].name}: {case[0]}" for case in cases()]
)
def test_a_rule_rejects_what_its_source_says(step: Step, text: str, reason: str | None) -> None:
    made = step(Text(text))
    assert (made.reason if isinstance(made, Rejected) else None) == reason


def test_c4_takes_lines_out() -> None:
    sentences = "A first one here. A second one. A third one.\n\nA fourth one. A fifth one."
    made = C4(limits.C4())(
        Text(f"Menu\n{sentences}\nPlease enable JavaScript here.\nRead our Privacy Policy.\nno end here")
    )
    assert isinstance(made, Text)
    assert made.text == f"{sentences}\nno end here"
    strict = C4(limits.C4(terminal_punctuation=True))(Text(f"{sentences}\nno end here"))
    assert isinstance(strict, Text)
    assert strict.text == sentences


def greedy(words: list[str], length: int) -> int:
    """Characters in repeated runs, plainly."""
    seen, found, at = set(), 0, 0
    while at + length <= len(words):
        run = tuple(words[at : at + length])
        if run in seen:
            found += sum(map(len, run))
            at += length
        else:
            seen.add(run)
            at += 1
    return found


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), max_size=60))
def test_repetition_is_what_a_plain_count_says(words: list[str]) -> None:
    text = " ".join(words)
    only = limits.Repetition(lines=1, paragraphs=1, line_characters=1, paragraph_characters=1, top=())
    made = Repetition(only)(Text(text))
    over = [
        length for length, limit in enumerate(only.repeated, 5) if greedy(words, length) > limit * max(len(text), 1)
    ]
    assert (made.reason if isinstance(made, Rejected) else None) == (
        f"repeated runs of {over[0]} words" if over else None
    )


def test_repair_undoes_wrong_decoding_and_leaves_what_is_right() -> None:
    repair = Repair(corpus_file.Repair())
    right = "It’s “right” – ﬁne, Ｆｕｌｌ, &amp;, e\u0301, naïve\ttab\nline"
    assert isinstance(made := repair(Text(right)), Text)
    assert made.text == right
    wrong = Text("  It\u00e2\u20ac\u2122s wrong\x00\x07\r\nnext\u2028line\ufeff ")
    assert isinstance(made := repair(wrong), Text)
    assert made.text == "It’s wrong\nnext\nline"
    assert isinstance(made := Repair(corpus_file.Repair(ftfy=False, control_characters=False))(Text("\x07â€™\r")), Text)
    assert made.text == "\x07â€™"
    assert repair(Text(" \x00\x01")) == Rejected("blank")


def test_languages_are_told_apart() -> None:
    english = Language(corpus_file.Language(keep=("en",)))
    german = "Das ist ein langer deutscher Satz über das Wetter, die Berge und die Leute in der Stadt."
    assert isinstance(
        english(Text("This is a long English sentence about the weather, the mountains and people.")), Text
    )
    assert english(Text(german)) == Rejected("language de", "probability 1.00")
    assert isinstance(Language(corpus_file.Language(keep=("en", "de")))(Text(german)), Text)
    with pytest.raises(UserError, match="is no language"):
        Language(corpus_file.Language(keep=("english",)))


def test_json_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    texts = ["one", "two\nlines\r\u2028", "日本 🚀", "\ufeff"]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts), encoding="utf-8"
    )
    assert [record.content for record in records_of(tmp_path, "a.jsonl", 10)] == texts
