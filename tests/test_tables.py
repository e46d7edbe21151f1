"""No figure is copied by hand: tables that quote results are what docs/tables.py makes of the files in docs/results/."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

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


def test_a_run_that_is_added_twice_has_one_row(
    tables: ModuleType, whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs.json").write_text(tables.RUNS.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(tables, "RUNS", tmp_path / "runs.json")
    monkeypatch.setattr(tables, "PAGES", ())
    before = len(json.loads(tables.RUNS.read_text(encoding="utf-8")))
    for machine in ("one", "another"):
        monkeypatch.setattr(
            "sys.argv", ["tables.py", "add", str(whole("stream")), "--recipe", "tiny", "--machine", machine]
        )
        tables.main()
    rows = json.loads(tables.RUNS.read_text(encoding="utf-8"))
    assert len(rows) == before + 1
    assert rows[-1]["machine"] == "another"
