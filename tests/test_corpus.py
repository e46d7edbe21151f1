"""The corpus: who gets which titles, and a manifest that says what they are."""

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
from shortrun.text.corpus import Corpus, load_corpus
from shortrun.text.synthetic import floor_nats

SHARED_TITLES = Path(__file__).parents[2] / "shared/data/hn-titles.parquet"
HN_100K = "cb97c94d17cfc7b1bdf7c627770c647748a9a0b3460dc949af77ed6ec4f39c2a"


def data_of(**fields: object) -> DataConfig:
    return DataConfig.model_validate(fields)


def corpus_of(titles: Sequence[str], folder: Path, **fields: object) -> Corpus:
    path = folder / "titles.txt"
    path.write_text("".join(title + "\n" for title in titles), encoding="utf-8")
    return load_corpus(data_of(path=[str(path)], **{"num_titles": "all", "shuffle": False, **fields}))


def sha256(titles: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(titles).encode()).hexdigest()


def test_the_standard_task_has_the_published_fingerprint() -> None:
    """HN-100k: the independent sha256 in shared/README.md, and 548,888 validation characters with each end as 5."""
    if not SHARED_TITLES.is_file():
        pytest.skip("the reference titles in ../shared are not on this machine")
    corpus = load_corpus(data_of(path=[str(SHARED_TITLES)], heldout_titles=50))
    assert corpus.manifest["sha256"] == HN_100K == sha256([*corpus.train.titles, *corpus.validation.titles])
    assert (len(corpus.train.titles), len(corpus.validation.titles)) == (90_000, 10_000)
    assert corpus.manifest["splits"]["validation"]["characters"] + 5 * 10_000 == 548_888
    assert corpus.manifest["duplicates_across"]["heldout in train"] == 0  # the file has no exact duplicates
    assert corpus.manifest["files"][0]["rows"] == 336_843


def test_splits_are_cut_by_position(tmp_path: Path) -> None:
    titles = [f"title {number}" for number in range(30)]
    corpus = corpus_of(titles, tmp_path, num_titles=20, val_frac=0.2, tuning_titles=3, heldout_titles=5)
    assert corpus.tuning
    assert corpus.heldout
    assert corpus.train.titles == titles[:13]
    assert corpus.tuning.titles == titles[13:16]
    assert corpus.validation.titles == titles[16:20]
    assert corpus.heldout.titles == titles[20:25]
    # tuning titles are part of what num_titles selects, held-out ones are not
    assert corpus.manifest["sha256"] == sha256(titles[:20])
    plain = corpus_of(titles, tmp_path, num_titles=20, val_frac=0.2)
    assert plain.train.titles == titles[:16]
    assert (plain.tuning, plain.heldout) == (None, None)
    assert plain.manifest["sha256"] == corpus.manifest["sha256"]
    assert plain.validation == corpus.validation


@given(count=st.integers(2, 60), val_frac=st.floats(0.01, 0.99), tuning=st.integers(0, 5))
def test_train_tuning_and_validation_are_all_titles_in_order(
    tmp_path_factory: pytest.TempPathFactory, count: int, val_frac: float, tuning: int
) -> None:
    titles = [f"title {number}" for number in range(count)]
    boundary = int(count * (1 - val_frac))  # Mainrun's own expression, rounding and all
    fields = {"val_frac": val_frac, "tuning_titles": tuning}
    if not tuning < boundary < count:
        with pytest.raises(UserError, match="nothing to train on or nothing to validate"):
            corpus_of(titles, tmp_path_factory.getbasetemp(), **fields)
        return
    corpus = corpus_of(titles, tmp_path_factory.getbasetemp(), **fields)
    held_back = corpus.tuning.titles if corpus.tuning else ()
    assert [*corpus.train.titles, *held_back, *corpus.validation.titles] == titles
    assert (len(held_back), len(corpus.validation.titles)) == (tuning, count - boundary)


def test_the_manifest_counts_and_fingerprints_each_split(tmp_path: Path) -> None:
    titles = ["a", "b", "a", "a", "日本", "b", "c", "a", "é🚀", "é🚀", "a", "b"]
    fields = {"num_titles": 10, "val_frac": 0.4, "tuning_titles": 2, "heldout_titles": 2}
    corpus = corpus_of(["", *titles, ""], tmp_path, seed=5, **fields)
    manifest = json.loads(json.dumps(corpus.manifest))
    assert manifest == corpus.manifest  # JSON keeps all of it
    content = (tmp_path / "titles.txt").read_bytes()
    record = {"name": "titles.txt", "rows": 14, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert (manifest["source"], manifest["files"]) == ("file", [record])
    assert (manifest["shuffle"], manifest["seed"]) == (False, 5)
    assert manifest["cleaning"] == {"blank": 1}  # the last row was never looked at
    sizes = {
        name: tuple(split[key] for key in ("titles", "characters", "bytes", "duplicates_inside"))
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
        assert split["sha256"] == sha256(corpus.split(name).titles)
    assert manifest["duplicates_across"] == {
        "tuning in train": 1,
        "validation in train": 1,
        "validation in tuning": 0,
        "heldout in train": 2,
        "heldout in tuning": 1,
        "heldout in validation": 1,
    }


def test_other_titles_or_another_order_change_the_fingerprint(tmp_path: Path) -> None:
    titles = [f"title {number}" for number in range(10)]
    seen = {
        corpus_of(titles, tmp_path).manifest["sha256"],
        corpus_of(titles[::-1], tmp_path).manifest["sha256"],
        corpus_of([*titles[:9], "title 9!"], tmp_path).manifest["sha256"],
        corpus_of(titles, tmp_path, shuffle=True).manifest["sha256"],
        corpus_of(titles, tmp_path, shuffle=True, seed=1).manifest["sha256"],
    }
    assert len(seen) == 5
    assert corpus_of(titles, tmp_path, val_frac=0.5).manifest["sha256"] in seen  # where the cut is does not


def test_the_synthetic_corpus_knows_its_floor() -> None:
    data = data_of(source="synthetic", num_titles=60, tuning_titles=10, heldout_titles=20)
    corpus = load_corpus(data)
    assert corpus.tuning
    assert corpus.heldout
    floors = corpus.manifest["floor_nats"]
    assert list(floors) == ["tuning", "validation", "heldout"]  # what is scored
    assert floors["validation"] == floor_nats(corpus.validation.titles)
    assert all(math.isfinite(nats) and nats > 0 for nats in floors.values())
    assert (corpus.manifest["source"], corpus.manifest["shuffle"]) == ("synthetic", False)
    assert json.loads(json.dumps(corpus.manifest)) == corpus.manifest
    assert load_corpus(data) == corpus


def test_only_the_synthetic_corpus_has_a_floor(tmp_path: Path) -> None:
    assert "floor_nats" not in corpus_of(["a", "b"], tmp_path, val_frac=0.5).manifest


@pytest.mark.parametrize("titles", [["only one"], ["one", "", " "], ["", " "]])
def test_all_titles_must_be_enough_for_both_splits(titles: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^(0|1) titles with data.val_frac = 0.1 .*give more titles|is empty"):
        corpus_of(titles, tmp_path)


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
    assert [corpus.split(found).name for found in ("train", "validation", "tuning")] == [
        "train",
        "validation",
        "tuning",
    ]
    with pytest.raises(UserError, match=sentence):
        corpus.split(name)
