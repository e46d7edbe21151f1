"""Curves: read from a run's log, drawn in a terminal and as charts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.errors import UserError
from shortrun.view.charts import save
from shortrun.view.curve_charts import LINE_HEIGHT, apart, curves_chart, training_chart, validation_chart
from shortrun.view.curves import read_curves, smoothed, thinned
from shortrun.view.terminal_curve import BRAILLE, terminal_curve
from tests.conftest import metrics, scores_of


@pytest.fixture
def run(whole: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a finished run, to be changed."""
    return Path(shutil.copytree(whole("shuffled"), tmp_path / "run"))


def test_curves_are_what_the_log_says(whole: Callable[[str], Path]) -> None:
    path = whole("shuffled")
    curves, scores = read_curves(path), scores_of(path)
    training = [event for event in metrics(path) if event["event"] == "training_step"]
    assert curves.steps_N.tolist() == list(range(1, scores["steps"] + 1))
    for key, values_N in (("loss", curves.loss_N), ("lr", curves.lr_N), ("grad_norm", curves.grad_norm_N)):
        assert values_N.tolist() == [event[key] for event in training]
    assert np.all(np.diff(curves.seconds_N) > 0)
    last = curves.last
    assert last is not None
    assert (last.loss, last.official_loss, last.coverage) == tuple(
        scores[key] for key in ("loss", "official_loss", "coverage")
    )
    assert (last.step, last.epoch, last.tokens) == (scores["steps"], 2.0, scores["tokens"])
    assert curves.evaluations[0].step == 1
    assert not curves.notes


def test_a_log_that_breaks_off_is_read_as_far_as_it_goes(run: Path) -> None:
    whole_curves = read_curves(run)
    log = run / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    curves = read_curves(run)
    assert curves.evaluations == whole_curves.evaluations[:-1]
    (note,) = curves.notes
    assert note.endswith(f"line {len(lines)}")
    log.write_bytes(b"")
    empty = read_curves(run)
    assert (len(empty.steps_N), empty.evaluations, empty.max_steps, empty.last) == (0, (), None, None)
    log.unlink()
    assert not read_curves(run).evaluations
    assert read_curves(run).notes == (f"{log} is missing, so nothing is known of the run's steps",)
    with pytest.raises(UserError, match="there is no curve to draw"):
        validation_chart({"run": empty})
    with pytest.raises(UserError, match="no training curve"):
        training_chart({"run": empty})


def test_an_event_that_lacks_something_is_named(run: Path) -> None:
    (run / "metrics.jsonl").write_text(json.dumps({"event": "training_step", "step": 1}) + "\n")
    with pytest.raises(UserError, match=r"line 1: the event lacks what it should say: 'tokens'"):
        read_curves(run)


@pytest.mark.parametrize("word", ["NaN", "-Infinity", "1e999", "[" * 100_000])
def test_a_line_with_what_is_no_number_is_left_out_and_said(run: Path, word: str) -> None:
    log, before = run / "metrics.jsonl", read_curves(run)
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    (at,) = [at for at, line in enumerate(lines) if json.loads(line).get("step") == 2]
    loss = json.dumps(json.loads(lines[at])["loss"])
    lines[at] = lines[at].replace(loss, word, 1)
    log.write_text("".join(lines), encoding="utf-8")
    found = read_curves(run)
    assert found.steps_N.tolist() == [step for step in before.steps_N.tolist() if step != 2]
    assert found.notes == (f"{log}: left out, because no event can be read in it: line {at + 1}",)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("loss", "2.5", r'loss is "2.5", and a number was expected'),
        ("grad_norm", None, r"grad_norm is null, and a number was expected"),
        ("loss", 10**400, r"loss is 1000000\d*, and a number was expected"),
        ("step", 1.5, r"step is 1.5, and a whole number was expected"),
        ("tokens", 2**70, r"tokens is \d+, and a whole number was expected"),
    ],
)
def test_an_event_that_says_something_else_than_a_number_is_named(
    run: Path, field: str, value: object, sentence: str
) -> None:
    log = run / "metrics.jsonl"
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    at = next(at for at, event in enumerate(events) if event["event"] == "training_step")
    events[at][field] = value
    log.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    with pytest.raises(UserError, match=rf"metrics.jsonl, line {at + 1}: {sentence}"):
        read_curves(run)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(0, 10))
def test_smoothing_takes_means_of_neighbours(values: list[float], window: int) -> None:
    values_N = np.array(values)
    found_N = smoothed(values_N, window)
    for at in range(len(values)):
        reach = min(window, at, len(values) - 1 - at)
        assert found_N[at] == pytest.approx(values_N[at - reach : at + reach + 1].mean(), abs=1e-9)


def test_smoothing_keeps_a_line_and_thinning_its_ends() -> None:
    line_N = np.linspace(3.0, 1.0, 50)
    assert smoothed(line_N, 7) == pytest.approx(line_N)
    kept = thinned(30_000, most=2_000)
    assert (kept[0], kept[-1], len(set(kept.tolist()))) == (0, 29_999, 2_000)
    assert thinned(5).tolist() == [0, 1, 2, 3, 4]


def test_a_terminal_curve_falls_and_says_what_its_axes_are() -> None:
    lines = terminal_curve([(1, 3.0), (500, 2.0), (1000, 1.5)], x="steps", y="loss", width=30, height=6)
    top, bottom = lines[1], lines[6]
    assert lines[0].split() == ["loss"]
    assert top.startswith("  3 │")
    assert bottom.startswith("1.5 │")
    assert lines[-1].split() == ["1", "steps", "1,000"]
    columns = [next(at for at, letter in enumerate(line) if ord(letter) > BRAILLE) for line in lines[1:7]]
    assert columns == sorted(columns), "the curve goes down from left to right"
    assert len(bottom) == len("1.5 │") + 30, "and ends at the right edge"
    plain = terminal_curve([(1, 3.0), (1000, 1.5)], x="steps", y="loss", plain=True)
    assert "".join(plain).isascii()
    assert "*" in plain[1]
    assert terminal_curve([(1, 3.0)], x="steps", y="loss") == []


def test_a_flat_curve_is_drawn() -> None:
    assert len(terminal_curve([(1, 2.0), (9, 2.0)], x="steps", y="loss", height=4)) == 7


def test_charts_name_runs_and_their_last_losses(whole: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("altair", reason="the charts extra is not installed")
    runs = {"one <run>": read_curves(whole("shuffled")), "other": read_curves(whole("documents"))}
    save(curves_chart(runs, {"other": "mode documents"}, title="both"), tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    for name, curves in runs.items():
        assert curves.last
        assert f"{curves.last.loss:.4f}" in drawn
        assert name.replace("<", "&lt;").replace(">", "&gt;") in drawn
    for expected in ("mode documents", "tokens trained on", "learning rate", "validation loss (nats per character)"):
        assert expected in drawn
    assert len(validation_chart(runs, over=["steps"]).hconcat) == 1
    uncovered = replace(runs["other"], evaluations=tuple(replace(at, coverage=0.0) for at in runs["other"].evaluations))
    chart = json.dumps(validation_chart({"one": runs["one <run>"], "other": uncovered}, over=["steps"]).to_dict())
    told = {row["run"]: row["official loss"] for row in json.loads(chart)["hconcat"][0]["layer"][0]["data"]["values"]}
    first = runs["one <run>"].last
    assert first
    assert told == {"one": f"{first.official_loss:.4f} ({first.coverage:.1%} covered)", "other": "none"}
    with pytest.raises(UserError, match="did you mean 'steps'"):
        validation_chart(runs, over=["step"])


def test_a_page_of_charts_needs_no_network(whole: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("altair", reason="the charts extra is not installed")
    save(validation_chart({"run": read_curves(whole("shuffled"))}), tmp_path / "curves.html")
    page = (tmp_path / "curves.html").read_text(encoding="utf-8")
    assert "vegaEmbed" in page
    assert "<script src=" not in page
    with pytest.raises(UserError, match="can't be written"):
        save(validation_chart({"run": read_curves(whole("shuffled"))}), tmp_path / "nowhere" / "curves.svg")


@given(st.lists(st.floats(0, 300), min_size=1, max_size=12).map(sorted))
def test_labels_stand_apart_and_in_order(places: list[float]) -> None:
    found = apart(places)
    assert all(later - earlier >= LINE_HEIGHT - 1e-6 for earlier, later in pairwise(found))
    if all(later - earlier >= LINE_HEIGHT for earlier, later in pairwise(places)):
        assert found == pytest.approx(places)
    assert np.mean(found) == pytest.approx(np.mean(places), abs=1e-6), "none is moved further than the others ask for"


def test_many_runs_make_no_larger_chart(whole: Callable[[str], Path]) -> None:
    curves = read_curves(whole("shuffled"))
    at_N = np.resize(np.arange(len(curves.steps_N)), 881)
    long = replace(
        curves, steps_N=np.arange(1, 882), loss_N=curves.loss_N[at_N], lr_N=curves.lr_N[at_N], grad_norm_N=curves.grad_norm_N[at_N]
    )  # fmt: skip
    for count in (21, 33):
        chart = training_chart({f"a run with a name {number}": long for number in range(count)})
        assert len(json.dumps(chart.to_dict(), separators=(",", ":"))) < 1_000_000
