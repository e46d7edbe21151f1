"""The rooms import downhill: the order of docs/architecture.md, held."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import shortrun

PACKAGE = Path(shortrun.__file__).parent
FOUNDATION = {"errors", "recipe", "recipe_file"}  # every room may use these; they use no room
ROOMS = ["text", "tokens", "model", "optim", "score", "train", "view"]
DOORS = {"cli", "cards"}  # the command line may use every room
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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downhill(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ROOMS:
        allowed = FOUNDATION | set(ROOMS[: ROOMS.index(room) + 1])
    elif room in FOUNDATION | {"cards"}:
        allowed = FOUNDATION
    else:  # cli, __main__: the doors
        allowed = FOUNDATION | set(ROOMS) | DOORS
    assert imported_parts(path) <= allowed


def test_every_folder_is_a_room() -> None:
    folders = {path.parent.name for path in MODULES if path.parent != PACKAGE}
    assert folders == {*ROOMS, "cli"}


def test_the_documentation_names_every_module() -> None:
    """README gives each file one line; docs/architecture.md names each room."""
    root = Path(__file__).parents[1]
    readme = (root / "README.md").read_text(encoding="utf-8")
    missing = [
        name
        for path in MODULES
        if path.name != "__init__.py" and (name := path.relative_to(PACKAGE).as_posix()) not in readme
    ]
    assert not missing
    architecture = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert not [room for room in ROOMS if f"{room}/" not in architecture]
