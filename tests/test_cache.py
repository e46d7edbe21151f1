"""The cache: an entry is made once, is whole or made anew, and never stands for something else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortrun import cache
from shortrun.cache import RECORD, cached, entries
from shortrun.cli import commands
from shortrun.errors import UserError
from shortrun.recipe import DataConfig
from shortrun.runs.folder import RunFolder
from shortrun.text import corpus
from shortrun.text.corpus import load_corpus
from shortrun.tokens import kinds
from shortrun.tokens.tokenizer import Tokenizer
from shortrun.train.fit import fit, train
from shortrun.train.prepare import Prepared, prepare
from tests.conftest import tiny_recipe

FILES = {"one": b"first\n" * 100, "two": bytes(range(256))}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own."""
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Builder:
    """Fills an entry with FILES, and counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        for name, content in FILES.items():
            (folder / name).write_bytes(content)


def an_entry(build: Callable[[Path], None], **made_from: Any) -> Path:
    return cached("thing", {"number": 1, **made_from}, "a thing", build)


def contents(entry: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in entry.iterdir() if path.name != RECORD}


def test_an_entry_is_made_once_for_what_it_was_made_from() -> None:
    build, other = Builder(), Builder()
    entry = an_entry(build, sizes=[1, 2], name="a")
    assert contents(entry) == FILES
    assert an_entry(build, name="a", sizes=[1, 2]) == entry, "the order of keys does not matter"
    assert build.times == 1
    places = {an_entry(other, sizes=[2, 1], name="a"), an_entry(other, sizes=[1, 2], name="b"), an_entry(other)}
    places.add(cached("other kind", {"number": 1, "sizes": [1, 2], "name": "a"}, "", other))
    assert other.times == len(places) == 4
    assert entry not in places


def test_another_format_makes_entries_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder()
    before = an_entry(build)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    assert an_entry(build) != before
    assert build.times == 2


CHILD = """
import sys, time
from pathlib import Path
from shortrun.cache import cached

here, name = Path(sys.argv[1]), sys.argv[2]

def build(folder):
    with (here / "built").open("a") as file:
        file.write(name + "\\n")
    (folder / "half").write_text("half of it")
    deadline = time.monotonic() + 60
    while len(list(here.glob("began-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # the other one has come to the lock by now
    (folder / "half").rename(folder / "whole")

(here / f"began-{name}").touch()
print(cached("thing", {"number": 1}, "a thing", build))
"""


def test_two_processes_at_once_make_an_entry_once(tmp_path: Path) -> None:
    """The second one waits for the first one's work and uses it."""
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    children = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b")]
    said = {child.communicate(timeout=100)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert len((tmp_path / "built").read_text().splitlines()) == 1
    (place,) = said
    assert contents(Path(place.strip())) == {"whole": b"half of it"}


def test_what_a_killed_process_left_is_made_anew(root: Path) -> None:
    script = (
        "import os, signal\nfrom shortrun.cache import cached\n"
        "def build(folder):\n"
        "    (folder / 'half').write_text('half of it')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "cached('thing', {'number': 1}, 'a thing', build)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], timeout=100, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.read_text() for path in root.glob("thing/*.tmp/half")] == ["half of it"]
    assert list(entries()) == []
    build = Builder()
    entry = an_entry(build)
    assert contents(entry) == FILES
    assert build.times == 1
    assert list(root.glob("thing/*.tmp")) == []


def flip_a_byte(entry: Path) -> None:
    content = bytearray((entry / "two").read_bytes())
    content[100] ^= 1
    (entry / "two").write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped byte": flip_a_byte,
    "a missing file": lambda entry: (entry / "one").unlink(),
    "a shortened file": lambda entry: os.truncate(entry / "one", 10),
    "a shortened record": lambda entry: os.truncate(entry / RECORD, (entry / RECORD).stat().st_size // 2),
    "an empty record": lambda entry: os.truncate(entry / RECORD, 0),
    "another record": lambda entry: (entry / RECORD).write_text('["files"]'),
    "no record": lambda entry: (entry / RECORD).unlink(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_entry_is_said_and_made_anew(name: str, caplog: pytest.LogCaptureFixture) -> None:
    build = Builder()
    entry = an_entry(build)
    assert not caplog.text, "an entry that is not there yet is not damaged"
    DAMAGES[name](entry)
    assert an_entry(build) == entry
    assert caplog.text.count("is damaged: ") == 1
    assert build.times == 2
    assert contents(entry) == FILES
    assert an_entry(build) == entry
    assert build.times == 2, "and is whole again"
    assert caplog.text.count("is damaged: ") == 1


def test_what_fails_leaves_nothing(root: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "half").write_text("half of it")
        raise UserError("the data is bad")

    with pytest.raises(UserError, match=r"^the data is bad$"):
        an_entry(fails)
    assert [path for path in root.rglob("*") if path.is_dir()] == [root / "thing"]
    assert contents(an_entry(Builder())) == FILES


def titles_of(path: Path, titles: list[str]) -> DataConfig:
    path.write_text("\n".join(titles) + "\n", encoding="utf-8")
    return DataConfig.model_validate({"path": [str(path)], "num_titles": "all", "shuffle": False})


def test_another_content_under_the_same_name_and_size_is_another_corpus(tmp_path: Path) -> None:
    path, titles = tmp_path / "titles.txt", [f"title {number:02}" for number in range(20)]
    data = titles_of(path, titles)
    before, old = path.stat(), load_corpus(data)
    titles_of(path, [title.upper() for title in titles])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    changed = load_corpus(data)
    assert list(changed.documents) == [title.upper() for title in titles]
    assert changed.sha256 != old.sha256
    assert list(old.documents) == titles, "the one before is what it was"


def test_a_damaged_corpus_is_read_anew(tmp_path: Path) -> None:
    titles = [f"title {number:02}" for number in range(20)]
    data = titles_of(tmp_path / "titles.txt", titles)
    load_corpus(data)
    (entry,) = entries()
    arrow = entry.path / "documents.arrow"
    content = arrow.read_bytes()
    at = content.index(b"title 07")
    arrow.write_bytes(content[:at] + b"TITLE" + content[at + 5 :])
    assert list(load_corpus(data).documents) == titles


def test_a_cache_that_cant_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        UserError, match=rf"^The cache {re.escape(str(tmp_path / 'file'))}.* can't be used.*SHORTRUN_CACHE"
    ):
        an_entry(Builder())
    assert commands.run(["data", "info", "quickstart", "--data.num-titles", "20"]) == 2
    assert "SHORTRUN_CACHE names another folder" in capsys.readouterr().err


def test_a_full_disk_is_a_sentence_and_leaves_nothing(root: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "half").write_text("half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device\. SHORTRUN_CACHE names another folder"):
        an_entry(fails)
    assert list(root.glob("thing/*/")) == []


def said_by(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    assert commands.run(["cache", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_shows_what_there_is_and_clears_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said_by(capsys) == {"root": str(root), "entries": []}
    entry = an_entry(Builder())
    (shown,) = said_by(capsys)["entries"]
    assert (shown["kind"], shown["about"], shown["path"]) == ("thing", "a thing", str(entry))
    assert shown["bytes"] == sum(map(len, FILES.values())) + (entry / RECORD).stat().st_size
    os.utime(entry / RECORD, (1e9, 1e9))
    assert said_by(capsys)["entries"][0]["last_used"] == 1e9
    an_entry(Builder())
    assert said_by(capsys)["entries"][0]["last_used"] > 1e9, "looking it up is using it"
    assert commands.run(["cache"]) == 0
    table = capsys.readouterr().out
    for expected in (str(root), "thing", "a thing"):
        assert expected in table
    assert said_by(capsys, "--clear") == {"root": str(root), "entries": []}
    assert not root.exists()


def test_clearing_leaves_what_is_no_entry(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SHORTRUN_CACHE may name a folder that holds other things too."""
    entry = an_entry(Builder())
    (entry.with_name(f"{entry.name}.tmp") / "inside").mkdir(parents=True)  # of a killed process
    kept = [root / "letter.txt", root / "thing" / "photo.jpg", root / "thesis" / "chapter" / "one.txt"]
    for path in kept:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("mine")
    assert said_by(capsys, "--clear")["entries"] == []
    assert sorted(path for path in root.rglob("*") if path.is_file()) == sorted(kept)
    assert sorted(path.name for path in root.rglob("*") if path.is_dir()) == ["chapter", "thesis", "thing"]


def test_clearing_leaves_an_entry_to_the_process_that_makes_it() -> None:
    def build(folder: Path) -> None:
        (folder / "before").touch()
        subprocess.run([sys.executable, "-m", "shortrun", "cache", "--clear"], check=True, capture_output=True)
        (folder / "after").touch()

    other = an_entry(Builder(), number=2)
    assert sorted(contents(an_entry(build))) == ["after", "before"]
    assert not other.exists()


# What runs share


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is called that takes time: reading a corpus, making a tokenizer, encoding a split."""
    calls: list[str] = []

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(corpus, "read_source")
    watch(kinds, "make_tokenizer")
    for name in ("encode_each", "encode_losslessly", "encode_joined"):
        watch(Tokenizer, name)
    return calls


def same_ids(one: Prepared, other: Prepared) -> bool:
    return all(
        np.array_equal(first, second)
        for first, second in (
            (one.train.ids_N, other.train.ids_N),
            (one.train.ends_D, other.train.ends_D),
            (one.validation.encoded.ids_N, other.validation.encoded.ids_N),
            (one.validation.encoded.ends_D, other.validation.encoded.ends_D),
            (one.validation.stream, other.validation.stream),
        )
    )


ALL_OF_IT = ["encode_each", "encode_joined", "encode_losslessly", "make_tokenizer", "read_source"]


def test_a_recipe_with_another_model_makes_nothing_anew(titles_file: Path, work: list[str]) -> None:
    first = prepare(tiny_recipe(titles_file))
    assert sorted(work) == ALL_OF_IT
    work.clear()
    second = prepare(
        tiny_recipe(
            titles_file,
            model={"n_layer": 2, "positions": "rotary"},
            optim={"name": "muon"},
            batches={"mode": "documents", "block_size": 32},
            train={"seed": 5, "epochs": 3},
        )
    )
    assert work == []
    assert same_ids(first, second)
    assert second.manifest() == first.manifest()


def test_another_tokenizer_shares_the_corpus(titles_file: Path, work: list[str]) -> None:
    first = prepare(tiny_recipe(titles_file))
    work.clear()
    second = prepare(tiny_recipe(titles_file, tokenizer={"vocab_size": 400}))
    assert sorted(work) == ALL_OF_IT[:-1]
    assert second.corpus.manifest == first.corpus.manifest
    assert not same_ids(first, second)
    held = [entry.kind for entry in entries()]
    assert [held.count(kind) for kind in ("corpus", "tokenizer", "ids")] == [1, 2, 6]


def test_the_same_documents_from_another_place_make_nothing_anew(titles_file: Path, work: list[str]) -> None:
    first = prepare(tiny_recipe(titles_file))
    work.clear()
    moved = titles_file.parent / "elsewhere" / titles_file.name
    moved.parent.mkdir()
    titles_file.rename(moved)
    assert same_ids(prepare(tiny_recipe(moved)), first)
    assert work == []


def test_a_recipe_that_selects_others_is_read_anew(titles_file: Path, work: list[str]) -> None:
    prepare(tiny_recipe(titles_file))
    for change in (
        {"num_titles": 300},
        {"seed": 5},
        {"shuffle": False},
        {"normalise": ["lowercase"]},
        {"val_frac": 0.3},
    ):
        work.clear()
        prepare(tiny_recipe(titles_file, data=change))
        assert "read_source" in work, change
        assert "make_tokenizer" in work, change


def test_two_runs_share_one_preparation(titles_file: Path, tmp_path: Path, work: list[str]) -> None:
    """The ids stay what they were, and a run on what was prepared is the run that prepares for itself."""
    recipe = tiny_recipe(titles_file, train={"epochs": 1})
    other = tiny_recipe(titles_file, train={"epochs": 1}, model={"n_layer": 2})
    prepared = prepare(recipe)
    work.clear()
    first = fit(prepared, recipe, tmp_path / "first")
    second = fit(prepared, other, tmp_path / "second")
    assert work == []
    assert same_ids(prepare(recipe), prepared)
    assert first.evaluation.loss.loss != second.evaluation.loss.loss
    alone = train(recipe, tmp_path / "alone")
    assert alone.evaluation.loss.loss == first.evaluation.loss.loss
    tokenizers = {RunFolder.open(tmp_path / name).tokenizer().sha256 for name in ("first", "second", "alone")}
    assert tokenizers == {prepared.tokenizer.sha256}


def test_a_run_goes_on_when_the_cache_is_cleared(titles_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(titles_file, train={"epochs": 1})
    whole = train(recipe, tmp_path / "whole")
    prepared = prepare(recipe)
    cache.clear()
    assert list(entries()) == []
    assert fit(prepared, recipe, tmp_path / "cleared").evaluation.loss.loss == whole.evaluation.loss.loss
