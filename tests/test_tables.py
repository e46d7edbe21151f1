"""No figure is copied by hand: tables that quote results are what docs/tables.py makes of the files in docs/results/."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from shortrun.disk import file_sha256
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_table_is_stale(tables: ModuleType) -> None:
    marked: list[str] = []
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        marked += [name for _, name, _, _ in tables.MARKED.findall(text)]
        assert text.count("<!-- table:") == len(tables.MARKED.findall(text)), page
        assert tables.renewed(text) == text, f"{page.name} is stale: python docs/tables.py writes its tables anew"
    assert set(tables.TABLES) <= set(marked)


def test_a_stale_table_is_noticed(tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "runs.json"
    changed.write_text(tables.RUNS.read_text(encoding="utf-8").replace("1.2285", "1.2284"), encoding="utf-8")
    monkeypatch.setattr(tables, "RUNS", changed)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.renewed(text) == text.replace("1.2285", "1.2284")


def test_reports_in_the_documentation_are_as_they_were_made() -> None:
    """One that was changed by hand would say what no run says; the command on its first page makes it anew."""
    reports = sorted((ROOT / "docs" / "reports").glob("*/report.json"))
    assert reports
    for made in reports:
        told = json.loads(made.read_text(encoding="utf-8"))
        there = {path.relative_to(made.parent).as_posix() for path in made.parent.rglob("*") if path.is_file()}
        assert there == {*told["files"], made.name}
        for name, sha256 in told["files"].items():
            assert file_sha256(made.parent / name) == sha256, f"{made.parent / name}: {told['made by']}"
        assert told["made by"] in (made.parent / "index.md").read_text(encoding="utf-8")
