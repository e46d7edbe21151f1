"""The rooms import downhill: the order of docs/architecture.md, held."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import shortrun

PACKAGE = Path(shortrun.__file__).parent
# what each module of the foundation may use of it; every room may use all of them, and they use no room
FOUNDATION: dict[str, set[str]] = {
    "errors": set(),
    "limits": {"errors"},
    "disk": {"errors", "limits"},
    "cache": {"errors", "disk"},
    "recipe": {"errors", "disk"},
    "recipe_file": {"errors", "limits", "recipe"},
}
ROOMS = "text pipeline tokens model optim score runs train track study check view report export serve cli".split()
READERS: dict[str, set[str]] = {
    "check": {"train", "track"}, "view": {"train", "track"}, "report": {"train", "track"},
    "export": {"train", "track", "study", "view", "report"}, "serve": {"train", "track", "export"},
}  # fmt: skip
"""They look at runs; what each of them does not need."""
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def imported_parts(path: Path) -> set[str]:
    """Names directly under shortrun that a module imports, wherever in it."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names = [
                f"{node.module}.{alias.name}" if node.module == "shortrun" else str(node.module) for alias in node.names
            ]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("shortrun.")}
    return parts - {"__version__"}


def may_import(part: str) -> set[str]:
    """What a module of this room, or this module beside the rooms, may use."""
    if part in ("cli", "__main__", "__init__"):  # the doors to everything
        return {*FOUNDATION, *ROOMS, "cards", "api"}
    if part == "api":  # what the command line stands on
        return {*FOUNDATION, *ROOMS} - {"cli"}
    if part in ROOMS:
        return {*FOUNDATION, *ROOMS[: ROOMS.index(part) + 1]} - READERS.get(part, set())
    return FOUNDATION.get(part, set())  # the cards use nothing


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downhill(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert imported_parts(path) <= may_import(part)


def test_every_folder_is_a_room_and_a_package() -> None:
    folders = {path.parent for path in MODULES if path.parent != PACKAGE}
    assert {folder.name for folder in folders} == set(ROOMS)
    assert all((folder / "__init__.py").is_file() for folder in folders)
    beside = {path.stem for path in MODULES if path.parent == PACKAGE}
    assert beside == {*FOUNDATION, "api", "cards", "__init__", "__main__"}


def test_what_reads_runs_needs_nothing_that_trains() -> None:
    """In a process of its own, whatever is imported by way of what else."""
    loaded = {}
    for room in ("runs", *READERS):
        names = [f"shortrun.{room}.{path.stem}" for path in MODULES if path.parent.name == room]
        assert len(names) > 1
        code = f"import json, sys, {', '.join(names)}; print(json.dumps(list(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        parts = [name.split(".") for name in json.loads(done.stdout) if name.startswith("shortrun.")]
        loaded[room] = {
            part for _, part, *module in parts if module
        }  # a room of which nothing but its name is loaded is none
    assert "runs" in loaded["view"]
    assert not loaded["runs"] & {"optim", "train", "track", "view", "cli"}
    for room, needless in READERS.items():
        assert not loaded[room] & {"optim", "cli", *needless}


def test_looking_at_runs_needs_no_extra_of_studies() -> None:
    """`show`, `predict` and `compare` import the charts, also where nothing but the core is installed."""
    code = "import sys, shortrun.view.charts; print({'scipy', 'altair', 'optuna'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_documentation_names_every_module_and_room() -> None:
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = [path.relative_to(PACKAGE).as_posix() for path in MODULES if path.name != "__init__.py"]
    assert not [name for name in names if f"`{name}`" not in page]
    assert not [room for room in ROOMS if f"{room}/ " not in page]
