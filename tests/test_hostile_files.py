"""Files of strangers: whatever is in them, reading them ends, in bounded memory, with what they hold or with a sentence."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.check.rules import load_rules, shipped_rules
from shortrun.errors import UserError, did_you_mean
from shortrun.pipeline.corpus_file import CorpusFile, load_corpus_file, shipped_corpora
from shortrun.pipeline.extraction import EXTRACTORS, Extraction
from shortrun.pipeline.prepare import prepare_corpus
from shortrun.recipe_file import load_recipe, shipped_recipes, to_toml
from shortrun.study.study_file import load_study, shipped_studies
from shortrun.study.sweep_file import load_sweep, shipped_sweeps
from shortrun.text.files import READERS, read_column
from tests.conftest import ROOT
from tests.hostile import damaged, declarations, tried

Read = Callable[[str], Any]
DECLARED: dict[str, tuple[Read, dict[str, Path]]] = {
    "recipe": (load_recipe, shipped_recipes()),
    "study": (load_study, shipped_studies()),
    "sweep": (load_sweep, shipped_sweeps()),
    "corpus": (load_corpus_file, shipped_corpora()),
    "rules": (load_rules, shipped_rules()),
}


def refused_or(read: Callable[[], Any]) -> Any:
    """What reading gives, or None where it is refused with a sentence."""
    with contextlib.suppress(UserError):
        return read()
    return None


# What a person writes: recipes, studies, sweeps, corpora, rules


@pytest.mark.parametrize("kind", DECLARED)
def test_a_declaration_with_anything_in_it_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    read, shipped = DECLARED[kind]
    texts = [path.read_text(encoding="utf-8") for path in shipped.values()]
    if kind == "recipe":
        texts.append(to_toml(load_recipe("baseline")))
    path = tmp_path / "declared.toml"

    @tried(25)
    @given(declarations(texts))
    def held(text: str) -> None:
        path.write_text(text, encoding="utf-8")
        refused_or(lambda: read(str(path)))

    held()


BOMBS = {
    "nested": b"x = " + b"[" * 5_000 + b"]" * 5_000,
    "nested keys": b"[" + b".".join([b"a"] * 50) + b"]\nx = 1\n",
    "a key of 100,000 parts": b".".join([b"a"] * 100_000) + b" = 1\n",
    "100,000 keys": b"".join(b"k%d = 1\n" % number for number in range(100_000)),
    "a number of 10,000 digits": b"x = " + b"9" * 10_000,
    "a number of 10,000 digits in hexadecimal": b"[optim]\nlr = 0x" + b"f" * 10_000,
    "no UTF-8": b"\xff\xfe\x00x",
    "2 MB of one word": b'about = "' + b"a" * 2_000_000 + b'"\n',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_declaration_made_to_hurt_is_a_sentence(bomb: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.toml"
    path.write_bytes(BOMBS[bomb])
    for read, _ in DECLARED.values():
        with pytest.raises(UserError):
            read(str(path))


def test_a_grid_without_end_is_refused(tmp_path: Path) -> None:
    values = ", ".join(str(number / 100) for number in range(1, 21))
    changes = [
        f'[[change]]\nname = "{field}"\nreason = "all of it"\n{field} = [{values}]\n'
        for field in ("model.dropout", "optim.lr", "optim.weight_decay", "optim.grad_clip")
    ]
    path = tmp_path / "grid.toml"
    path.write_text(
        'about = "all"\nbase = "baseline"\nform = "grid"\nseeds = [1]\n[scale]\ntitles = 0.1\n' + "".join(changes)
    )
    with pytest.raises(UserError, match="more than 10,000 runs"):
        load_study(str(path))


def test_the_nearest_name_is_looked_for_in_bounds() -> None:
    names = [f"column {number}" for number in range(1_000_000)]
    assert did_you_mean("colum 7", names).startswith("did you mean")
    assert len(did_you_mean("a" * 1_000_000, names)) < 5_000
    assert did_you_mean("x", ["y" * 1_000_000]) == "there are none to choose from"


# What documents come from


def parquet(rows: list[str | None]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"title": pa.array(rows, pa.string()), "id": list(range(len(rows)))}), sink)
    return sink.getvalue()


SOURCES: dict[str, bytes] = {
    ".txt": "Ask HN: why?\nlörem ipsum\n\n日本 🚀\r\nlast".encode(),
    ".csv": b'id,title\n1,"Ask ""HN"", why?"\n2,two\n3,"three\nlines"\n',
    ".tsv": b"id\ttitle\n1\tone\n2\ttwo\n",
    ".jsonl": b'{"title": "one", "id": 1}\n{"title": "\\ud83d\\ude80 \\ud800", "id": [1, {"a": null}]}\n',
    ".parquet": parquet(["one", None, "three 🚀"]),
}


@pytest.mark.parametrize("ending", READERS)
def test_any_bytes_of_a_source_are_documents_or_a_sentence(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"source{ending}"

    @tried(60)
    @given(damaged(SOURCES[ending]) | st.binary(max_size=200), st.integers(0, 9))
    def held(content: bytes, packed: int) -> None:
        where = path.with_name(path.name + ".gz") if packed == 0 else path
        where.write_bytes(gzip.compress(content) if packed == 0 else content)
        refused_or(lambda: list(read_column(where, "title", Counter())[0].column))

    held()


@tried(40)
@given(damaged(gzip.compress(SOURCES[".csv"])))
def test_any_bytes_of_a_packed_source_too(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "packed.csv.gz"
    path.write_bytes(content)
    refused_or(lambda: read_column(path, "title", Counter()))


def test_a_corpus_of_damaged_files_is_made_of_what_can_be_read(tmp_path: Path) -> None:
    """A hundred files of every kind, each damaged somewhere: the corpus appears, and what is damaged is counted."""
    rng = random.Random(5)
    page = b"<html><body><p>" + b"A sentence of a page. " * 20 + b"</p><table><tr><td>x</td></tr></table></body></html>"
    whole = {**SOURCES, ".html": page, ".md": b"# head\n" + b"some words of a text " * 20}
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(100):
        ending = rng.choice(list(whole))
        content = bytearray(whole[ending])
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(content))
            content[at : at + rng.choice([0, 1, 1, 9])] = bytes(rng.choices(b'\0\xff"\n<[{,a', k=rng.randint(0, 3)))
        name = f"{number}{ending}"
        packed = ending != ".parquet" and rng.random() < 0.2
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    (folder / "good.txt").write_text("a document that nothing is wrong with, " * 5, encoding="utf-8")
    inputs = [
        {"name": kind, "path": [f"*{kind}", f"*{kind}.gz"], "column": "title"}
        for kind in whole
        if kind not in (".parquet",)
    ]
    for about in inputs:  # a glob that matches nothing would be a mistake of the file
        about["path"] = [glob for glob in about["path"] if any(folder.glob(str(glob)))]
    tables = [path for path in folder.glob("*.parquet") if _has_titles(path)]
    if tables:
        inputs.append({"name": "tables", "path": [path.name for path in tables], "column": "title"})
    for about in inputs:
        if about["name"] in (
            ".csv",
            ".tsv",
            ".jsonl",
        ):  # a table whose first line names no such column is refused at once
            about["path"] = [path.name for path in folder.iterdir() if _named(path, str(about["name"]))]
    file = CorpusFile.model_validate(
        {"root": str(folder), "input": inputs, "duplicates": {"near": "off"}, "split": {"validation": 0.2}}
    )
    manifest = prepare_corpus("damaged", file, tmp_path / "out")
    assert sum(split["documents"] for split in manifest["splits"].values()) > 10
    assert any(step["reasons"] for step in manifest["steps"] if step["name"] == "reading")


def _has_titles(path: Path) -> bool:
    try:
        return "title" in pq.read_schema(path).names
    except (pa.ArrowException, OSError):
        return True  # a damaged one is left to the reader


def _named(path: Path, kind: str) -> bool:
    if not path.name.removesuffix(".gz").endswith(kind):
        return False
    content = path.read_bytes()
    line = (gzip.decompress(content) if path.suffix == ".gz" else content).partition(b"\n")[0]
    if kind != ".jsonl":
        return b"title" in line.replace(b'"', b"").split(b"\t" if kind == ".tsv" else b",")
    try:
        return "title" in json.loads(line)
    except (ValueError, TypeError):
        return True


@pytest.mark.parametrize("library", EXTRACTORS)
def test_any_page_is_text_or_rejected_for_a_reason(library: str) -> None:
    extract = Extraction(library)
    tags = st.sampled_from(
        [
            "<p>",
            "</p>",
            "<table>",
            "<tr>",
            "<script>",
            "</script>",
            "<!--",
            "]]>",
            "<a href='",
            "&#x110000;",
            "&#0;",
            "<svg>",
            "\0",
            "<p",
        ]
    )

    @tried(15)
    @given(st.lists(tags | st.text(max_size=20), max_size=30).map("".join) | st.binary(max_size=200))
    def held(page: str | bytes) -> None:
        extract(page.encode(errors="replace") if isinstance(page, str) else page)

    held()


@pytest.mark.parametrize(
    "encoding", ["zip", "hex", "rot13", "idna", "undefined", "utf-16", "utf-7\0", "punycode", "unicode_escape"]
)
def test_an_encoding_is_one_of_text(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "corpus.toml"
    path.write_text(f'[[input]]\npath = ["*.txt"]\nencoding = {json.dumps(encoding)}\n')
    if encoding in ("idna", "punycode", "unicode_escape"):  # which leave a line break what it is, or change it
        refused_or(lambda: load_corpus_file(str(path)))
    else:
        with pytest.raises(UserError, match="encoding"):
            load_corpus_file(str(path))


# Bombs: small files that would unfold into all memory there is


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is set by Linux")
def test_bombs_stay_in_a_gigabyte(tmp_path: Path) -> None:
    """Each bomb is refused, or read in part, in a process that may take 1 GiB more than it has when it begins."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bombs", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) >= 14
    assert {name: sentence for name, sentence in told.items() if not sentence} == {}
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4_000_000
