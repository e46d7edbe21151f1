"""What is said of a tokenizer is what a plain count of its ids says."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortrun.recipe import TokenizerConfig
from shortrun.recipe_file import to_toml
from shortrun.runs.folder import RunFolder
from shortrun.text.documents import Documents
from shortrun.tokens.kinds import make_tokenizer
from shortrun.view.tokenizer import TokenizerReport, report_on
from shortrun.view.tokenizer_charts import tokenizer_chart
from tests.conftest import run_command, tiny_recipe

SETTINGS = {
    "bpe": TokenizerConfig(vocab_size=400),
    "unigram": TokenizerConfig(kind="unigram", vocab_size=400),
    "seen bytes": TokenizerConfig(vocab_size=200, byte_alphabet="seen"),
}
BLOCK = 16


@pytest.fixture(scope="module")
def texts(titles: list[str]) -> dict[str, list[str]]:
    """The validation documents have characters that the others lack."""
    return {"train": titles[:300], "validation": [*titles[300:], "ᚁ an ogham letter ᚁ", "[red]<eos>[/red] \x08"]}


@pytest.fixture(scope="module", params=SETTINGS)
def report(request: pytest.FixtureRequest, texts: dict[str, list[str]]) -> TokenizerReport:
    tokenizer = make_tokenizer(texts["train"], SETTINGS[request.param])
    return report_on(tokenizer, {name: Documents.of(some) for name, some in texts.items()}, BLOCK)


def test_its_numbers_are_those_of_a_plain_count(report: TokenizerReport, texts: dict[str, list[str]]) -> None:
    tokenizer = report.tokenizer
    special = (tokenizer.pad, tokenizer.eos, tokenizer.unk)
    ids_V = [token for token in range(tokenizer.vocab_size) if token not in special]
    whole = [tokenizer.bytes_of(token) for token in ids_V if not tokenizer.is_fallback(token)]
    for name, documents in texts.items():
        encoded = [tokenizer.encode(text) for text in documents]
        tokens = [token for ids in encoded for token in ids]
        letters = "".join(documents)
        lengths = [len(ids) + 1 for ids in encoded]
        known = {letter for letter in set(letters) if any(letter.encode() in piece for piece in whole)}
        found = report.as_dict(5)["splits"][name]
        exact = [
            tokenizer.decode(ids) == text and tokenizer.unk not in ids
            for ids, text in zip(encoded, documents, strict=True)
        ]
        assert found["given_back"] == sum(exact) / len(documents)
        assert (
            found["lost_examples"] == tuple(text for text, same in zip(documents, exact, strict=True) if not same)[:5]
        )
        assert (found["documents"], found["tokens"]) == (len(documents), len(tokens))
        assert (found["characters"], found["words"]) == (len(letters), sum(len(text.split()) for text in documents))
        assert found["distinct_characters"] == len(set(letters))
        assert found["distinct_characters_known"] == len(known)
        assert found["characters_known"] == pytest.approx(sum(letter in known for letter in letters) / len(letters))
        assert found["unknown_rate"] == pytest.approx(tokens.count(tokenizer.unk or -1) / len(tokens))
        assert found["byte_fallback_rate"] == pytest.approx(sum(map(tokenizer.is_fallback, tokens)) / len(tokens))
        assert found["tokens_per_document"] == pytest.approx(len(tokens) / len(documents))
        assert found["tokens_per_character"] == pytest.approx(len(tokens) / len(letters))
        assert found["fertility"] == pytest.approx(len(tokens) / found["words"])
        assert found["length"] == {
            "mean": pytest.approx(statistics.mean(lengths)),
            "median": statistics.median(lengths),
            "p95": pytest.approx(np.percentile(lengths, 95)),
            "max": max(lengths),
            "longer_than_block": pytest.approx(sum(length > BLOCK for length in lengths) / len(lengths)),
        }


def test_its_pieces_are_those_that_training_documents_use(report: TokenizerReport, texts: dict[str, list[str]]) -> None:
    tokenizer = report.tokenizer
    counts = Counter(token for text in texts["train"] for token in (*tokenizer.encode(text), tokenizer.eos))
    found = report.as_dict(tokenizer.vocab_size)
    assert {piece["id"]: piece["count"] for piece in found["most_frequent"]} == counts
    assert [piece["count"] for piece in found["most_frequent"]] == sorted(counts.values(), reverse=True)
    assert sum(piece["share"] for piece in found["most_frequent"]) == pytest.approx(1)
    special = {tokenizer.pad, tokenizer.eos, tokenizer.unk}
    unused = set(range(tokenizer.vocab_size)) - counts.keys() - special
    single = {token for token in range(tokenizer.vocab_size) if len(tokenizer.bytes_of(token)) == 1}
    assert set(report.never_used.tolist()) == unused - single
    assert found["bytes_never_used"] == len(unused & single)
    assert found["never_used"] == len(unused - single)
    assert found["never_used_share"] == pytest.approx(len(unused - single) / (tokenizer.vocab_size - 3 - len(single)))
    lengths = [len(piece["token"]) for piece in found["longest"]]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) == max(
        len(tokenizer.piece(token))
        for token in set(range(tokenizer.vocab_size)) - special
        if not tokenizer.is_fallback(token)
    )


def test_a_tokenizer_that_loses_text_is_described(texts: dict[str, list[str]]) -> None:
    """One that has no loss can still be looked at."""
    tokenizer = make_tokenizer(texts["train"], SETTINGS["seen bytes"])
    found = report_on(tokenizer, {"validation": Documents.of(texts["validation"])}, BLOCK).as_dict(3)
    split = found["splits"]["validation"]
    assert 0.9 < split["given_back"] < 1
    assert set(split["lost_examples"]) >= set(texts["validation"][-2:])
    assert split["unknown_rate"] > 0
    assert (found["never_used"], found["most_frequent"]) == (None, [])


def test_empty_documents_are_counted() -> None:
    tokenizer = make_tokenizer(["some words"] * 3, SETTINGS["bpe"])
    found = report_on(tokenizer, {"train": Documents.of(["", ""])}, BLOCK).as_dict(3)["splits"]["train"]
    assert (found["tokens"], found["fertility"], found["given_back"], found["length"]["max"]) == (0, 0, 1, 1)


# the command


def told(*args: str | Path) -> dict[str, Any]:
    done = run_command("tokenizer", *args, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(*args: str | Path) -> str:
    done = run_command("tokenizer", *args)
    assert (done.returncode, done.stdout) == (2, "")
    return " ".join(done.stderr.split())


@pytest.fixture
def run(whole: Callable[[str], Path]) -> Path:
    return whole("shuffled")


def test_runs_files_and_recipes_are_described(run: Path, tmp_path: Path) -> None:
    folder = RunFolder.open(run)
    of_run = told(run)
    assert of_run["sha256"] == folder.manifest()["tokenizer"]["sha256"]
    assert of_run["splits"]["train"]["tokens"] + 360 == folder.manifest()["tokenizer"]["train_tokens"]
    assert of_run["block_size"] == 16
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(folder.recipe()))
    assert told(recipe) == {**of_run, "tokenizer": str(recipe)}
    file = run / "tokenizer.json"
    data = folder.recipe().data.path[0]
    of_file = told(file, "--data.path", data, "--data.seed", "7")
    assert of_file["sha256"] == of_run["sha256"]
    assert of_file["splits"]["train"]["documents"] == 360
    assert of_file["splits"]["train"]["tokens"] != of_run["splits"]["train"]["tokens"], "another seed, another split"
    alone = run_command("tokenizer", file, "--json")
    assert "Only its vocabulary is shown" in alone.stderr
    assert json.loads(alone.stdout)["splits"] == {}
    assert [piece["token"] for piece in json.loads(alone.stdout)["longest"]] == [p["token"] for p in of_run["longest"]]
    assert "longest pieces" in run_command("tokenizer", file).stdout
    assert "given back exactly" in run_command("tokenizer", run).stdout


def test_sizes_that_follow_from_the_data_are_taken_from_it(titles_file: Path) -> None:
    done = run_command("tokenizer", "own", "--data.path", titles_file, "--json")
    assert "tokenizer.vocab_size = 512, because" in done.stderr
    assert json.loads(done.stdout)["vocab_size"] <= 512


def test_sizes_are_compared(run: Path) -> None:
    found = told(run, "--sizes", "350", "300", "350")
    assert [row["vocab_size"] for row in found["sizes"]] == [300, 350]
    small, large = found["sizes"]
    assert small == {key: found[key] for key in small}, "a size that is the run's own has the run's numbers"
    for key in ("mean_length", "tokens_per_character", "fertility"):
        assert large[key] < small[key]
    assert "vocabulary sizes" in run_command("tokenizer", run, "--sizes", "300").stdout


def test_a_run_whose_documents_are_gone_still_has_a_vocabulary(tmp_path: Path, titles: list[str]) -> None:
    file, moved, recipe = tmp_path / "titles.txt", tmp_path / "moved.txt", tmp_path / "tiny.toml"
    file.write_text("\n".join(titles) + "\n", encoding="utf-8")
    recipe.write_text(to_toml(tiny_recipe(file)))
    run = tmp_path / "run"
    assert run_command("train", recipe, "--out", run, "--max-steps", "1").returncode == 0
    before = told(run)
    file.rename(moved)
    done = run_command("tokenizer", run, "--json")
    assert "documents are gone" in done.stderr
    assert json.loads(done.stdout)["splits"] == {}
    assert told(run, "--data.path", moved)["splits"] == before["splits"]
    assert "a RUN that has them" in refused(run, "--sizes", "300")


def test_mistakes_of_tokenizer_are_sentences(run: Path, tmp_path: Path) -> None:
    assert "did you mean 'quickstart'?" in refused("quikstart")
    assert "there is nothing of that name" in refused("runs/nothing")
    assert "is not a run" in refused(tmp_path)
    assert "There is no tokenizer file" in refused("nothing.json")
    assert "--model.n_layer has no effect here" in refused(run, "--model.n-layer", "2")
    assert "did you mean 'path'?" in refused(run / "tokenizer.json", "--data.pat", "x")
    assert "use at least 259" in refused(run, "--sizes", "300", "20")
    assert "give a RECIPE" in refused(run / "tokenizer.json", "--sizes", "300")
    assert "--show -1 must be at least 0" in refused(run, "--show", "-1")
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert "is not a tokenizer file" in refused(other)


def test_it_draws(run: Path, tmp_path: Path, report: TokenizerReport) -> None:
    pytest.importorskip("altair")
    lengths, frequencies = tokenizer_chart(report).to_dict()["vconcat"][0]["hconcat"]
    shares = Counter[str]()
    for bar in lengths["layer"][0]["data"]["values"]:
        shares[bar["split"]] += bar["share"]
    assert shares["train"] == pytest.approx(1, abs=0.02), "all but the longest documents are drawn"
    assert report.train is not None
    assert frequencies["data"]["values"][0]["count"] == report.train.counts_V.max()
    told(run, "--sizes", "300", "350", "--chart", tmp_path / "all.svg")
    svg = (tmp_path / "all.svg").read_text(encoding="utf-8")
    assert "share of documents" in svg
    assert "pieces never used" in svg
    assert "nothing to draw" in refused(run / "tokenizer.json", "--chart", tmp_path / "none.svg")
