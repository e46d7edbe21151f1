"""What the documentation quotes is what benchmarks/results.json holds. (Speed itself is no test.)"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def printed(*command: str) -> str:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_page_quotes_the_measured_table() -> None:
    table = printed("benchmarks/run.py", "--markdown")
    assert table.count("|") > 100
    assert table in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_the_chart_shows_the_measured_rows(tmp_path: Path) -> None:
    printed("benchmarks/chart.py", "--out", str(tmp_path / "growth.svg"))
    drawn, shown = ((folder / "growth.svg").read_text() for folder in (tmp_path, ROOT / "docs"))
    assert rows_of(drawn) == rows_of(shown), "draw it again: python benchmarks/chart.py"


def rows_of(drawing: str) -> str:
    found = re.search(r"of ([0-9a-f]{16})<", drawing)
    assert found
    return found[1]
