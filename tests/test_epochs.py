"""The table of a run by epoch, against its log read in plain lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import exp, log
from pathlib import Path
from statistics import fmean

import pytest

from shortrun.runs.folder import RunFolder
from shortrun.view.curves import read_curves
from shortrun.view.epochs import epochs
from tests.conftest import run_command, scores_of


def test_each_epoch_has_its_mean_training_loss_and_what_validation_lost_at_its_end(
    whole: Callable[[str], Path],
) -> None:
    path = whole("shuffled")
    first, second = epochs(read_curves(path))
    events = list(RunFolder.open(path).metrics())
    losses = [event["loss"] for event in events if event["event"] == "training_step"]
    half = len(losses) // 2
    assert (first.step, second.step) == (half, len(losses))
    assert first.train_loss == pytest.approx(fmean(losses[:half]))
    assert second.train_loss == pytest.approx(fmean(losses[half:]))
    assert second.train_perplexity == pytest.approx(exp(second.train_loss))
    assert (first.train_improvement_percent, first.improvement_percent) == (None, None)
    assert second.train_improvement_percent == pytest.approx(100 * (1 - second.train_loss / first.train_loss))
    validated = {event["step"]: event for event in events if event["event"] == "validation_step"}
    assert (first.loss, second.loss) == tuple(validated[step]["document_loss"] for step in (half, len(losses)))
    assert second.improvement_percent == pytest.approx(100 * (1 - second.loss / first.loss))  # type: ignore[operator]
    scores = scores_of(path)
    assert (second.loss, second.perplexity) == (scores["loss"], scores["perplexity"])
    assert second.token_loss == pytest.approx(log(scores["perplexity"]))


def test_an_epoch_that_has_not_ended_and_one_that_was_not_scored(whole: Callable[[str], Path]) -> None:
    curves = read_curves(whole("shuffled"))
    begun = replace(curves, steps_N=curves.steps_N[:-1], loss_N=curves.loss_N[:-1])
    assert [row.epoch for row in epochs(begun)] == [1]
    (_, unscored) = epochs(replace(curves, evaluations=curves.evaluations[:-1]))
    assert (unscored.epoch, unscored.loss, unscored.perplexity, unscored.token_loss) == (2, None, None, None)
    assert unscored.train_improvement_percent is not None
    assert epochs(replace(curves, epochs=None)) == []


def test_show_prints_it(whole: Callable[[str], Path]) -> None:
    path = whole("shuffled")
    rows = json.loads(run_command("show", path, "--json").stdout)["by_epoch"]
    assert [row["epoch"] for row in rows] == [1, 2]
    shown = run_command("show", path).stdout
    for row in rows:
        assert f"{row['train_loss']:.4f}" in shown
        assert f"{row['loss']:.4f}" in shown
