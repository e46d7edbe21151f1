"""The promises of docs/security.md that are about the code as a whole: nothing in a file runs, steers a terminal or gets out."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.cli.output import MOST_LINES, message
from shortrun.errors import UserError
from shortrun.pipeline.corpus_file import CorpusFile
from shortrun.pipeline.prepare import prepare_corpus
from shortrun.recipe import Recipe
from shortrun.recipe_file import load_recipe, parse_recipe, to_toml
from shortrun.study import sweep_storage
from shortrun.study.ledger import _slug
from shortrun.study.study_file import load_study
from shortrun.text.prepared import MANIFEST, open_manifest
from shortrun.text.visible import visible_lines
from shortrun.view.text import literal_cell, plain_cell
from tests.conftest import ROOT, run_command, tiny_values
from tests.hostile import tried

SOURCES = sorted((ROOT / "src").rglob("*.py"))
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
"""Modules that run what a file says, or are asked to all too easily."""


def name_of(call: ast.expr) -> str:
    return ast.unparse(call)


def calls() -> list[tuple[Path, ast.Call]]:
    return [
        (path, node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def test_no_module_reads_what_can_run() -> None:
    """No pickle, no YAML, no eval; torch.load takes weights only; numpy takes numbers; transformers takes no code."""
    wrong = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path.name} imports {name}" for name in names if name.partition(".")[0] in RUNS_CODE]
    seen = set()
    for path, call in calls():
        name, keywords = name_of(call.func), {each.arg: ast.unparse(each.value) for each in call.keywords}
        starred = any(each.arg is None for each in call.keywords)
        if name in ("eval", "exec", "compile", "os.system", "os.popen", "__import__"):
            wrong.append(f"{path.name}: {name}")
        if name == "torch.load":
            seen.add(name)
            wrong += [] if keywords.get("weights_only") == "True" else [f"{path.name}: torch.load without weights_only"]
        if name.endswith("np.load"):
            seen.add(name)
            wrong += [] if keywords.get("allow_pickle", "False") == "False" else [f"{path.name}: np.load with pickle"]
        if name.endswith(".from_pretrained") and "transformers" in name:
            seen.add(name)
            safe = starred and '"trust_remote_code": False' in path.read_text(encoding="utf-8").replace("'", '"')
            wrong += [] if safe else [f"{path.name}: {name} may run code"]
        if "shell" in keywords:
            wrong.append(f"{path.name}: {name} through a shell")
    assert wrong == []
    assert {"torch.load", "transformers.AutoModelForCausalLM.from_pretrained"} <= seen, "the search finds nothing"


def test_no_csv_is_written() -> None:
    """A spreadsheet takes a cell that begins with = for a formula; no form of our tables is one that it opens as such."""
    names = {name_of(call.func) for _, call in calls()}
    assert "csv.reader" in names
    assert not [name for name in names if re.search(r"csv\.(writer|DictWriter)|to_csv|write_csv|to_excel", name)]


# Terminals and pages

STEERING = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08 \u202egnp.exe"


@tried(60)
@given(st.text())
def test_nothing_that_is_shown_steers_the_terminal(text: str) -> None:
    for shown in (visible_lines(text), message(text)):
        assert all(c.isprintable() or c in "\n\N{ZERO WIDTH JOINER}" for c in shown)
    assert len(message(text * 10_000).splitlines()) <= MOST_LINES + 1


def test_the_commands_show_what_files_say_as_text(tmp_path: Path) -> None:
    """Names and values with escape sequences, in each kind of file that a command tells of."""
    texts = {
        "recipe": f'[model]\n{json.dumps(STEERING)} = 1\n[data]\ncolumn = {json.dumps(STEERING)}\nsource = "x"\n',
        "rules": f'[[rule]]\nname = {json.dumps(STEERING)}\ndemands = "x"\ncheck = {json.dumps(STEERING)}\n',
        "study": f'about = "x"\nbase = {json.dumps(STEERING)}\nform = "grid"\nseeds = [1]\n[[change]]\n{json.dumps(STEERING)} = 1\n',
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    (tmp_path / "log").write_text(
        json.dumps({"event": "training_step", "step": 1, "loss": 1.0, f"final_loss{STEERING}": 3.0}) + "\n"
    )
    (tmp_path / "titles.csv").write_text(f'"{STEERING}",x\na,b\n', encoding="utf-8")
    said = [
        run_command("train", tmp_path / "recipe.toml"),
        run_command("check", "--official-log", tmp_path / "log", "--rules", tmp_path / "rules.toml"),
        run_command("check", "--official-log", tmp_path / "log"),
        run_command("study", "plan", tmp_path / "study.toml"),
        run_command("data", "info", "baseline", "--data.path", tmp_path / "titles.csv"),
        run_command("recipes", "show", "baseline"),
    ]
    assert [done.returncode for done in said] == [2, 2, 0, 2, 2, 0], said
    for done in said:
        assert done.stdout + done.stderr
        assert not set(done.stdout + done.stderr) & set("\x1b\x9b\x07\x08\r\u202e"), done


def test_a_recipe_is_shown_and_written_without_what_steers() -> None:
    """And reads back as it was: TOML has an escape for each of them."""
    recipe = Recipe.model_validate({"data": {"source": "file", "path": STEERING + "\x7f"}})
    text = to_toml(recipe)
    assert text.replace("\n", "").isprintable()
    assert parse_recipe(text, "here")[0] == recipe


def test_names_are_no_markup_in_markdown() -> None:
    for cell in (plain_cell, literal_cell):
        shown = cell("a | b <img src=x onerror=alert(1)> [link](javascript:alert(1)) `code` \x1b[2J")
        assert not re.search(r"(?<!\\)[|<>\[\]`\x1b]", shown), shown


# Paths


@given(st.integers(0, 99), st.text())
def test_a_change_never_names_a_folder_elsewhere(number: int, change: str) -> None:
    name = _slug(number, change)
    assert Path(name).name == name
    assert name.isascii()


def test_a_file_names_no_folder_above(tmp_path: Path) -> None:
    """`...toml` would be a study called "..", whose runs lie in the folder above."""
    for name in ("..toml", "...toml"):
        (tmp_path / name).write_text('about = "x"\n')
        for read in (load_recipe, load_study):
            with pytest.raises(UserError, match="needs a name before its ending"):
                read(str(tmp_path / name))


def corpus(tmp_path: Path) -> tuple[CorpusFile, Path]:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("\n".join(f"line number {number} of a text" for number in range(50)))
    file = {
        "root": str(tmp_path / "in"),
        "input": [{"path": ["a.txt"], "document": "line"}],
        "duplicates": {"near": "off"},
    }
    return CorpusFile.model_validate(file), tmp_path / "out"


def test_replacing_a_corpus_removes_only_its_own_files(tmp_path: Path) -> None:
    file, out = corpus(tmp_path)
    prepare_corpus("mine", file, out)
    (tmp_path / "precious.parquet").write_text("mine")
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["shards"][0]["name"], manifest["key"] = "../precious.parquet", "another"
    (out / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is no file of this folder"):
        open_manifest(out)
    with pytest.raises(UserError, match="is no file of this folder"):
        prepare_corpus("mine", file, out, replace=True)
    assert (tmp_path / "precious.parquet").read_text() == "mine"


def test_work_that_is_a_link_is_not_cleared(tmp_path: Path) -> None:
    """What lies in .work from other work is removed; a stranger's .work may be a link to somebody's home."""
    file, out = corpus(tmp_path)
    (tmp_path / "home" / "photos").mkdir(parents=True)
    out.mkdir()
    (out / ".work").symlink_to(tmp_path / "home")
    with pytest.raises(UserError, match="is a link"):
        prepare_corpus("mine", file, out)
    assert (tmp_path / "home" / "photos").is_dir()


# Secrets

SECRETS = {
    "WANDB_API_KEY": "secret-of-wandb", "HF_TOKEN": "secret-of-the-hub", "HUGGING_FACE_HUB_TOKEN": "secret-of-the-hub",
    "MLFLOW_TRACKING_PASSWORD": "secret-of-mlflow", "PGPASSWORD": "secret-of-postgres", "AWS_SECRET_ACCESS_KEY": "secret-of-aws",
}  # fmt: skip


def test_secrets_of_the_environment_reach_no_file_and_no_message(titles_file: Path, tmp_path: Path) -> None:
    """A run in a process of its own: nothing that it writes or says holds one of them."""
    recipe = Recipe.model_validate(tiny_values(titles_file))
    (tmp_path / "tiny.toml").write_text(to_toml(recipe), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "shortrun", "train", "tiny.toml", "--out", "run", "--json", "--track", "tensorboard", "--max-steps", "2"],
        cwd=tmp_path, env={**os.environ, **SECRETS}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 8
    for content in (done.stdout.encode(), done.stderr.encode(), *written):
        assert b"secret-of-" not in content


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/none", "postgresql://127.0.0.1:1/none?password=hunter2&user=me",
        "postgresql://me:hunter2@127.0.0.1:port/none", "mysql://me:hunter2@127.0.0.1:1/none", "nothing://me:hunter2@",
    ],
)  # fmt: skip
def test_the_password_of_a_database_is_never_shown(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_storage, "OPENINGS", 1)
    done = run_command("sweep", "show", "lr-dropout-block", "--out", tmp_path, "--storage", url)
    assert done.returncode == 2, done
    assert "storage" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_page_of_promises_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/test_\w+\.py)::(test_\w+)`", page))
    assert len(named) > 15
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {test}"
    assert "(docs/security.md)" in (ROOT / "CONTRIBUTING.md").read_text()
    assert "\nsecurity\n" in (ROOT / "docs" / "index.md").read_text()
