"""docs/run-folder.md says what a run folder holds: all of it, and nothing that is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shortrun.runs.folder import FORMAT, RunFolder
from shortrun.text import sources
from shortrun.text.cleaning import WORDS
from shortrun.text.corpus import load_corpus
from shortrun.train.fit import train
from tests.conftest import ROOT, tiny_recipe

PAGE = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
EPOCH = {"epochs": 1, "evals_per_epoch": 1}
SPLITS = ("train", "tuning", "validation", "heldout")


def tables(title: str) -> list[list[list[str]]]:
    """The tables of a section ("" for what stands before the first), as rows of cells, without their headings."""
    before, *sections = re.split(r"^## (.+)\n", PAGE, flags=re.MULTILINE)
    text = {"": before, **dict(zip(sections[::2], sections[1::2], strict=True))}[title]
    found = re.findall(r"^\|[ -|]*-\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    return [[row.strip("|").split("|") for row in table.splitlines()] for table in found]


def names(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


def first_column(title: str, number: int = 0) -> set[str]:
    """What a table is about; each name stands in it once."""
    found = [name for row in tables(title)[number] for name in names(row[0])]
    assert len(found) == len(set(found))
    return set(found)


def flat(tree: Any, name: str = "") -> Iterator[str]:
    """Keys of a JSON value, "section.key"; a list of objects has a [] behind its name."""
    if isinstance(tree, dict):
        for key, branch in tree.items():
            yield from flat(branch, f"{name}.{key}" if name else key)
    elif isinstance(tree, list) and tree and isinstance(tree[0], dict):
        for branch in tree:
            yield from flat(branch, f"{name}[]")
    else:
        yield name


def documented(keys: Iterator[str]) -> set[str]:
    """The same keys with placeholders, as the page writes what has as many names as there are splits or changes."""
    splits = "|".join(SPLITS)
    found = set()
    for key in keys:
        key = re.sub(rf"^(data\.splits|data\.floor_nats)\.({splits})\b", r"\1.<split>", key)
        key = re.sub(rf"^(data\.duplicates_across)\.({splits}) in ({splits})$", r"\1.<later> in <earlier>", key)
        found.add(re.sub(r"^(data\.cleaning)\..*", r"\1.<change>", key))
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Runs that between them have all that a run may have: of each source, with every split, with a moving average."""
    datasets = pytest.importorskip("datasets", reason="the hub extra is not installed")
    folder = tmp_path_factory.mktemp("runs")
    plain = [f"Title number {number}" for number in range(100)]
    train(
        tiny_recipe(
            None,
            data={"tuning_titles": 20, "heldout_titles": 20},
            train={"ema": 0.9, **EPOCH},
            datastore={"weight": 0.3},
        ),
        folder / "synthetic",
    )
    rows = [json.dumps({"title": title}) for title in (None, " ", "a\0b", "a \ud800 b", "A", *plain)]
    content = "\n".join([*rows, '{"title": "bad BYTE"}']).encode().replace(b"BYTE", b"\xff")
    (folder / "titles.jsonl").write_bytes(content)
    train(
        tiny_recipe(folder / "titles.jsonl", data={"num_titles": "all", "normalise": ["lowercase"]}, train=EPOCH),
        folder / "file",
    )
    (folder / "hub").mkdir()
    datasets.Dataset.from_dict({"title": ["two\nlines", *plain]}).to_parquet(folder / "hub" / "train.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
        patch.setattr(sources, "HUB_DATASET", str(folder / "hub"))
        train(
            tiny_recipe(None, data={"source": "hackernews", "num_titles": "all"}, train=EPOCH),
            folder / "hackernews",
        )
    return [RunFolder.open(folder / name) for name in ("synthetic", "file", "hackernews")]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def newest(run: RunFolder) -> Path:
    return max(run.checkpoints.iterdir())


def test_the_files(runs: list[RunFolder]) -> None:
    for number, run in enumerate(runs):
        files = [path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()]
        only_first = {"checkpoints/<step>/datastores.safetensors"} if number else set()
        named = {re.sub(r"^checkpoints/\d+/", "checkpoints/<step>/", name) for name in files}
        assert named == first_column("") - only_first


def test_the_manifest(runs: list[RunFolder]) -> None:
    manifests = [read(run.path / "manifest.json") for run in runs]
    keys = documented(key for manifest in manifests for key in flat({**manifest, "recipe": None}))
    assert keys == first_column("manifest.json")
    assert all(isinstance(manifest["recipe"], dict) for manifest in manifests)


def test_the_changes_that_cleaning_counts(runs: list[RunFolder]) -> None:
    occurred = {name for run in runs for name in run.manifest()["data"]["cleaning"]}
    assert {name.replace("lowercase", "<name>") for name in occurred} == first_column("manifest.json", 1)
    assert set(WORDS) == first_column("manifest.json", 1) - {"changed_by_<name>"}


def test_the_events(runs: list[RunFolder]) -> None:
    fields = {
        event: names(theirs) + names(ours)
        for event, theirs, ours in ((*names(row[0]), *row[1:]) for row in tables("metrics.jsonl")[0])
    }
    for run in runs:
        seen = {}
        for event in run.metrics():
            assert list(event) == ["event", "timestamp", *fields[event["event"]]]
            seen[event["event"]] = event
        assert seen.keys() == fields.keys()
        assert seen["validation_step"]["loss"] == seen["validation_step"]["official_loss"]
        scores = run.scores()
        assert scores is not None
        assert seen["validation_step"]["document_loss"] == scores["loss"]


def test_the_checkpoints(runs: list[RunFolder]) -> None:
    for number, run in enumerate(runs):
        record = read(newest(run) / "checkpoint.json")
        only_first = {"files.datastores.safetensors"} if number else set()
        assert set(flat(record)) == first_column("checkpoints", 0) - only_first
        kept = [path.name for path in run.checkpoints.iterdir()]
        assert f"{record['progress']['step']:07d}" in kept
    states = [torch.load(newest(run) / "state.pt", weights_only=True).keys() for run in runs]
    keys = first_column("checkpoints", 1)
    assert states == [keys, keys - {"weights"}, keys - {"weights"}]


def test_the_scores(runs: list[RunFolder]) -> None:
    scores = [read(run.path / "scores.json") for run in runs]
    assert documented(key for each in scores for key in flat(each)) == first_column("scores.json")
    only_synthetic = {"floor", "excess"}
    assert [only_synthetic <= each.keys() for each in scores] == [True, False, False]


def test_what_the_page_says_of_values(runs: list[RunFolder]) -> None:
    (format_row,) = [row for row in tables("manifest.json")[0] if names(row[0]) == ["format"]]
    assert int(re.findall(r"\d+", format_row[1])[0]) == FORMAT
    for run in runs:
        manifest, scores, nats = run.manifest(), run.scores(), run.nats().nats_D
        assert scores is not None
        assert manifest["format"] == FORMAT
        assert scores["fingerprint"] == manifest["fingerprint"]
        assert {key: scores[key] for key in ("characters", "bytes")} == manifest["denominators"]
        assert nats.dtype == np.float64
        assert len(nats) == manifest["data"]["splits"]["validation"]["documents"] == scores["documents"]
        assert nats.sum() == pytest.approx(scores["nats"], rel=1e-12)
        assert read(newest(run) / "checkpoint.json")["progress"]["tokens"] == scores["tokens"]


def test_the_arrays_of_nats(runs: list[RunFolder]) -> None:
    arrays = [dict(np.load(run.nats_file)) for run in runs]
    assert documented(name for each in arrays for name in each) == first_column("nats.npz")
    for run, found in zip(runs, arrays, strict=True):
        scores = run.scores()
        assert scores is not None
        assert found["validation_characters"].sum() == scores["characters"]
        assert ("tuning" in found) == (scores["tuning_loss"] is not None)
        if "tuning" in found:
            assert run.nats("tuning").loss == pytest.approx(scores["tuning_loss"], rel=1e-12)


def test_nats_are_in_the_order_of_the_validation_split(runs: list[RunFolder]) -> None:
    """Whoever lays them beside the documents finds that longer ones take more."""
    run = runs[0]
    lengths = load_corpus(run.recipe().data).split("validation").lengths_D()
    assert np.corrcoef(lengths, run.nats().nats_D)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("kind", "keys"), [("bpe", {"model", "decoder"}), ("unigram", {"kind", "model"}), ("character", {"kind", "model"})]
)
def test_the_tokenizers_file(kind: str, keys: set[str], tmp_path: Path) -> None:
    size = 400 if kind == "unigram" else 300
    train(tiny_recipe(None, tokenizer={"kind": kind, "vocab_size": size}, train=EPOCH), tmp_path / "run", max_steps=1)
    found = read(tmp_path / "run" / "tokenizer.json").keys()
    assert found == keys if kind != "bpe" else keys <= found
