"""The corpus pipeline as a whole: what comes out, counted; the same bytes whoever works, and whatever interrupts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shortrun.disk import file_sha256
from shortrun.errors import ShortrunError, UserError
from shortrun.pipeline import work
from shortrun.pipeline.corpus_file import CorpusFile
from shortrun.pipeline.prepare import prepare_corpus
from shortrun.pipeline.runner import Crew, Progress, Stopped
from tests.commands_of import files_of
from tests.conftest import ROOT, run_command
from tests.corpus_inputs import corpus_file, every_kind, jsonl, near, page, prose

ALL_RULES = {"rules": ["repetition", "gopher", "c4", "fineweb", "links"]}


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    every_kind(folder)
    return folder


def rows_of(out: Path, split: str) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def texts_of(out: Path, split: str) -> list[str]:
    return [row["text"] for row in rows_of(out, split)]


def bytes_of(out: Path) -> dict[str, str]:
    return {path.relative_to(out).as_posix(): file_sha256(path) for path in sorted(out.rglob("*")) if path.is_file()}


def step(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(step for step in manifest["steps"] if step["name"] == name)
    return found


def test_every_kind_of_file_is_read_and_what_is_damaged_is_named(inputs: Path, tmp_path: Path) -> None:
    manifest = prepare_corpus("all", corpus_file(inputs, duplicates={"near": "off", "exact": False}), tmp_path / "out")
    rows = rows_of(tmp_path / "out", "train") + rows_of(tmp_path / "out", "validation")
    origins = [row["place"].split(",")[0].split("/")[0] for row in rows]
    kinds = ["html" if origin.endswith(".html") else origin for origin in origins]
    expected = every_kind(tmp_path / "again")
    assert {kind: kinds.count(kind) for kind in expected} == expected
    torn = [row for row in rows if row["place"].startswith("torn.jsonl.gz")]
    assert 0 < len(torn) < 160  # what stands before the damage
    assert len(rows) == sum(expected.values()) + len(torn)
    reasons = step(manifest, "reading")["reasons"]
    places = {reason: [example["place"] for example in found["examples"]] for reason, found in reasons.items()}
    assert sorted(places["damaged file"]) == ["torn.jsonl.gz", "torn.parquet"]
    assert {"lines.jsonl, line 21", "packed.jsonl.gz, line 21"} <= set(places["not JSON"])
    assert {"lines.jsonl, line 22", "packed.jsonl.gz, line 22"} == set(places["no such column"])
    assert {"lines.jsonl, line 23", "packed.jsonl.gz, line 23"} == set(places["not text"])
    assert {"lines.jsonl, line 24", "packed.jsonl.gz, line 24", "table.parquet, row 16"} == set(places["no text"])
    assert places["not CSV"] == ["table.csv, line 22"]
    assert places["binary file"] == ["notes/binary.txt"]
    assert step(manifest, "reading")["changed"] == 1  # the byte that is no UTF-8
    assert manifest["not_read"] == {".png": 1}
    assert step(manifest, "extraction")["reasons"]["no main text"]["examples"][0]["place"] == "empty.html"


def test_the_counts_of_each_step_begin_where_those_of_the_last_end(inputs: Path, tmp_path: Path) -> None:
    file = corpus_file(inputs, quality=ALL_RULES)
    manifest = prepare_corpus("all", file, tmp_path / "out")
    names = [each["name"] for each in manifest["steps"]]
    assert names == ["reading", "extraction", "repair", *ALL_RULES["rules"], "exact duplicates", "near-duplicates"]
    for each in manifest["steps"]:
        rejected = sum(found["documents"] for found in each["reasons"].values())
        assert each["documents_in"] == each["documents_out"] + rejected
        assert all(len(found["examples"]) == min(10, found["documents"]) for found in each["reasons"].values())
    for before, after in zip(manifest["steps"][2:], manifest["steps"][3:], strict=False):
        assert (before["documents_out"], before["characters_out"]) == (after["documents_in"], after["characters_in"])
    last = manifest["steps"][-1]
    for what in ("documents", "characters"):
        assert last[f"{what}_out"] == sum(split[what] for split in manifest["splits"].values())
    for name, split in manifest["splits"].items():
        texts = texts_of(tmp_path / "out", name)
        assert split["documents"] == len(texts)
        assert split["characters"] == sum(map(len, texts))
        assert split["bytes"] == sum(len(text.encode()) for text in texts)
        assert sum(manifest["lengths"][name]) == len(texts)
    for shard in manifest["shards"]:
        assert file_sha256(tmp_path / "out" / shard["name"]) == shard["sha256"]
    assert [each["sha256"] for each in manifest["inputs"][0]["listed"]] == [
        file_sha256(inputs / each["name"]) for each in manifest["inputs"][0]["listed"]
    ]


def test_duplicates_are_found_and_named(tmp_path: Path) -> None:
    texts = [prose(seed) for seed in range(20)]
    jsonl(tmp_path / "a.jsonl", [*texts, texts[3], near(texts[5])])
    jsonl(tmp_path / "b.jsonl", [near(texts[7]), texts[8]])
    manifest = prepare_corpus(
        "twice", corpus_file(tmp_path, {"path": ["a.jsonl"]}, {"path": ["b.jsonl"]}), tmp_path / "out"
    )
    exact = step(manifest, "exact duplicates")["reasons"]["equal to an earlier document"]["examples"]
    assert [(each["place"], each["detail"]) for each in exact] == [
        ("a.jsonl, line 21", "like a.jsonl, line 4"), ("b.jsonl, line 2", "like a.jsonl, line 9"),
    ]  # fmt: skip
    like = step(manifest, "near-duplicates")["reasons"]["nearly equal to an earlier document"]["examples"]
    assert [(each["place"], each["detail"]) for each in like] == [
        ("a.jsonl, line 22", "like a.jsonl, line 6"), ("b.jsonl, line 1", "like a.jsonl, line 8"),
    ]  # fmt: skip
    assert sorted([*texts_of(tmp_path / "out", "train"), *texts_of(tmp_path / "out", "validation")]) == sorted(texts)


def test_no_group_of_near_duplicates_straddles_the_split(tmp_path: Path) -> None:
    texts = [prose(seed) for seed in range(30)]
    jsonl(tmp_path / "a.jsonl", [*texts, *map(near, texts), *texts])
    file = corpus_file(tmp_path, {"path": ["a.jsonl"]}, duplicates={"exact": False, "near": "group"})
    manifest = prepare_corpus("groups", file, tmp_path / "out")
    assert sum(split["documents"] for split in manifest["splits"].values()) == 90
    groups = {split: {row["group"] for row in rows_of(tmp_path / "out", split)} for split in ("train", "validation")}
    assert groups["validation"]
    assert not groups["train"] & groups["validation"]
    assert len(groups["train"] | groups["validation"]) == 30


def test_what_is_like_a_document_of_a_validation_input_leaves_training(tmp_path: Path) -> None:
    texts = [prose(seed) for seed in range(20)]
    jsonl(tmp_path / "train.jsonl", [*texts, near(prose(100)), prose(101)])
    jsonl(tmp_path / "held.jsonl", [prose(100), prose(101), prose(102)])
    held = {"path": ["held.jsonl"], "split": "validation"}
    for near_switch in ("drop", "group"):
        file = corpus_file(
            tmp_path, {"path": ["train.jsonl"]}, held, split={"validation": 0.0}, duplicates={"near": near_switch}
        )
        out = tmp_path / near_switch
        manifest = prepare_corpus("held", file, out)
        assert sorted(texts_of(out, "train")) == sorted(texts)
        assert texts_of(out, "validation") == [prose(100), prose(101), prose(102)]
        found = step(manifest, "held out")["reasons"]["like a document of a validation input"]["examples"]
        assert [each["detail"] for each in found] == ["like held.jsonl, line 1", "like held.jsonl, line 2"]


def test_a_corpus_that_grows_keeps_its_split(tmp_path: Path) -> None:
    texts = [prose(seed) for seed in range(80)]
    splits = []
    for size in (40, 80):
        jsonl(tmp_path / "a.jsonl", texts[:size])
        prepare_corpus("grows", corpus_file(tmp_path, {"path": ["a.jsonl"]}), tmp_path / f"{size}")
        splits.append(set(texts_of(tmp_path / f"{size}", "validation")))
    assert splits[0]
    assert splits[0] == splits[1] & set(texts[:40])
    other = corpus_file(tmp_path, {"path": ["a.jsonl"]}, split={"validation": 0.2, "seed": 7})
    prepare_corpus("grows", other, tmp_path / "other")
    assert set(texts_of(tmp_path / "other", "validation")) != splits[1]


def test_work_that_stops_goes_on_and_ends_in_the_same_bytes(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    do_unit = work.do_unit

    def listed(job: work.UnitJob) -> None:
        done.append(job.number)
        do_unit(job)

    monkeypatch.setattr("shortrun.pipeline.prepare.do_unit", listed)
    file = corpus_file(inputs)
    prepare_corpus("all", file, tmp_path / "whole")
    units = done.copy()
    done.clear()
    for pieces in (1, 3, len(units), 10_000):  # a stop after so many pieces of work, in one stage or another
        left = pieces

        def told(at: Progress) -> None:
            nonlocal left
            left -= at.done > 0 and at.stage != "looking at the input"

        crew = Crew(1, told, lambda: 2 if left <= 0 else 0)  # noqa: B023
        if pieces == 10_000:
            prepare_corpus("all", file, tmp_path / "out", crew)
        else:
            with pytest.raises(Stopped) as stopped:
                prepare_corpus("all", file, tmp_path / "out", crew)
            assert stopped.value.exit_code == 130
            assert not (tmp_path / "out" / "manifest.json").exists()
    assert done == units  # each once
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


@pytest.mark.slow
def test_killed_work_of_two_workers_goes_on_and_ends_in_the_bytes_of_one(inputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.toml"
    path.write_text(
        f'root = "{inputs.as_posix()}"\n[[input]]\nname = "all"\npath = ["."]\n'
        "[output]\nunit_bytes = 5000\nshard_bytes = 20000\nmax_document_bytes = 1000000\n[split]\nvalidation = 0.2\n"
    )
    prepare_corpus("corpus", corpus_file(inputs), tmp_path / "whole")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "shortrun", "data", "prepare", str(path), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while process.poll() is None and len(list(out.glob(".work/*/unit-*.json"))) < 3:
            time.sleep(0.01)
    finally:
        with_workers = os.getpgid(process.pid) if process.poll() is None else None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, "the work was over before it was killed"
    done = len(list(out.glob(".work/*/unit-*.json")))
    assert done >= 3
    if with_workers is not None:  # the workers end by themselves when their parent is gone
        for _ in range(1_000):
            try:
                os.killpg(with_workers, 0)
            except ProcessLookupError:
                break
            time.sleep(0.01)
        else:
            os.killpg(with_workers, signal.SIGKILL)
            pytest.fail("workers outlived their parent")
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_prepared_twice_is_prepared_once_and_another_file_is_refused(inputs: Path, tmp_path: Path) -> None:
    file = corpus_file(inputs, {"name": "table", "path": ["table.parquet"]})
    first = prepare_corpus("one", file, tmp_path / "out")
    before = bytes_of(tmp_path / "out")

    def never(at: Progress) -> None:
        assert at.stage == "looking at the input"

    assert prepare_corpus("one", file, tmp_path / "out", Crew(1, never)) == first
    next((tmp_path / "out").glob("train-*")).write_bytes(b"damaged")
    prepare_corpus("one", file, tmp_path / "out", replace=True)
    assert bytes_of(tmp_path / "out") == before
    other = corpus_file(inputs, {"name": "table", "path": ["table.parquet"]}, quality=ALL_RULES)
    with pytest.raises(UserError, match="--replace"):
        prepare_corpus("one", other, tmp_path / "out")
    assert bytes_of(tmp_path / "out") == before
    prepare_corpus("one", other, tmp_path / "out", replace=True)
    prepare_corpus("one", other, tmp_path / "fresh")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "fresh")


def test_a_document_that_is_too_long_is_named_and_not_held_in_memory(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [prose(1), "x" * 3_000_000, prose(2)])
    (tmp_path / "b.csv").write_text(f'id,text\n1,"{prose(3)}"\n2,"{"y" * 1_500_000}\n', encoding="utf-8")
    file = corpus_file(tmp_path, {"path": ["a.jsonl"]}, {"path": ["b.csv"]})
    manifest = prepare_corpus("long", file, tmp_path / "out")
    found = step(manifest, "reading")["reasons"]
    assert found["too long"]["examples"][0]["place"] == "a.jsonl, line 2"
    assert sum(split["documents"] for split in manifest["splits"].values()) == 3


def test_text_and_names_that_no_file_can_hold_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud800"}\n{"text": "<p>\\ud800</p>"}\n' * 2, encoding="utf-8")
    jsonl(tmp_path / "b.jsonl", [prose(1), prose(2)])
    (tmp_path / os.fsdecode(b"\xff.txt")).write_text(prose(3))
    inputs = ({"path": ["a.jsonl"], "kind": "html"}, {"name": "folder", "path": ["."]})
    manifest = prepare_corpus("odd", corpus_file(tmp_path, *inputs), tmp_path / "out")
    assert manifest["not_read"] == {"name that is not UTF-8": 1}
    assert step(manifest, "extraction")["documents_in"] == 4
    assert {prose(1), prose(2)} <= {*texts_of(tmp_path / "out", "train"), *texts_of(tmp_path / "out", "validation")}


def test_a_folder_with_other_tables_is_left_alone(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "train-00000.parquet").write_bytes(b"mine")
    with pytest.raises(UserError, match="is no part of a prepared corpus"):
        prepare_corpus("all", corpus_file(inputs), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000.parquet"]


def test_nothing_left_is_a_sentence(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [" ", ""])
    with pytest.raises(UserError, match="nothing to train on"):
        prepare_corpus("none", corpus_file(tmp_path, {"path": ["a.jsonl"]}), tmp_path / "out")


def test_a_worker_that_dies_is_a_sentence() -> None:
    with pytest.raises(ShortrunError, match="same command goes on"):
        Crew(2).do("dying", os._exit, [1, 2], [1, 1])


@pytest.fixture
def prepared(inputs: Path, tmp_path: Path) -> Path:
    prepare_corpus("all", corpus_file(inputs, about="Some texts [bold]"), tmp_path / "out")
    return tmp_path / "out"


def test_a_person_sees_steps_examples_and_lengths(prepared: Path) -> None:
    done = run_command("data", "show", prepared, "--examples", "1")
    assert done.returncode == 0
    for words in ("near-duplicates", "Some texts [bold]", "lines.jsonl, line 21", "length of the documents", ".png"):
        assert words in done.stdout
    as_json = run_command("data", "show", prepared, "--json")
    assert '"steps"' in as_json.stdout
    nothing = run_command("data", "show", prepared.parent)
    assert nothing.returncode == 2
    assert "no prepared corpus" in nothing.stderr


def test_the_command_prepares_a_file(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    for seed in range(6):
        (tmp_path / "pages" / f"{seed}.html").write_text(page(prose(seed)), encoding="utf-8")
    (tmp_path / "mine.toml").write_text('[[input]]\npath = ["pages"]\n[split]\nvalidation = 0.3\n')
    done = run_command("data", "prepare", "mine.toml", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "extraction" in done.stdout
    texts = texts_of(tmp_path / "corpora" / "mine", "train") + texts_of(tmp_path / "corpora" / "mine", "validation")
    assert len(texts) == 6
    assert all("Privacy policy" not in text for text in texts)
    assert all(any(line in text for text in texts) for line in prose(4).split("\n"))


def test_the_page_on_corpora_can_be_followed(tmp_path: Path) -> None:
    for name, text in files_of((ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "texts").mkdir()
    for seed in range(40):
        (tmp_path / "texts" / f"{seed}.txt").write_text(prose(seed), encoding="utf-8")
    assert run_command("data", "prepare", "mine.toml", "--workers", "1", cwd=tmp_path).returncode == 0
    assert run_command("data", "show", "corpora/mine", cwd=tmp_path).returncode == 0
    done = run_command("data", "info", "mine-recipe.toml", "--data.tuning-titles", "3", "--json", cwd=tmp_path)
    splits = json.loads(done.stdout)["splits"]
    assert splits["tuning"]["documents"] == 3
    assert sum(split["documents"] for split in splits.values()) == 40


def test_mistakes_in_a_file_are_all_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(
        '[[input]]\npath = ["x"]\nkind = "htm"\n[quality]\nrules = ["gofer"]\n[duplicates]\nnaer = "drop"\n[quality.gopher]\nmin_word = 3\n'
    )
    done = run_command("data", "prepare", "bad.toml", cwd=tmp_path)
    assert done.returncode == 2
    for words in ("did you mean 'html'", "did you mean 'gopher'", "did you mean 'near'", "did you mean 'min_words'"):
        assert words in done.stderr
    (tmp_path / "none.toml").write_text('[[input]]\npath = ["text", "*.jsonl"]\n[[input]]\npath = ["texts/a.pdf"]\n')
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.pdf").write_bytes(b"%PDF")
    done = run_command("data", "prepare", "none.toml", cwd=tmp_path)
    for words in ("did you mean 'texts'", "no file matches", "files of this kind"):
        assert words in done.stderr
    jsonl(tmp_path / "a.jsonl", ["x"], column="txt")
    (tmp_path / "column.toml").write_text('[[input]]\npath = ["a.jsonl"]\n')
    assert 'no column "text"; did you mean' in run_command("data", "prepare", "column.toml", cwd=tmp_path).stderr
    assert "did you mean 'web'" in run_command("data", "prepare", "wab").stderr


def test_shipped_files_are_valid() -> None:
    from shortrun.pipeline.corpus_file import load_corpus_file, shipped_corpora

    assert "web" in shipped_corpora()
    for name in shipped_corpora():
        assert isinstance(load_corpus_file(name)[1], CorpusFile)
