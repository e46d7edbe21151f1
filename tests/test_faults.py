"""Real faults that happen to real processes, as `benchmarks/soak.py` repeats them for as long as it is asked to (docs/faults.md)."""

from __future__ import annotations

import json
import os
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from shortrun.disk import make_folders, write_atomically
from tests.conftest import ROOT

soak: Any = import_module("soak")  # in benchmarks/, as the others
faults: Any = import_module("soak_faults")
power: Any = import_module("soak_power")
sittings: Any = import_module("soak_sittings")

ELSEWHERE = {"kill -9", "dying worker of a study"}
"""Kinds with a test of their own: below, and in test_study.py."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sittings.Place(tmp_path_factory.mktemp("faults") / "place", random.Random(1))


@pytest.mark.slow
def test_ten_kills_cost_nothing(place: Any) -> None:
    struck = 0
    for _ in range(20):
        struck += faults.killed(place)
        if struck >= 10:
            break
    assert struck >= 10


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in faults.FAULTS if name not in ELSEWHERE])
def test_a_fault_costs_nothing_and_is_said(name: str, place: Any) -> None:
    try:
        faults.FAULTS[name](place)
    except faults.Impossible as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
def test_what_is_lost_is_noticed(place: Any, tmp_path: Path) -> None:
    """The soak itself: other weights, an acknowledged checkpoint that is gone, and a fault that was not survived."""
    one, other = (place.whole(variant)[0] for variant in ("shuffled", "stream"))
    assert sittings.differences(one, one) == []
    assert {"weights", "metrics", "nats"} <= set(sittings.differences(one, other))
    acks = tmp_path / "acks"
    acks.write_text("saved 23\n")
    sittings.require_nothing_lost(one, acks, "nothing happened")
    acks.write_text("saved 24\n")
    with pytest.raises(AssertionError, match="the checkpoint of step 24 was acknowledged, the newest is of 23"):
        sittings.require_nothing_lost(one, acks, "a loss")


def test_a_fault_that_was_not_survived_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    count = soak.Count()
    monkeypatch.setitem(faults.FAULTS, "good", lambda _: 3)
    monkeypatch.setitem(faults.FAULTS, "bad", lambda _: sittings.require(False, "step 7 is gone"))
    assert soak.strike("good", None, count) is None
    assert soak.strike("bad", None, count) == "step 7 is gone"
    assert (count.faults, count.survived, count.lost) == (4, 3, 1)


def test_a_power_cut_leaves_what_was_synced_and_some_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "before").write_bytes(b"before")
    disk = power.Disk(top, tmp_path / "syncs", random.Random(1))
    monkeypatch.setattr(os, "fsync", os.fsync)  # set back at the end
    power.record(tmp_path / "syncs", None)
    write_atomically(top / "whole", b"old")
    make_folders(top / "above" / "below")
    (top / "above" / "unsynced").write_bytes(b"new")
    (top / "whole").write_bytes(b"old and new")
    (top / "before").unlink()
    disk.cut()
    seen: dict[str, set[Any]] = {"unsynced": set(), "whole": set(), "before": set()}
    for number in range(40):
        image = tmp_path / f"image-{number}"
        disk.image(image, in_order=number % 2 == 0)
        assert (image / "above" / "below").is_dir()
        unsynced = image / "above" / "unsynced"
        seen["unsynced"].add(unsynced.read_bytes() if unsynced.exists() else None)
        seen["whole"].add((image / "whole").read_bytes())
        seen["before"].add((image / "before").exists())
        if number % 2 == 0:
            assert unsynced.exists()
            assert not (image / "before").exists()
    assert {None, b"", b"new", bytes(3)} <= seen["unsynced"]
    assert {b"old", b"old and new", b"old" + bytes(8)} <= seen["whole"]
    assert all(content.startswith(b"old") for content in seen["whole"])
    assert seen["before"] == {True, False}


def test_the_page_quotes_the_soak() -> None:
    found = json.loads((ROOT / "benchmarks" / "soak.json").read_text())
    counts = {row.pop("fault"): soak.Count(**row) for row in found["rows"]}
    assert counts.keys() == faults.FAULTS.keys()
    assert counts["kill -9"].faults >= 200
    assert not any(count.lost for count in counts.values())
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    assert soak.table(counts) in page
    assert found["command"] in page
