"""Documents from files, the hub and the grammar: read, selected and cleaned as promised; bad input gets a sentence."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shortrun.errors import UserError
from shortrun.recipe import DataConfig
from shortrun.text import sources
from shortrun.text.cleaning import clean, cleaned
from shortrun.text.corpus import load_corpus
from shortrun.text.sources import documents_from_files, identify, read_source
from shortrun.text.synthetic import sample_titles

UNTOUCHED = [
    "two  spaces",
    "a\u00a0b",
    "👩\u200d🚀 🇨🇭",
    "日本語のタイトル",
    "قصة قصيرة",
    "e\u0301",
    "<eos> and <pad>",
    'say "x", y',
]


def as_txt(documents: Sequence[str]) -> bytes:
    return "".join(document + "\n" for document in documents).encode()


def as_csv(documents: Sequence[str], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([("id", "title"), *enumerate(documents)])
    return text.getvalue().encode()


def as_tsv(documents: Sequence[str]) -> bytes:
    return as_csv(documents, "\t")


def as_jsonl(documents: Sequence[str | None]) -> bytes:
    return "".join(
        json.dumps({"id": 1, "title": document}, ensure_ascii=False) + "\n" for document in documents
    ).encode()


def as_parquet(documents: Sequence[str | None]) -> bytes:
    return parquet(pa.table({"id": list(range(len(documents))), "title": pa.array(documents, pa.string())}))


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


WRITERS: dict[str, Callable[[Sequence[str]], bytes]] = {
    ".txt": as_txt,
    ".csv": as_csv,
    ".tsv": as_tsv,
    ".jsonl": as_jsonl,
    ".parquet": as_parquet,
}


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def of_file(*paths: str, **fields: object) -> DataConfig:
    return of_hub(path=paths, **{"num_titles": "all", "shuffle": False, **fields})


def of_hub(**fields: object) -> DataConfig:
    return DataConfig.model_validate(fields)


# Cleaning


def by_character(text: str, *, one_line: bool) -> str:
    """What cleaning promises, from Unicode's categories: the reference for `clean`."""
    text = text.strip()
    if one_line:
        text = re.sub("[\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029]+", " ", text)
    return "".join(
        "\ufffd" if unicodedata.category(letter) == "Cs" else letter for letter in text if letter != "\0"
    ).strip()


any_text = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates too


@given(any_text | st.text(st.sampled_from("ab \t\r\n\x00\x1b\x1f\x85\u2028\ud800\u00a0"), max_size=12), st.booleans())
def test_clean_does_what_it_says_and_only_once(text: str, one_line: bool) -> None:
    once = clean(text, Counter(), one_line=one_line)
    assert once == by_character(text, one_line=one_line)
    again: Counter[str] = Counter()
    assert clean(once, again, one_line=one_line) == once
    assert not +again


@pytest.mark.parametrize(
    ("text", "expected", "changes"),
    [
        ("a\0b\0\0c", "abc", {"nul_characters": 3}),
        ("\x08a\x11b\x91c", "\x08a\x11b\x91c", {}),
        ("x\ud800y", "x\ufffdy", {"lone_surrogates": 1}),
        ("  ends \u00a0", "ends", {}),
        *((text, text, {}) for text in UNTOUCHED),
    ],
)
@pytest.mark.parametrize("one_line", [True, False], ids=["titles", "documents"])
def test_each_kind_of_change_is_made_and_counted(
    text: str, expected: str, changes: dict[str, int], one_line: bool
) -> None:
    counts: Counter[str] = Counter()
    assert clean(text, counts, one_line=one_line) == expected
    assert +counts == changes


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("one\ntwo", "one two"),
        ("one\r\ntwo\tthree", "one two three"),
        ("one\u2028two\x85three", "one two three"),
        ("one\n\n\ntwo\0", "one two"),
    ],
)
def test_a_title_is_one_line_and_a_document_keeps_its_lines(title: str, expected: str) -> None:
    counts: Counter[str] = Counter()
    assert clean(title, counts, one_line=True) == expected
    assert counts["line_breaks"] == 1
    assert clean(title, counts, one_line=False) == title.replace("\0", "")
    assert counts["line_breaks"] == 1


def test_blank_and_missing_documents_are_dropped_and_counted() -> None:
    counts: Counter[str] = Counter()
    assert list(cleaned(["a", None, "", " \t\n", "\0", "a"], counts)) == ["a", "a"]
    assert (counts["missing"], counts["blank"]) == (1, 3)


# Reading


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("ending", WRITERS)
def test_every_kind_of_file_gives_the_same_documents(ending: str, zipped: bool, tmp_path: Path) -> None:
    documents = [*UNTOUCHED, "x" * 100_000, "again", "again"]
    content = WRITERS[ending](documents)
    if zipped:
        ending, content = ending + ".gz", gzip.compress(content, mtime=0)
    found = documents_from_files([written(tmp_path / f"my.titles{ending}", content)], "title")
    assert found.documents == documents
    digest = hashlib.sha256(content).hexdigest()
    record = {"name": f"my.titles{ending}", "rows": len(documents), "bytes": len(content), "sha256": digest}
    assert found.origin == {"source": "file", "files": [record]}
    assert not +found.changes


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
@example(["\r", "a\r\nb", "\ufeff", '"', "\0", "null", "\u2028x"])
@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv", ".tsv"])
def test_any_text_comes_back_up_to_cleaning(
    tmp_path_factory: pytest.TempPathFactory, ending: str, texts: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"round-trip{ending}"
    written(path, WRITERS[ending](["the first", *texts]))
    if ending in {".csv", ".tsv"} and too_many_nuls(path):
        return  # rightly taken for a binary file
    found = read_source(of_file(str(path)))
    assert found.documents == list(cleaned(["the first", *texts], Counter()))


def too_many_nuls(path: Path) -> bool:
    return path.read_bytes().count(0) > 0.1 * path.stat().st_size


def test_files_are_read_in_the_order_given(tmp_path: Path) -> None:
    first = written(tmp_path / "b.txt", b"one\ntwo\n")
    second = written(tmp_path / "a.jsonl", as_jsonl(["three"]))
    found = documents_from_files([first, second], "title")
    assert found.documents == ["one", "two", "three"]
    assert [file["rows"] for file in found.origin["files"]] == [2, 1]
    assert documents_from_files([second, first], "title").documents == ["three", "one", "two"]


def test_the_column_is_chosen_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", b"headline,url\nA story,http://a\n")
    assert documents_from_files([path], "headline").documents == ["A story"]
    assert documents_from_files([path], "url").documents == ["http://a"]


@pytest.mark.parametrize("ending", [".txt", ".csv", ".tsv", ".jsonl"])
def test_a_byte_order_mark_and_crlf_are_no_part_of_a_document(ending: str, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + WRITERS[ending](["one", "two"]).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    found = documents_from_files([written(tmp_path / f"x{ending}", content)], "title")
    assert found.documents == ["one", "two"]
    assert not +found.changes


@pytest.mark.parametrize("ending", [".txt", ".csv", ".tsv", ".jsonl"])
def test_broken_utf8_becomes_a_replacement_character_and_is_counted(ending: str, tmp_path: Path) -> None:
    content = WRITERS[ending](["a café in Zürich, one of the good ones", "already \ufffd"])
    path = written(tmp_path / f"x{ending}", content.replace("é".encode(), b"\xe9").replace("ü".encode(), b"\xff"))
    found = documents_from_files([path], "title")
    assert found.documents == ["a caf\ufffd in Z\ufffdrich, one of the good ones", "already \ufffd"]
    assert +found.changes == {"invalid_utf8": 2}


def test_controls_nulls_and_surrogates_in_files_are_cleaned_and_counted(tmp_path: Path) -> None:
    rows = [r'"nul \u0000 and tab\tbreak\n"', r'"lone \ud83d half"', r'"whole \ud83d\ude00"', "null", '""', '" \\n"']
    content = "".join(f'{{"title": {row}}}\n' for row in rows)
    found = documents_from_files([written(tmp_path / "x.jsonl", content.encode())], "title")
    assert found.documents == ["nul  and tab\tbreak", "lone \ufffd half", "whole 😀"]
    counts = {"nul_characters": 1, "lone_surrogates": 1, "missing": 1, "blank": 2}
    assert +found.changes == counts
    nulls = documents_from_files([written(tmp_path / "x.parquet", as_parquet(["a", None, " ", "b"]))], "title")
    assert nulls.documents == ["a", "b"]
    assert +nulls.changes == {"missing": 1, "blank": 1}
    text = documents_from_files([written(tmp_path / "x.txt", b"a title\0 with one\n\n  \nb\x0cc")], "title")
    assert text.documents == ["a title with one", "b\x0cc"]
    assert +text.changes == {"nul_characters": 1, "blank": 2}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_very_long_document_is_kept(ending: str, tmp_path: Path) -> None:
    csv.field_size_limit(131_072)  # Python's default, which another test may have lifted
    document = "long " * 50_000 + "end"
    path = written(tmp_path / f"x{ending}", WRITERS[ending]([document]))
    assert documents_from_files([path], "title").documents == [document]


def test_a_dictionary_encoded_column_is_text(tmp_path: Path) -> None:
    table = pa.table({"title": pa.array(["a", None, "b", "a"]).dictionary_encode()})
    assert documents_from_files([written(tmp_path / "x.parquet", parquet(table))], "title").documents == ["a", "b", "a"]


def test_a_field_in_quotes_may_span_lines_in_csv(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", b'title,x\n"one\ntwo",1\n\nthree,2\n')
    found = documents_from_files([path], "title")
    assert found.documents == ["one\ntwo", "three"]
    assert +found.changes == {"blank": 1}


# Bad files

BROKEN_UTF8 = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
TRUNCATED = gzip.compress(as_txt([str(n) for n in range(1000)]))[:-20]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.txt", b"", "x.txt is empty"),
        ("x.csv", b" \n\n", "x.csv is empty"),
        ("x.txt.gz", gzip.compress(b"", mtime=0), "x.txt.gz is empty"),
        ("x.txt", b"\xef\xbb\xbf", "x.txt is empty"),
        ("x.csv", b"title,id\n", "x.csv: there is no document to read"),
        ("x.parquet", as_parquet([]), "x.parquet: there is no document to read"),
        ("x.csv", b"titel,id\na,1\n", "x.csv: there is no column 'title'.*did you mean 'titel'"),
        ("x.csv", b"id,when\n1,2\n", "x.csv: there is no column 'title'.*choose from id, when"),
        ("x.tsv", b"title,id\na,1\n", "x.tsv: there is no column 'title'.*did you mean 'title,id'"),
        ("x.jsonl", b'{"title": "a"}\n\n{"tite": "b"}\n', "x.jsonl, line 3: there is no column 'title'.*'tite'"),
        ("x.parquet", parquet(pa.table({"Title": ["a"]})), "x.parquet: there is no column 'title'.*'Title'"),
        ("x.jsonl", b'{"title": "a"}\n{"title": 7}\n', "x.jsonl, line 2: 'title' holds 7, not text"),
        ("x.jsonl", b'{"title": ["a"]}\n', r"x.jsonl, line 1: 'title' holds \['a'\], not text"),
        ("x.jsonl", b'{"title": "a"}\n["b"]\n', "x.jsonl, line 2: expected an object such as"),
        ("x.jsonl", b'{"title": "a"}\n{"title": "b\n', "x.jsonl, line 2: not JSON"),
        ("x.parquet", parquet(pa.table({"title": [1]})), "x.parquet: column 'title' holds int64, not text"),
        ("x.parquet", parquet(pa.table({"title": [["a"]]})), "x.parquet: column 'title' holds list.*, not text"),
        ("x.parquet", parquet(pa.table({"title": BROKEN_UTF8})), "x.parquet: column 'title' holds broken UTF-8"),
        ("x.parquet", b"no parquet at all", "x.parquet is not a whole Parquet file"),
        ("x.parquet", as_parquet(["a"] * 99)[:-30], "x.parquet is not a whole Parquet file"),
        ("x.parquet.gz", gzip.compress(b"no parquet", mtime=0), "x.parquet.gz is not a whole Parquet file"),
        ("x.txt.gz", TRUNCATED, "x.txt.gz is not a whole gzip file"),
        ("x.csv.gz", b"title\nplain\n", "x.csv.gz is not a whole gzip file"),
        ("x.csv", b"title,id\na,1\nb,2,3\n", "x.csv, line 3: 3 fields where the header has 2"),
        ("x.csv", b'title,id\n"a\nb",1\nc\n', "x.csv, line 4: 1 fields where the header has 2"),
        ("x.csv", b'title,id\n"a,1\n', "x.csv, line 2: unexpected end"),
        ("x.txt", bytes(range(256)) * 300, "x.txt looks like a binary file"),
        ("x.csv", as_parquet(["a"]), "x.csv looks like a binary file"),
        ("x.txt", "a title\n".encode("utf-16"), "x.txt looks like a binary file"),
        ("x.txt", "Привет, мир\n".encode("cp1251"), "x.txt looks like a binary file"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        documents_from_files([written(tmp_path / name, content)], "title")


@pytest.mark.parametrize(("nuls", "binary"), [(10, False), (11, True)])
def test_more_than_a_tenth_of_nuls_makes_a_file_binary(nuls: int, binary: bool, tmp_path: Path) -> None:
    path = written(tmp_path / "x.txt", b"\0" * nuls + b"a" * (100 - nuls))
    if binary:
        with pytest.raises(UserError, match="binary"):
            documents_from_files([path], "title")
    else:
        assert documents_from_files([path], "title").documents == ["a" * 90]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("title.txt", "There is no file .*title.txt; in .*, did you mean 'titles.txt'"),
        ("nowhere/titles.txt", "there is no folder .*nowhere"),
        ("folder.csv", "folder.csv is a folder"),
        ("titles.jsnl", r"titles.jsnl: files of this kind can't be read; did you mean '.jsonl'"),
        ("titles.doc.gz", r"titles.doc.gz: files of this kind can't be read; choose from .csv, .jsonl"),
        ("titles", "titles: files of this kind can't be read"),
    ],
)
def test_what_can_not_be_read_is_refused_before_anything_is(name: str, sentence: str, tmp_path: Path) -> None:
    good = written(tmp_path / "titles.txt", b"")  # empty: reading it would be refused with another sentence
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "titles").touch()
    identify(of_file(good))
    with pytest.raises(UserError, match=sentence):
        identify(of_file(good, str(tmp_path / name)))
    with pytest.raises(UserError, match=sentence):
        load_corpus(of_file(good, str(tmp_path / name)))


def test_what_identifies_a_source_is_what_decides_its_rows(tmp_path: Path) -> None:
    one, same, other = (tmp_path / folder / "x.txt" for folder in "abc")
    for path, content in ((one, b"a\n"), (same, b"a\n"), (other, b"b\n")):
        path.parent.mkdir()
        path.write_bytes(content)
    first = identify(of_file(str(one)))
    assert identify(of_file(str(same))) == first, "a file may move"
    assert identify(of_file(str(other))) != first
    assert identify(of_file(str(one), str(other))) != identify(of_file(str(other), str(one)))
    renamed = one.rename(one.with_suffix(".csv"))
    assert identify(of_file(str(renamed))) != first, "what a file is called says how it is read"
    assert json.loads(json.dumps(first)) == first
    assert identify(of_hub(source="synthetic")) == identify(of_hub(source="synthetic", num_titles=20))


def test_a_csv_of_only_a_byte_order_mark_is_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x.csv is empty"):
        documents_from_files([written(tmp_path / "x.csv", b"\xef\xbb\xbf")], "title")


def test_json_nested_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x.jsonl, line 1: not JSON"):
        documents_from_files([written(tmp_path / "x.jsonl", b'{"title": ' + b"[" * 100_000)], "title")


def test_a_parquet_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["title", "title"])
    with pytest.raises(UserError, match="2 columns named 'title'"):
        documents_from_files([written(tmp_path / "x.parquet", parquet(table))], "title")


def test_a_folder_is_called_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; data.path takes files"):
        identify(of_file(str(tmp_path)))


def test_a_missing_file_in_a_full_folder_gets_a_short_sentence(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"some-other-file-{number}.txt").touch()
    with pytest.raises(UserError) as refused:
        identify(of_file(str(tmp_path / "q.txt")))
    assert len(str(refused.value)) < 1000


# Selection


@pytest.mark.parametrize(("rows", "seed"), [(1, 0), (10, 1337), (1000, 1337), (1000, 7), (4321, 0)])
def test_the_order_is_that_of_the_datasets_library(rows: int, seed: int, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    documents = [f"document {number}" for number in range(rows)]
    shuffled = datasets.Dataset.from_dict({"title": documents}).shuffle(seed=seed)["title"][:]
    data = of_file(written(tmp_path / "x.txt", as_txt(documents)), shuffle=True, seed=seed)
    assert read_source(data).documents == shuffled


def test_blank_rows_do_not_move_the_others(tmp_path: Path) -> None:
    """Cleaning comes after the order: with and without blanks, the other rows keep their places."""
    documents = [f"document {number}" for number in range(50)]
    holes = ["" if number % 7 == 0 else document for number, document in enumerate(documents)]
    full = read_source(of_file(written(tmp_path / "full.txt", as_txt(documents)), shuffle=True))
    sparse = read_source(of_file(written(tmp_path / "holes.txt", as_txt(holes)), shuffle=True))
    assert full.documents != documents
    assert sparse.documents == [document for document in full.documents if document in holes]
    assert sparse.changes["blank"] == 8


def test_only_rows_that_were_looked_at_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", as_jsonl(["", "a\0b", None, "c", "", "d\0e"]))
    found = read_source(of_file(path, num_titles=2, val_frac=0.5))
    assert found.documents == ["ab", "c"]
    assert +found.changes == {"blank": 1, "nul_characters": 1, "missing": 1}


def test_num_titles_and_then_heldout_titles_are_taken(tmp_path: Path) -> None:
    path = written(tmp_path / "x.txt", as_txt([str(number) for number in range(20)]))
    assert read_source(of_file(path, num_titles=10, heldout_titles=3)).documents == [str(n) for n in range(13)]
    assert len(read_source(of_file(path)).documents) == 20


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        (
            {"num_titles": 10},
            r"has 5 documents, fewer than data.num_titles = 10 asks for; give --data.num-titles 5 or all$",
        ),
        (
            {"num_titles": 4, "heldout_titles": 3},
            r"5 documents, .* = 4 and data.heldout_titles = 3 ask for; give --data.num-titles 2$",
        ),
        ({"num_titles": 4, "heldout_titles": 4}, r"lower --data.heldout-titles$"),
        ({"num_titles": 4, "heldout_titles": 9}, r"lower --data.heldout-titles$"),
    ],
)
def test_too_few_documents_says_what_to_ask_for(fields: dict[str, int], advice: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x.txt", b"a\nb\n\nc\nd\n \ne\n")
    with pytest.raises(UserError, match=advice):
        read_source(of_file(path, **fields))


def test_the_synthetic_source_is_the_grammars_sample() -> None:
    data = of_hub(source="synthetic", num_titles=30, heldout_titles=5, seed=3)
    found = read_source(data)
    assert found.documents == sample_titles(35, 3)
    assert found.origin == {"source": "synthetic"}
    assert found.documents != read_source(data.model_copy(update={"seed": 4})).documents


# The hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `load_dataset` reads as it reads the hub's: the data set's files, here one Parquet file."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "hub"
    folder.mkdir()
    rows = {"title": ["Ask HN: why?", None, " two\nlines ", "日本 🚀", "last"], "id": [1, 2, 3, 4, 5]}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "train.parquet")
    monkeypatch.setattr(sources, "HUB_DATASET", str(folder))
    return folder


def test_the_hub_data_set_is_read_by_the_datasets_library(hub: Path) -> None:
    in_order = read_source(of_hub(num_titles="all", shuffle=False))
    assert in_order.documents == ["Ask HN: why?", "two lines", "日本 🚀", "last"]
    assert +in_order.changes == {"missing": 1, "line_breaks": 1}
    version = in_order.origin.pop("version")
    assert isinstance(version, str)
    assert version
    assert identify(of_hub()) == {"version": version}
    assert in_order.origin == {"source": "hackernews", "dataset": str(hub), "revision": None}
    # the same rows from a file are in the same order; only there are they documents that keep their lines
    as_file = list(read_source(of_file(str(hub / "train.parquet"), shuffle=True)).documents)
    assert "two\nlines" in as_file
    in_random_order = [document.replace("\n", " ") for document in as_file]
    assert read_source(of_hub(num_titles="all")).documents == in_random_order != list(in_order.documents)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"column": "titel"}, "has no column 'titel' .*did you mean 'title'"),
        ({"column": "id"}, "column 'id' holds int64, not text"),
        ({"num_titles": 5}, "has 4 documents, fewer than data.num_titles = 5"),
    ],
)
def test_what_the_hub_can_not_give(hub: Path, fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=f"{re.escape(str(hub))}.*{sentence}"):
        read_source(of_hub(**fields))


def test_a_pinned_revision_reaches_the_library(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    load, asked = datasets.load_dataset, []

    def watched(*args: object, **options: object) -> object:
        asked.append((args, options))
        return load(*args, **options)

    monkeypatch.setattr(datasets, "load_dataset", watched)
    assert read_source(of_hub(num_titles=4, revision="0a1b2c")).origin["revision"] == "0a1b2c"
    assert asked == [((str(hub),), {"split": "train", "revision": "0a1b2c"})]


@pytest.mark.usefixtures("hub")
def test_without_the_network_the_library_does_not_try_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    load, offline = datasets.load_dataset, []

    def watched(*args: object, **options: object) -> object:
        offline.append((datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE))
        return load(*args, **options)

    monkeypatch.setattr(datasets, "load_dataset", watched)
    monkeypatch.setattr(sources, "getproxies", dict)
    for resolves in (False, True):
        monkeypatch.setattr(sources, "_resolves", lambda _, known=resolves: known)
        read_source(of_hub(num_titles=4))
    assert offline == [(True, True), (False, False)]
    assert not constants.HF_HUB_OFFLINE


def test_without_the_network_the_sentence_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"julien040/hacker-news-posts .*over the network; --data.path FILE"):
        read_source(of_hub())


def test_without_the_datasets_library_the_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # importing it now fails, as if it were not installed
    with pytest.raises(UserError, match=r"pip install 'shortrun\[hub\]'"):
        read_source(of_hub())


def test_lossy_normalisation_is_open_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "x.txt", "Ünïted  ﬁle\nplain\n¨\n".encode())
    found = documents_from_files([path], "title", ("nfkc", "no-accents", "lowercase", "single-spaces"))
    assert found.documents == ["united file", "plain"]
    assert +found.changes == {
        "changed_by_nfkc": 2, "changed_by_no-accents": 2, "changed_by_lowercase": 1, "changed_by_single-spaces": 1, "blank": 1,
    }  # fmt: skip
    as_is = documents_from_files([path], "title")
    assert as_is.documents == ["Ünïted  ﬁle", "plain", "¨"]
    data = DataConfig(path=(str(path),), num_titles=3, shuffle=False, val_frac=0.4, normalise=("lowercase",))
    manifest = load_corpus(data).manifest
    assert manifest["normalise"] == ["lowercase"]
    assert manifest["cleaning"] == {"changed_by_lowercase": 1}
