"""Recipes over a prepared corpus: its split is used as it is, groups are not cut through, and damage is a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shortrun.errors import UserError
from shortrun.pipeline.prepare import prepare_corpus
from shortrun.recipe import DataConfig, Recipe
from shortrun.recipe_file import COMMAND_LINE, Layers
from shortrun.runs.folder import RunFolder
from shortrun.text.corpus import load_corpus
from shortrun.train.fit import resume, train
from tests.conftest import assert_same_end, run_command, tiny_values
from tests.corpus_inputs import corpus_file, jsonl, near, prose


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 groups of two near-duplicates, in three shards or more."""
    folder = tmp_path_factory.mktemp("prepared")
    texts = [prose(seed) for seed in range(60)]
    jsonl(folder / "a.jsonl", [*texts, *map(near, texts)])
    prepare_corpus("tiny", corpus_file(folder, {"path": ["a.jsonl"]}, duplicates={"near": "group"}), folder / "corpus")
    return folder / "corpus"


def shards_of(folder: Path, split: str) -> dict[str, int]:
    """Each document of a split, and its group."""
    tables = [pq.read_table(path).to_pylist() for path in sorted(folder.glob(f"{split}-*.parquet"))]
    return {row["text"]: row["group"] for rows in tables for row in rows}


def config(folder: Path, **fields: object) -> DataConfig:
    return DataConfig.model_validate({"source": "corpus", "path": [str(folder)], **fields})


def test_the_split_is_that_of_the_shards_and_tuning_groups_are_whole(prepared: Path) -> None:
    train_shards, validation = shards_of(prepared, "train"), shards_of(prepared, "validation")
    corpus = load_corpus(config(prepared, tuning_titles=7))
    assert sorted(corpus.split("validation")) == sorted(validation)
    assert sorted([*corpus.split("train"), *corpus.split("tuning")]) == sorted(train_shards)
    assert len(corpus.split("tuning")) == 8  # the eighth is the other half of a group
    groups = {name: {train_shards[text] for text in corpus.split(name)} for name in ("train", "tuning")}
    assert not groups["train"] & groups["tuning"]
    assert corpus.manifest["corpus"] == json.loads((prepared / "manifest.json").read_text())["sha256"]
    assert set(corpus.manifest["duplicates_across"].values()) == {0}


def test_the_order_is_drawn_by_the_seed(prepared: Path) -> None:
    first, again, other = (load_corpus(config(prepared, seed=seed)).split("train") for seed in (1, 1, 2))
    assert list(first) == list(again)
    assert list(first) != list(other)
    assert sorted(first) == sorted(other)
    as_stored = load_corpus(config(prepared, shuffle=False))
    assert list(as_stored.split("train")) == list(shards_of(prepared, "train"))
    assert list(as_stored.split("validation")) == list(shards_of(prepared, "validation"))


def test_fewer_documents_are_taken_from_both_splits_in_proportion(prepared: Path) -> None:
    whole, half = (load_corpus(config(prepared, num_titles=number)) for number in ("all", 60))
    for name in ("train", "validation"):
        assert len(half.split(name)) == pytest.approx(len(whole.split(name)) / 2, abs=1)
        assert list(half.split(name)) == list(whole.split(name))[: len(half.split(name))]
    with pytest.raises(UserError, match="has 120 documents, fewer than"):
        load_corpus(config(prepared, num_titles=121))


def test_mistakes_are_sentences(prepared: Path, tmp_path: Path) -> None:
    for folder, words in (
        (tmp_path, "holds no prepared corpus"),
        (prepared.parent / "corpse", "did you mean 'corpus'"),
        (prepared.parent / "a.jsonl", "is a file"),
    ):
        with pytest.raises(UserError, match=words):
            load_corpus(config(folder))
    with pytest.raises(ValueError, match=r"needs one data\.path"):
        DataConfig(source="corpus")
    layers = Layers()
    layers.lay({"data": {"source": "corpus", "path": "x", "val_frac": 0.2}}, "mine.toml")
    with pytest.raises(UserError, match=r"data\.val_frac = 0\.2 does nothing here"):
        layers.recipe()
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in prepared.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    shard = copy / "train-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"train-00001.parquet is missing or not what manifest.json says"):
        load_corpus(config(copy, seed=99))
    done = run_command("data", "info", "quickstart", "--data.path", prepared)
    assert done.returncode == 2
    assert 'data.source = "corpus"' in done.stderr


def test_a_path_alone_leaves_a_corpus_a_corpus() -> None:
    layers = Layers()
    layers.lay({"data": {"source": "corpus", "path": "here"}}, "mine.toml")
    layers.lay({"data": {"path": "there"}}, COMMAND_LINE)
    assert layers.recipe().data == DataConfig.model_validate({"source": "corpus", "path": ["there"]})
    assert layers.recipe().data.num_titles == "all"


@pytest.mark.slow
def test_a_recipe_trains_on_it_and_goes_on_where_it_has_moved(prepared: Path, tmp_path: Path) -> None:
    values = tiny_values(None, data={"tuning_titles": 8, "path": [str(prepared)]})
    values["data"] |= {"source": "corpus", "num_titles": 60}
    recipe = Recipe.model_validate(values)
    train(recipe, tmp_path / "whole")
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in prepared.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    elsewhere = recipe.changed("data", path=(str(moved),))
    assert elsewhere.fingerprint() == recipe.fingerprint()
    train(elsewhere, tmp_path / "run", max_steps=3)
    moved.rename(tmp_path / "again")
    with pytest.raises(UserError, match="Where the data has moved"):
        resume(tmp_path / "run")
    resume(tmp_path / "run", data_path=[str(tmp_path / "again")])
    assert_same_end(tmp_path / "run", tmp_path / "whole")
    data = RunFolder.open(tmp_path / "run").manifest()["data"]
    assert data["source"] == "corpus"
    assert data["splits"]["validation"]["documents"] == round(len(shards_of(prepared, "validation")) / 2)
    shown = run_command("eval", tmp_path / "whole", "--json")
    assert json.loads(shown.stdout)["share_in_training"] == 0.0
