"""The page on a prepared corpus: what it says is what the manifest says, and text in it is text."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from shortrun.cli.commands import run
from shortrun.pipeline.prepare import prepare_corpus
from shortrun.report.corpus import corpus_report, write_corpus_page
from shortrun.report.html import MOST_BYTES, html
from tests.corpus_inputs import corpus_file, jsonl, prose
from tests.test_report import HOSTILE, Elements

SHORT = [text for text in HOSTILE if text.isprintable() and "&amp;" not in text]
"""Documents of too few words; those that repair would change are left out."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 documents that are kept, and all hostile ones, in a file that is named badly."""
    folder, out = (tmp_path_factory.mktemp(name) for name in ("inputs", "corpus"))
    jsonl(folder / "good.jsonl", [prose(seed) for seed in range(12)])
    jsonl(folder / "<b>bad.jsonl", SHORT)
    files = corpus_file(
        folder, {"path": ["."]}, about="<i>Mine</i>", quality={"rules": ["gopher"]}, repair={"ftfy": False}
    )
    prepare_corpus("mine", files, out / "mine")
    return out / "mine"


def manifest_of(corpus: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((corpus / "manifest.json").read_text())
    return found


def test_the_command_writes_a_page_in_which_documents_stay_text(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert run(["data", "show", str(corpus), "--html", str(path)]) == 0
    assert path.stat().st_size < MOST_BYTES
    page = Elements(path.read_text(encoding="utf-8"))
    assert not {"b", "i"} & set(page.names)
    assert page.names.count("script") == 3
    assert "Corpus: <i>Mine</i>" in page.text
    assert f"{12 + len(SHORT)} documents were read. 12 are kept" in page.text
    assert "<b>bad.jsonl, line 1" in page.text
    rejected = manifest_of(corpus)["steps"]
    texts = [one["text"] for step in rejected for found in step["reasons"].values() for one in found["examples"]]
    assert len(texts) >= 10
    assert all(text in page.text for text in texts)


def test_the_histogram_has_every_document_once(corpus: Path) -> None:
    manifest = manifest_of(corpus)
    figure = next(iter(corpus_report(corpus, manifest, 10, "x").figures))
    assert figure.chart is not None
    bars = figure.chart["data"]["values"]
    for name, split in manifest["splits"].items():
        assert sum(bar["documents"] for bar in bars if bar["split"] == name) == split["documents"]
    assert all(bar["to"] == 2 * bar["from"] for bar in bars)


def test_a_page_that_would_be_too_large_has_fewer_examples(corpus: Path, tmp_path: Path) -> None:
    manifest = copy.deepcopy(manifest_of(corpus))
    example = {"place": "a.jsonl, line 1", "detail": "", "text": "<" * 400}
    many = {f"reason {number}": {"documents": 10, "examples": [example] * 10} for number in range(400)}
    manifest["steps"][-1]["reasons"] = many
    assert len(html(corpus_report(corpus, manifest, 2, "x")).encode()) < MOST_BYTES
    assert write_corpus_page(corpus, manifest, 10, "x", tmp_path / "page.html") == 2
    assert (tmp_path / "page.html").stat().st_size < MOST_BYTES


def test_a_corpus_of_which_nothing_is_left(corpus: Path) -> None:
    manifest = manifest_of(corpus)
    manifest["lengths"] = {name: [] for name in manifest["lengths"]}
    assert "No document is left." in Elements(html(corpus_report(corpus, manifest, 1, "x"))).text
