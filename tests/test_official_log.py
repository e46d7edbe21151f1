"""Logs in Mainrun's format: honest ones raise nothing, each public pitfall that a log can show is found, hostile ones never crash."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortrun.check.run import check_log
from shortrun.check.verdict import Verdict
from shortrun.errors import UserError
from shortrun.runs.folder import RunFolder
from tests.conftest import run_command

Events = list[dict[str, Any]]
BEFORE, SINCE = 1_755_000_000.0, 1_783_000_000.0
"""Seconds since 1970: the hub's titles were refreshed between the two."""


def log_of(
    block: int = 128,
    batch: int = 64,
    vocab: int = 16_000,
    train_tokens: int = 1_102_455,
    validation_tokens: int = 121_400,
    characters: int = 533_366,
    *,
    written: float = BEFORE,
    steps: int | None = None,
    last: float = 3.6,
    **hyper: Any,
) -> Events:
    """What Mainrun's script writes: the loss falls from ln V to `last` nats a token, and evaluations follow its geometry."""
    size = block * batch
    batches = train_tokens // size
    total = steps or 7 * batches
    scored = validation_tokens // (size + 1) * size
    at = {"timestamp": written}

    def nats(step: int) -> float:
        return last + (math.log(vocab) + 0.08 - last) * math.exp(-4 * step / total)

    events: Events = [
        {"event": "hyperparameters_configured", **at, "block_size": block, "batch_size": batch, "vocab_size": vocab,
         "n_layer": 6, "n_head": 8, "d_model": 512, "dropout": 0.1, "lr": 6e-3, "weight_decay": 0.0, "evals_per_epoch": 3,
         "epochs": 7, "seed": 1337, "num_titles": 100_000, "val_frac": 0.1, "log_file": "./logs/mainrun.log", **hyper},
        {"event": "device_info", **at, "device": "cpu"},
        {"event": "dataset_info", **at, "titles_count": 90_000, "epochs": 7, "batches_per_epoch": batches,
         "tokens_per_epoch": train_tokens, "vocab_size": vocab},
        {"event": "model_info", **at, "parameters_count": 27_172_864},
    ]  # fmt: skip
    for step in range(1, total + 1):
        wobble = 0.01 * math.sin(step)
        shared = {**at, "step": step, "max_steps": total, "elapsed_time": step * 0.5}
        events.append({"event": "training_step", **shared, "loss": nats(step - 1) + wobble, "prnt": False})
        if step == 1 or step % max(batches // 3, 1) == 0 or step == total:
            events.append({"event": "validation_step", **shared, "loss": nats(step) * scored / characters})
    return events


OLD: dict[str, Any] = {
    "train_tokens": 1_102_455,
    "validation_tokens": 121_400,
    "characters": 533_366,
    "written": BEFORE,
}
NEW: dict[str, Any] = {"train_tokens": 1_168_720, "validation_tokens": 129_600, "characters": 562_970, "written": SINCE}
OLD_UNIGRAM = {"train_tokens": 1_225_306, "validation_tokens": 134_900, "characters": 533_366}
NEW_UNIGRAM = {"train_tokens": 1_299_217, "validation_tokens": 144_100, "characters": 562_970, "written": SINCE}
OLD_8K = {"vocab": 8192, "train_tokens": 1_227_100, "validation_tokens": 135_124, "characters": 533_366}
HONEST: dict[str, dict[str, Any]] = {
    "baseline, older titles": OLD,
    "baseline, newer titles": NEW,
    "small rows, older titles": {**OLD, "block": 64},
    "256 x 16, Unigram, older titles": {**OLD_UNIGRAM, "block": 256, "batch": 16},
    "256 x 16, Unigram, newer titles": {**NEW_UNIGRAM, "block": 256, "batch": 16},
    "8,192 entries": OLD_8K,
    "the same geometry in longer rows": {**OLD, "block": 256, "batch": 32},
    "smaller batches in training": {**OLD, "train_batch_size": 32, "steps": 7 * 269},
}  # fmt: skip


@pytest.fixture
def checked(tmp_path: Path) -> Callable[..., dict[str, Verdict]]:
    def check(events: Events, reported: float | None = None) -> dict[str, Verdict]:
        path = tmp_path / "mainrun.log"
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return {each.rule: each for each in check_log(path, reported=reported)}

    return check


def broken(verdicts: dict[str, Verdict]) -> set[str]:
    return {rule for rule, each in verdicts.items() if each.verdict == "broken"}


def of(events: Events, name: str) -> Events:
    return [event for event in events if event["event"] == name]


@pytest.mark.parametrize("kind", HONEST)
def test_honest_runs_raise_nothing(kind: str, checked: Callable[..., dict[str, Verdict]]) -> None:
    events = log_of(**HONEST[kind])
    verdicts = checked(events, reported=round(of(events, "validation_step")[-1]["loss"], 4))
    assert not broken(verdicts), verdicts
    kept = {rule for rule, each in verdicts.items() if each.verdict == "kept"}
    assert kept >= {"7 epochs", "steps", "seed 1337", "share", "tokenizer", "coverage", "denominator", "last step"}


def test_the_revision_of_the_titles_is_told_by_the_tokens(checked: Callable[..., dict[str, Verdict]]) -> None:
    told = {kind: checked(log_of(**kind_values))["data"] for kind, kind_values in (("old", OLD), ("new", NEW))}
    assert {each.verdict for each in told.values()} == {"kept"}
    assert "before 2026-06-25" in told["old"].evidence
    assert "since 2026-06-25" in told["new"].evidence
    other = checked(log_of(**{**OLD, "train_tokens": 1_110_000}))["data"]
    assert other.verdict == "unknown"


def test_the_loss_is_corrected_for_coverage(checked: Callable[..., dict[str, Verdict]]) -> None:
    """The baseline's 1.7533 at 94.5 % is about 1.856."""
    events = log_of(**OLD)
    of(events, "validation_step")[-1]["loss"] = 1.7533
    assert "94.5%" in (evidence := checked(events)["coverage"].evidence)
    assert "about 1.855" in evidence or "about 1.856" in evidence


LOSSY: dict[str, Any] = {
    **NEW,
    "train_tokens": 1_028_505,
    "validation_tokens": 114_000,
}  # what a public lower-casing tokenizer makes
PITFALLS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a batch so large that 46 % is never scored": ({**OLD, "block": 256, "batch": 256}, {"coverage"}),
    "a batch that drops 19 %": ({**OLD, "batch": 256}, {"coverage"}),
    "a vocabulary chosen by the luck of its tail": (
        {"vocab": 10_240, "train_tokens": 1_180_000, "validation_tokens": 130_300, "characters": 533_366}, {"coverage"}),
    "a span longer than the text, so the loss is 0": ({**OLD, "block": 512, "batch": 256}, {"coverage"}),
    "a tokenizer that lower-cases": ({**LOSSY, "block": 256, "batch": 64, "vocab": 24_000}, {"tokenizer", "coverage"}),
    "markers written into the text": ({**OLD, "characters": 853_000}, {"denominator"}),
    "a marker in front of each title": ({**OLD, "characters": 533_366 + 50_000}, {"denominator"}),
    "28 epochs, because each batch is taken in four": ({**OLD, "steps": 28 * 134}, {"7 epochs"}),
    "8 epochs": ({**OLD, "steps": 8 * 134}, {"7 epochs"}),
    "another seed": ({**OLD, "seed": 7}, {"seed 1337"}),
    "fewer titles": ({**OLD, "num_titles": 50_000}, {"share"}),
    "half of the titles for validation": ({**OLD, "val_frac": 0.05}, {"share"}),
    "a loss per token": ({**OLD, "characters": 121_400}, {"denominator"}),
    "rows of single titles, padded": ({**OLD, "validation_tokens": 190_000}, {"denominator"}),
}  # fmt: skip


@pytest.mark.parametrize("pitfall", PITFALLS)
def test_each_public_pitfall_is_found(pitfall: str, checked: Callable[..., dict[str, Verdict]]) -> None:
    values, rules = PITFALLS[pitfall]
    verdicts = checked(log_of(**values))
    assert rules <= broken(verdicts), verdicts


def _best_for_last(events: Events) -> None:
    evaluations = of(events, "validation_step")
    evaluations[-2]["loss"] = evaluations[-1]["loss"] - 0.01
    evaluations[-1]["loss"] = evaluations[-2]["loss"]


def _claims_the_best(events: Events) -> None:
    evaluations = of(events, "validation_step")
    evaluations[-2]["loss"] = evaluations[-1]["loss"] - 0.01
    events.append({"event": "training_complete", "final_val_loss": evaluations[-2]["loss"]})


def _stops_at_the_best(events: Events) -> None:
    last = of(events, "validation_step")[-1]
    events.remove(last)


def _twice_at_the_end(events: Events) -> None:
    last = of(events, "validation_step")[-1]
    events.append({**last, "loss": last["loss"] * 0.97})


def _pretrained(events: Events) -> None:
    for event in of(events, "training_step")[:50]:
        event["loss"] *= 0.6


def _learned_nothing(events: Events) -> None:
    of(events, "dataset_info")[0]["vocab_size"] = 3


def _schedule_too_slow(events: Events) -> None:
    total = len(of(events, "training_step"))
    for event in of(events, "training_step"):
        event["lr"] = 1e-3 * (1 + math.cos(math.pi * event["step"] / 4 / total)) / 2


def _each_step_four_times(events: Events) -> None:
    events += [dict(event) for event in of(events, "training_step")]


def _no_number(events: Events) -> None:
    of(events, "training_step")[100]["loss"] = float("nan")


def _cut_off(events: Events) -> None:
    del events[len(events) // 2 :]


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (_best_for_last, "last step"), (_claims_the_best, "last step"), (_stops_at_the_best, "last step"),
        (_twice_at_the_end, "last step"), (_pretrained, "no pretrained weights"), (_learned_nothing, "tokenizer"),
        (_schedule_too_slow, "learning rate"), (_each_step_four_times, "steps"), (_no_number, "steps"), (_cut_off, "steps"),
    ],
)  # fmt: skip
def test_what_was_changed_in_an_honest_log_is_found(
    plant: Callable[[Events], None], rule: str, checked: Callable[..., dict[str, Verdict]]
) -> None:
    events = log_of(**OLD)
    assert rule not in broken(checked(events))
    plant(events)
    assert rule in broken(checked(events))


def test_the_best_reported_for_the_last_is_found(checked: Callable[..., dict[str, Verdict]]) -> None:
    events = log_of(**OLD, last=5.0)
    evaluations = of(events, "validation_step")
    evaluations[-2]["loss"], evaluations[-1]["loss"] = 0.97463, 0.97482
    assert "last step" not in broken(checked(events, reported=0.9748))
    found = checked(events, reported=0.9746)["last step"]
    assert found.verdict == "broken"
    assert "which is the lowest" in found.evidence


def test_gradient_accumulation_leaves_the_epochs_open(checked: Callable[..., dict[str, Verdict]]) -> None:
    """A log does not say whether its steps are batches or updates: 7 epochs, or 28."""
    found = checked(log_of(**OLD, gradient_accumulation_steps=4))["7 epochs"]
    assert found.verdict == "unknown"
    assert "27.9 epochs" in found.evidence
    updates = checked(log_of(**OLD, gradient_accumulation_steps=4, steps=7 * 33))["7 epochs"]
    assert updates.verdict == "kept"


def test_a_hole_in_a_log_is_told(checked: Callable[..., dict[str, Verdict]]) -> None:
    events = log_of(**OLD)
    left = [event for event in events if event["event"] != "training_step" or not 100 <= event["step"] < 200]
    assert "steps 100 to 199 don't stand" in checked(left)["steps"].evidence
    thinned = [event for event in events if event["event"] != "training_step" or event["step"] % 10 == 1]
    assert checked(thinned)["steps"].verdict == "kept"


def test_the_corrected_loss_of_a_public_run(checked: Callable[..., dict[str, Verdict]]) -> None:
    """1.1416 in spans of 256 x 16 by a Unigram tokenizer, of which 2.8 % were dropped, is 1.175."""
    events = log_of(**OLD_UNIGRAM, block=256, batch=16)
    of(events, "validation_step")[-1]["loss"] = 1.1416
    assert "about 1.175" in checked(events)["coverage"].evidence


def test_a_constant_learning_rate_is_no_fault(checked: Callable[..., dict[str, Verdict]]) -> None:
    events = log_of(**OLD)
    for event in of(events, "training_step"):
        event["lr"] = 1e-3
    assert checked(events)["learning rate"].verdict == "kept"


def test_the_last_of_several_runs_in_a_file_is_checked(checked: Callable[..., dict[str, Verdict]]) -> None:
    verdicts = checked([*log_of(**OLD, seed=7), *log_of(**OLD)])
    assert not broken(verdicts)
    assert "2 runs" in verdicts["steps"].evidence


def test_a_log_that_has_only_begun_is_unknown(checked: Callable[..., dict[str, Verdict]]) -> None:
    verdicts = checked(log_of(**OLD)[:2])
    assert {verdicts[rule].verdict for rule in verdicts.keys() - {"seed 1337", "share"}} == {"unknown"}


def test_our_own_logs_are_such_logs(whole: Callable[[str], Path]) -> None:
    """Of other documents than Mainrun's, so what these decide is broken or unknown, and what they don't is kept."""
    for mode in ("stream", "shuffled", "documents"):
        verdicts = {each.rule: each.verdict for each in check_log(RunFolder(whole(mode)).metrics_file)}
        kept = ("steps", "seed 1337", "no pretrained weights", "denominator", "last step", "learning rate")
        assert {rule: verdicts[rule] for rule in kept} == dict.fromkeys(kept, "kept"), mode


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("block_size", "batch_size", "vocab_size", "epochs", "seed", "num_titles", "val_frac", "timestamp", "step", "loss",
          "max_steps", "tokens_per_epoch", "titles_count", "lr", "final_val_loss", "train_batch_size", "coverage",
          "validation_characters", "validation_documents", "gradient_accumulation_steps")  # fmt: skip
SHORT = log_of(**{**OLD, "block": 1024, "batch": 128})
assert len(SHORT) < 100


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SHORT) - 1), st.sampled_from(FIELDS), JSON), min_size=1, max_size=6))
def test_a_hostile_value_never_crashes_it(changes: list[tuple[int, str, Any]]) -> None:
    events = [dict(event) for event in SHORT]
    for place, field, value in changes:
        events[place][field] = value
    _checks("".join(json.dumps(event) + "\n" for event in events).encode())


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_hostile_bytes_never_crash_it(content: bytes) -> None:
    _checks(content)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n\n", b"\x00" * 5000, b"[" * 200_000, b'{"event": ' * 50_000, b'{"event": "training_step", "step": 1' + b"0" * 9000 + b"}",
        b"x" * 3_000_000 + b'\n{"event": "device_info"}\n', b'{"event": 5}\n{"event": null}\n[1]\n"event"\n',
        b'{"event": "validation_step", "loss": Infinity, "step": -1e308}\n', "\ufeff{}\n".encode("utf-16"),
    ],
)  # fmt: skip
def test_files_made_to_hurt_never_crash_it(content: bytes) -> None:
    _checks(content)


def _checks(content: bytes) -> None:
    """Holds that a file is judged, or refused with a sentence."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(content)
        try:
            verdicts = check_log(path)
        except UserError:
            return
    assert len(verdicts) == 11
    assert not [each for each in verdicts if "Error:" in each.evidence], (
        "an unforeseen value has no sentence of its own"
    )


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "mainrun.log"
    path.write_text("".join(json.dumps(event) + "\n" for event in log_of(**OLD)))
    done = run_command("check", "--official-log", path)
    assert done.returncode == 0, done.stderr
    assert "can't be checked" in done.stdout
    done = run_command("check", "--official-log", path, "--reported", "1.5", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert {tuple(each) for each in found} == {("rule", "verdict", "evidence")}
    assert [each["rule"] for each in found if each["verdict"] == "broken"] == ["last step"]
    assert "1 rule broken: last step" in done.stderr
    for arguments in ((), (tmp_path, "--official-log", path), ("--official-log", tmp_path / "none.log"), (path,)):
        done = run_command("check", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr
