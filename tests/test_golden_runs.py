"""Five tiny runs through the real entry point, held to the numbers in tests/golden/.

A change that moves one of them is a change of arithmetic, and its commit says so. To write them anew:

    python -m tests.test_golden_runs
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from shortrun.recipe_file import load_recipe
from shortrun.runs.folder import RunFolder
from shortrun.train.fit import train

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.toml"))
STEPS = 30


def measured(name: str, run: Path) -> dict[str, Any]:
    """The first STEPS steps of a golden recipe: what the log says of each, and the losses after the last."""
    scores = train(load_recipe(str(GOLDEN / f"{name}.toml")), run, max_steps=STEPS).as_dict()
    steps = [event for event in RunFolder.open(run).metrics() if event["event"] == "training_step"]
    return {
        **{key: [step[key] for step in steps] for key in ("loss", "lr", "grad_norm")},
        "scores": {key: scores[key] for key in ("loss", "official_loss", "bits_per_byte", "coverage")},
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_run_gives_its_numbers(name: str, tmp_path: Path) -> None:
    """1e-6 relative over the first 10 steps, 1e-4 at the end, on any machine."""
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    found = measured(name, tmp_path / "run")
    assert len(expected["loss"]) == STEPS
    assert found["lr"] == pytest.approx(expected["lr"], rel=1e-12)
    for key in ("loss", "grad_norm"):
        assert found[key][:10] == pytest.approx(expected[key][:10], rel=1e-6), key
        assert found[key] == pytest.approx(expected[key], rel=1e-4), key
    assert found["scores"] == pytest.approx(expected["scores"], rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_run_repeats_its_bits(name: str, tmp_path: Path) -> None:
    assert measured(name, tmp_path / "a") == measured(name, tmp_path / "b")


if __name__ == "__main__":
    for each in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(measured(each, Path(folder) / "run"), indent=1)
            (GOLDEN / f"{each}.json").write_text(text + "\n")
