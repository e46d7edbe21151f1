"""What is shipped: a wheel and an sdist, built here, and the wheel in environments that have nothing but what it asks for.

An environment is a virtual one whose packages are links to those of this one: the wheel's own dependencies, and theirs. So
nothing is downloaded, and what nobody declared is missing.
"""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.commands_of import copy_of_the_tree
from tests.conftest import ROOT

IMPORTS = {
    "charts": "from shortrun.view.charts import altair_library as needs; needs()",
    "cluster": "from shortrun.study.cluster import ClusterCrew; import distributed",
    "corpus": "import shortrun.pipeline.prepare, ftfy, rensa, resiliparse.extract.html2text",
    "datatrove": "import shortrun.pipeline.on_datatrove, datatrove.executor.local",
    "extraction": "import trafilatura, lxml_html_clean",
    "hf": "import shortrun.export.verify, transformers",
    "hub": "import datasets",
    "language": "import py3langid",
    "onnx": "import onnx, onnxruntime, onnxscript",
    "optimizers": "import pytorch_optimizer; pytorch_optimizer.Lion, pytorch_optimizer.SOAP",
    "playground": "import shortrun.serve.app, uvicorn",
    "postgres": "import psycopg",
    "report": "import shortrun.report.content, shortrun.report.html, shortrun.report.pdf, jinja2, typst",
    "study": "import shortrun.study.statistics, shortrun.view.charts as charts; charts.altair_library()",
    "sweep": "import shortrun.study.sweep, shortrun.view.sweep, optuna.visualization, plotly",
    "tensorboard": "from torch.utils.tensorboard import SummaryWriter",
}
"""What each extra is for."""
NO_EXTRAS = {"all", "docs", "test", "dev"}
SERVICES = {"mlflow", "trackio", "wandb"}
"""Large, so that no environment of the tests has them; tests/test_tracking.py uses them where they are."""
MISSING = {
    "charts": ["show", "first", "--chart", "curves.svg"],
    "cluster": ["study", "run", "vocabulary", "--cluster", "tcp://127.0.0.1:1"],
    "hub": ["data", "info", "baseline"],
    "onnx": ["export", "first", "handed", "--format", "onnx"],
    "optimizers": ["train", "quickstart", "--optim.name", "lion"],
    "playground": ["serve", "first"],
    "report": ["report", "first"],
    "study": ["study", "show", "tiny.toml"],
    "sweep": ["sweep", "show", "lr-dropout-block"],
    "tensorboard": ["train", "quickstart", "--track", "tensorboard"],
}
"""A command that can't do without the extra."""
STUDY = """
about = "Nothing but a study."
base = "quickstart"
form = "ablation"
seeds = [1]
[every]
data.num_titles = 300
data.tuning_titles = 30
tokenizer.vocab_size = 400
[[change]]
name = "higher"
reason = "It is one."
optim.lr = 1e-2
"""
CHECK = (
    "import json, shortrun; print(json.dumps([shortrun.__file__, shortrun.load('first').step, len(shortrun.__all__)]))"
)

WITHOUT = """
import contextlib, json, sys
import shortrun.api
print("ready")
for extra, code in json.loads(sys.argv[1]).items():
    with contextlib.suppress(Exception):
        exec(code)
        print(extra)
"""


@dataclass(frozen=True)
class Shipped:
    """The two files."""

    wheel: Path
    sdist: Path

    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as file:
            (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
            return email.message_from_bytes(file.read(name))

    def requirements(self, extra: str = "") -> list[Requirement]:
        """What the wheel asks for, without what an extra takes from others of its own."""
        asked = [Requirement(line) for line in self.metadata().get_all("Requires-Dist", [])]
        of = [each for each in asked if each.marker is None or (extra and each.marker.evaluate({"extra": extra}))]
        mine = [name for each in of if each.name == "shortrun" for name in each.extras]
        of = [each for each in of if each.name != "shortrun"]
        return of + [each for name in mine for each in self.requirements(name)]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """An sdist of a copy of the tree, and a wheel made of the sdist alone."""
    tree = tmp_path_factory.mktemp("tree")
    copy_of_the_tree(tree)
    shutil.rmtree(tree / ".venv")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = ((tree / "dist").glob(pattern) for pattern in ("*.whl", "*.tar.gz"))
    return Shipped(wheel, sdist)


def with_what_they_need(requirements: Iterable[Requirement]) -> set[str]:
    """The distributions that some requirements lead to, in this environment."""
    found: set[str] = set()
    waiting = [(each.name, extra) for each in requirements for extra in ("", *each.extras)]
    seen = set()
    while waiting:
        name, extra = each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        found.add(canonicalize_name(name))
        for line in distribution(name).requires or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(need.name, more) for more in ("", *need.extras)]
    return found


def link(names: Iterable[str], folder: Path) -> None:
    """Links the files of distributions into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))


@dataclass(frozen=True)
class Bare:
    """An environment in which the wheel is installed, without an extra, and a folder far from the sources."""

    bin: Path
    folder: Path
    core: set[str]

    def run(self, *command: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        if path:
            environment["PYTHONPATH"] = str(path)
        words = [str(self.bin / command[0]), *command[1:]]
        return subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bare(shipped: Shipped, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    home = tmp_path_factory.mktemp("bare")
    venv.create(home / "venv", with_pip=False, symlinks=True)
    bin = home / "venv" / "bin"
    (site,) = (home / "venv" / "lib").glob("python3.*/site-packages")
    core = with_what_they_need(shipped.requirements())
    link(core, site)
    install = ["-m", "pip", "--python", str(bin / "python"), "install", "-q", "--no-deps", "--no-compile", "--no-index"]
    done = subprocess.run(
        [sys.executable, *install, str(shipped.wheel)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    (home / "work").mkdir()
    (home / "work" / "tiny.toml").write_text(STUDY)
    return Bare(bin, home / "work", core)


@pytest.fixture(scope="module")
def first(bare: Bare) -> subprocess.CompletedProcess[str]:
    """The first steps of the quickstart."""
    return bare.run("shortrun", "train", "quickstart", "--max-steps", "3", "--out", "first")


def files_of_the_package() -> set[str]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/shortrun"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name.removeprefix("src/") for name in names if (ROOT / name).is_file()}


@pytest.mark.slow
def test_the_wheel_and_the_sdist_hold_every_file(shipped: Shipped) -> None:
    files = files_of_the_package()
    with zipfile.ZipFile(shipped.wheel) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert packed == files
        assert [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
    kinds = {Path(name).suffix for name in files}
    assert {".toml", ".md", ".jinja", ".css", ".js", ".typed"} <= kinds, "data files are among them"
    with tarfile.open(shipped.sdist) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"src/{name}" for name in files} <= inside
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/test_ships.py", "docs/python.md"} <= inside
    assert not [name for name in inside if name.startswith((".venv", "runs", "dist"))]


@pytest.mark.slow
def test_its_metadata_names_the_pythons_and_the_extras(shipped: Shipped) -> None:
    about = shipped.metadata()
    assert about["Requires-Python"] == ">=3.11"
    pythons = [line.rpartition(" ")[2] for line in about.get_all("Classifier", []) if "Python :: 3." in line]
    assert pythons[0] == "3.11"
    assert pythons == [f"3.{11 + number}" for number in range(len(pythons))]
    assert set(about.get_all("Provides-Extra", [])) - NO_EXTRAS - SERVICES == set(IMPORTS)


@pytest.mark.slow
def test_the_quickstarts_first_steps_run_in_a_bare_environment(
    bare: Bare, first: subprocess.CompletedProcess[str]
) -> None:
    assert first.returncode == 0, first.stderr
    assert "scores after 3 steps" in first.stdout
    for command in (
        ["sample", "first", "--n", "2"],
        ["show", "first"],
        ["recipes"],
        ["techniques"],
        ["study"],
        ["sweep"],
    ):
        done = bare.run("shortrun", *command)
        assert done.returncode == 0, done
        assert done.stdout, done
    done = bare.run("python", "-c", CHECK)
    assert done.returncode == 0, done.stderr
    file, step, names = json.loads(done.stdout)
    assert Path(file).is_relative_to(bare.bin.parent)
    assert step == 3
    assert names > 5


@pytest.mark.slow
def test_a_bare_environment_says_which_extra_is_missing(bare: Bare, first: subprocess.CompletedProcess[str]) -> None:
    """All commands in one process, because each alone would import torch again."""
    assert first.returncode == 0
    code = (
        "import contextlib, io, json, sys\nfrom shortrun.cli.commands import run\ntold = {}\n"
        "for extra, argv in json.loads(sys.argv[1]).items():\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):\n"
        "        told[extra] = [run(argv), err.getvalue()]\n"
        "print(json.dumps(told))"
    )
    done = bare.run("python", "-c", code, json.dumps(MISSING))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for extra, (status, sentence) in told.items():
        assert status == 2, (extra, sentence)
        assert f"shortrun[{extra}]" in sentence, (extra, sentence)
        assert "Traceback" not in sentence


@pytest.mark.slow
def test_each_extra_brings_what_it_is_for(shipped: Shipped, bare: Bare, tmp_path: Path) -> None:
    done = bare.run("python", "-c", WITHOUT, json.dumps(IMPORTS))
    assert done.stdout.split() == ["ready"], f"without an extra there is nothing to bring: {done}"
    for extra, code in IMPORTS.items():
        link(with_what_they_need(shipped.requirements(extra)) - bare.core, tmp_path / extra)
        done = bare.run("python", "-c", code, path=tmp_path / extra)
        assert done.returncode == 0, (extra, done.stderr)
    path = tmp_path / "sweep"
    storage = ["--storage", "postgresql://nobody@127.0.0.1:1/nothing"]
    done = bare.run("shortrun", "sweep", "show", "lr-dropout-block", *storage, path=path)
    assert (done.returncode, "shortrun[postgres]" in done.stderr) == (2, True), done


def other_pythons() -> list[Path]:
    """The newer interpreters of this machine."""
    found = [shutil.which(f"python3.{minor}") for minor in range(sys.version_info.minor + 1, 20)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    more = [path / "bin" / "python" for path in sorted(pyenv.glob("3.*"))]
    newer = [path for path in more if path.exists() and int(path.parts[-3].split(".")[1]) > sys.version_info.minor]
    return [Path(path) for path in found if path] + newer


def test_every_python_of_this_machine_reads_the_sources() -> None:
    """A warning of its compiler is an error of the next one."""
    pythons = other_pythons()
    if not pythons:
        pytest.skip("this machine has no newer Python")
    code = (
        "import pathlib, sys, warnings; warnings.simplefilter('error')\n"
        "for path in pathlib.Path(sys.argv[1]).rglob('*.py'): compile(path.read_bytes(), path, 'exec')"
    )
    for python in pythons:
        done = subprocess.run(
            [python, "-c", code, str(ROOT / "src")], capture_output=True, text=True, check=False, env={}
        )
        if done.returncode and "command not found" in done.stderr:  # pyenv's stand-in for one that is switched off
            continue
        assert done.returncode == 0, (python, done.stderr)
