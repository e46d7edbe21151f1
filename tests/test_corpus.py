"""The corpus: who gets which documents, and a manifest that says what they are."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.errors import UserError
from shortrun.recipe import DataConfig
from shortrun.text.corpus import Corpus, documents_sha256, load_corpus
from shortrun.text.sources import Source
from shortrun.text.synthetic import floor_nats

SHARED_TITLES = Path(__file__).parents[2] / "shared/data/hn-titles.parquet"
HN_100K = "cb97c94d17cfc7b1bdf7c627770c647748a9a0b3460dc949af77ed6ec4f39c2a"


def data_of(**fields: object) -> DataConfig:
    return DataConfig.model_validate(fields)


def corpus_of(documents: Sequence[str], folder: Path, **fields: object) -> Corpus:
    path = folder / "documents.txt"
    path.write_text("".join(document + "\n" for document in documents), encoding="utf-8")
    return load_corpus(data_of(path=[str(path)], **{"num_titles": "all", "shuffle": False, **fields}))


def sha256(documents: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(documents).encode()).hexdigest()


def test_the_standard_task_has_the_published_fingerprint() -> None:
    """HN-100k: the independent sha256 in shared/README.md, and 548,888 validation characters with each end as 5."""
    if not SHARED_TITLES.is_file():
        pytest.skip("the reference titles in ../shared are not on this machine")
    corpus = load_corpus(data_of(path=[str(SHARED_TITLES)], heldout_titles=50))
    assert corpus.sha256 == corpus.manifest["sha256"] == HN_100K == sha256(corpus.documents[:100_000])
    assert (len(corpus.split("train")), len(corpus.split("validation"))) == (90_000, 10_000)
    assert corpus.manifest["splits"]["validation"]["characters"] + 5 * 10_000 == 548_888
    assert corpus.manifest["duplicates_across"]["heldout in train"] == 0  # the file has no exact duplicates
    assert corpus.manifest["files"][0]["rows"] == 336_843


def test_splits_are_cut_by_position(tmp_path: Path) -> None:
    documents = [f"document {number}" for number in range(30)]
    corpus = corpus_of(documents, tmp_path, num_titles=20, val_frac=0.2, tuning_titles=3, heldout_titles=5)
    assert corpus.documents == documents[:25]
    assert list(corpus.ranges) == ["train", "tuning", "validation", "heldout"]
    assert corpus.split("train") == documents[:13]
    assert corpus.split("tuning") == documents[13:16]
    assert corpus.split("validation") == documents[16:20]
    assert corpus.split("heldout") == documents[20:25]
    # tuning documents are part of what num_titles selects, held-out ones are not
    assert corpus.manifest["sha256"] == sha256(documents[:20])
    plain = corpus_of(documents, tmp_path, num_titles=20, val_frac=0.2)
    assert plain.split("train") == documents[:16]
    assert list(plain.ranges) == ["train", "validation"]
    assert plain.manifest["sha256"] == corpus.manifest["sha256"]
    assert plain.split("validation") == corpus.split("validation")


@given(count=st.integers(2, 60), val_frac=st.floats(0.01, 0.99), tuning=st.integers(0, 5))
def test_train_tuning_and_validation_are_all_documents_in_order(
    tmp_path_factory: pytest.TempPathFactory, count: int, val_frac: float, tuning: int
) -> None:
    documents = [f"document {number}" for number in range(count)]
    boundary = int(count * (1 - val_frac))  # Mainrun's own expression, rounding and all
    fields = {"val_frac": val_frac, "tuning_titles": tuning}
    if not tuning < boundary < count:
        with pytest.raises(UserError, match="nothing to train on or nothing to validate"):
            corpus_of(documents, tmp_path_factory.getbasetemp(), **fields)
        return
    corpus = corpus_of(documents, tmp_path_factory.getbasetemp(), **fields)
    held_back = list(corpus.split("tuning")) if tuning else []
    assert [*corpus.split("train"), *held_back, *corpus.split("validation")] == documents
    assert (len(held_back), len(corpus.split("validation"))) == (tuning, count - boundary)


def test_the_manifest_counts_and_fingerprints_each_split(tmp_path: Path) -> None:
    documents = ["a", "b", "a", "a", "日本", "b", "c", "a", "é🚀", "é🚀", "a", "b"]
    fields = {"num_titles": 10, "val_frac": 0.4, "tuning_titles": 2, "heldout_titles": 2}
    corpus = corpus_of(["", *documents, ""], tmp_path, seed=5, **fields)
    manifest = json.loads(json.dumps(corpus.manifest))
    assert manifest == corpus.manifest  # JSON keeps all of it
    content = (tmp_path / "documents.txt").read_bytes()
    record = {"name": "documents.txt", "rows": 14, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert (manifest["source"], manifest["files"]) == ("file", [record])
    assert (manifest["shuffle"], manifest["seed"]) == (False, 5)
    assert manifest["cleaning"] == {"blank": 1}  # the last row was never looked at
    sizes = {
        name: tuple(split[key] for key in ("documents", "characters", "bytes", "duplicates_inside"))
        for name, split in manifest["splits"].items()
    }
    # train a b a a, tuning 日本 b, validation c a é🚀 é🚀, held out a b
    assert sizes == {
        "train": (4, 4, 4, 2),
        "tuning": (2, 3, 7, 0),
        "validation": (4, 6, 14, 1),
        "heldout": (2, 2, 2, 0),
    }
    for name, split in manifest["splits"].items():
        assert split["sha256"] == sha256(corpus.split(name))
    assert manifest["duplicates_across"] == {
        "tuning in train": 1,
        "validation in train": 1,
        "validation in tuning": 0,
        "heldout in train": 2,
        "heldout in tuning": 1,
        "heldout in validation": 1,
    }


def test_other_documents_or_another_order_change_the_fingerprint(tmp_path: Path) -> None:
    documents = [f"document {number}" for number in range(10)]
    seen = {
        corpus_of(documents, tmp_path).manifest["sha256"],
        corpus_of(documents[::-1], tmp_path).manifest["sha256"],
        corpus_of([*documents[:9], "document 9!"], tmp_path).manifest["sha256"],
        corpus_of(documents, tmp_path, shuffle=True).manifest["sha256"],
        corpus_of(documents, tmp_path, shuffle=True, seed=1).manifest["sha256"],
    }
    assert len(seen) == 5
    assert corpus_of(documents, tmp_path, val_frac=0.5).manifest["sha256"] in seen  # where the cut is does not


def test_the_synthetic_corpus_knows_its_floor() -> None:
    data = data_of(source="synthetic", num_titles=60, tuning_titles=10, heldout_titles=20)
    corpus = load_corpus(data)
    floors = corpus.manifest["floor_nats"]
    assert list(floors) == ["tuning", "validation", "heldout"]  # what is scored
    assert floors["validation"] == floor_nats(corpus.split("validation"))
    assert all(math.isfinite(nats) and nats > 0 for nats in floors.values())
    assert (corpus.manifest["source"], corpus.manifest["shuffle"]) == ("synthetic", False)
    assert json.loads(json.dumps(corpus.manifest)) == corpus.manifest
    again = load_corpus(data)
    assert (again.documents, again.ranges, again.manifest) == (corpus.documents, corpus.ranges, corpus.manifest)


def test_only_the_synthetic_corpus_has_a_floor(tmp_path: Path) -> None:
    assert "floor_nats" not in corpus_of(["a", "b"], tmp_path, val_frac=0.5).manifest


@pytest.mark.parametrize("documents", [["only one"], ["one", "", " "], ["", " "]])
def test_all_documents_must_be_enough_for_both_splits(documents: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^1 document with data.val_frac = 0.1 .*give more of them|is empty"):
        corpus_of(documents, tmp_path)


def test_a_missing_file_is_refused_before_the_others_are_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not parquet")
    with pytest.raises(UserError, match=r"There is no file .*later.txt"):
        load_corpus(data_of(path=[str(broken), str(tmp_path / "later.txt")]))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("heldout", r"no split 'heldout': .*\(data.heldout_titles is 0\)$"),
        ("valid", r"no split 'valid': did you mean 'validation'\?$"),
        ("test", "no split 'test': choose from train, tuning, validation$"),
    ],
)
def test_a_split_that_is_not_there_names_those_that_are(name: str, sentence: str, tmp_path: Path) -> None:
    corpus = corpus_of([str(number) for number in range(20)], tmp_path, tuning_titles=2)
    assert [len(corpus.split(found)) for found in ("train", "validation", "tuning")] == [16, 2, 2]
    with pytest.raises(UserError, match=sentence):
        corpus.split(name)


def test_a_corpus_is_kept_and_read_again_without_its_file_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"only here {number}" for number in range(11)]  # all tests share one cache
    first = corpus_of(texts[:10], tmp_path)

    def refuse(_: DataConfig) -> Source:
        raise AssertionError("the source is read although the corpus is in the cache")

    monkeypatch.setattr("shortrun.text.corpus.read_source", refuse)
    again = corpus_of(texts[:10], tmp_path)
    assert (again.documents, again.ranges, again.manifest) == (first.documents, first.ranges, first.manifest)
    with pytest.raises(AssertionError, match="in the cache"):
        corpus_of(texts, tmp_path)


def test_the_same_bytes_in_a_file_of_another_kind_are_another_corpus(tmp_path: Path) -> None:
    content = "title,points\n" + "".join(f"number {number},{number}\n" for number in range(20))
    found = {}
    for name in ("a.txt", "a.csv", "b.csv"):
        (tmp_path / name).write_text(content)
        found[name] = load_corpus(data_of(path=[str(tmp_path / name)], num_titles=20, shuffle=False))
        assert [file["name"] for file in found[name].manifest["files"]] == [name]
    assert found["a.txt"].documents[:2] == ["title,points", "number 0,0"]
    assert found["a.csv"].documents[:2] == found["b.csv"].documents[:2] == ["number 0", "number 1"]


@given(lines=st.lists(st.sampled_from(["a", "b", "", "\\n"]), min_size=1, max_size=6), draw=st.data())
def test_where_documents_end_is_part_of_their_fingerprint(lines: list[str], draw: st.DataObject) -> None:
    """The same lines made into documents in two ways; each line a document has the sha256 of the lines."""
    assert documents_sha256(lines) == sha256(lines)
    separators = st.lists(st.sampled_from(["\n", "|"]), min_size=len(lines), max_size=len(lines))
    one, other = (
        "".join(line + end for line, end in zip(lines, draw.draw(separators), strict=True))[:-1].split("|")
        for _ in range(2)
    )
    assert (documents_sha256(one) == documents_sha256(other)) == (one == other)


def test_lines_and_documents_of_several_lines_are_different_data(tmp_path: Path) -> None:
    documents = [f"document {number}\nsecond line" for number in range(10)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"title": document}) + "\n" for document in documents))
    whole = load_corpus(data_of(path=[str(tmp_path / "x.jsonl")], num_titles="all", shuffle=False))
    lines = corpus_of("\n".join(documents).split("\n"), tmp_path)
    assert whole.split("validation") == documents[9:]
    assert lines.split("validation") == documents[9].split("\n")
    assert whole.sha256 != lines.sha256
    for split in ("train", "validation"):
        assert whole.manifest["splits"][split]["sha256"] != lines.manifest["splits"][split]["sha256"]
