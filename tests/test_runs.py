"""The run folder: what it promises to hold, and what becomes of a damaged, an older or a foreign one."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shortrun.errors import UserError
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import FORMAT, RunFolder, find_run, runs_in
from shortrun.runs.log import MetricsLog
from shortrun.runs.trained import load_trained
from shortrun.score.evaluate import document_nats
from shortrun.text.corpus import load_corpus
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.train.events import Event
from shortrun.train.fit import fit, resume, train
from shortrun.train.prepare import prepare
from shortrun.view.evaluate import evaluate_run
from tests.conftest import (
    assert_same_end,
    assert_same_weights,
    metrics,
    notes,
    recipe_of,
    run_command,
    scores_of,
    tiny_recipe,
)


@pytest.fixture
def copied(whole: Callable[[str], Path], tmp_path: Path) -> Path:
    """The whole `shuffled` run, to damage."""
    return shutil.copytree(whole("shuffled"), tmp_path / "copied")


def test_metrics_speak_mainruns_language(whole: Callable[[str], Path]) -> None:
    """Event names and fields that scripts written for Mainrun's log look for."""
    events = list(RunFolder.open(whole("stream")).metrics())
    by_name: dict[str, dict[str, Any]] = {event["event"]: event for event in events}
    wanted = {
        "hyperparameters_configured": {"block_size", "batch_size", "vocab_size", "n_layer", "n_head", "d_model", "dropout", "lr", "weight_decay", "evals_per_epoch", "epochs", "seed", "num_titles", "val_frac", "log_file"},
        "device_info": {"device"},
        "dataset_info": {"titles_count", "epochs", "batches_per_epoch", "tokens_per_epoch", "vocab_size"},
        "model_info": {"parameters_count"},
        "training_step": {"step", "max_steps", "loss", "elapsed_time", "lr", "grad_norm"},
        "validation_step": {"step", "max_steps", "loss", "elapsed_time", "coverage", "document_loss"},
    }  # fmt: skip
    assert by_name.keys() == wanted.keys()
    for name, fields in wanted.items():
        assert fields <= by_name[name].keys()
    steps = [event["step"] for event in events if event["event"] == "training_step"]
    assert steps == list(range(1, events[-1]["max_steps"] + 1))
    evaluated = [event["step"] for event in events if event["event"] == "validation_step"]
    interval = by_name["dataset_info"]["batches_per_epoch"] // 2
    assert evaluated == sorted({1, *range(interval, steps[-1] + 1, interval), steps[-1]})


def test_every_document_is_counted(whole: Callable[[str], Path]) -> None:
    run = whole("shuffled")
    state = torch.load(max((run / "checkpoints").iterdir()) / "state.pt", weights_only=True)
    assert state["documents_seen"].tolist() == [recipe_of(run).train.epochs] * 360


def test_nats_are_those_of_each_validation_document_in_order(whole: Callable[[str], Path]) -> None:
    run = whole("shuffled")
    stored = np.load(run / "nats.npz", allow_pickle=False)["validation"]
    assert (stored.dtype, stored.shape) == (np.float64, (40,))
    assert math.fsum(stored) == scores_of(run)["nats"]
    assert RunFolder.open(run).nats().nats_D.tolist() == stored.tolist()
    trained = load_trained(run)
    one_by_one = [
        document_nats(trained.model, EncodedDocuments.of([trained.tokenizer.encode(text)], trained.tokenizer.eos))[0]
        for text in load_corpus(trained.recipe.data).split("validation")
    ]
    assert stored.tolist() == pytest.approx(one_by_one, rel=1e-5)
    assert len({round(nats, 3) for nats in one_by_one}) > 30, "documents differ, so that their order would show"


def test_a_run_without_a_result_says_so(stopped: Path) -> None:
    RunFolder(stopped).remove_result()
    assert RunFolder.open(stopped).scores() is None
    missing = f"{stopped / 'nats.npz'} can't be read: No such file or directory"
    with pytest.raises(UserError, match=f"^{re.escape(missing)}$"):
        RunFolder.open(stopped).nats()


def test_only_the_last_two_checkpoints_and_the_best_are_kept(titles_file: Path, tmp_path: Path) -> None:
    def trained(path: Path, every: int) -> tuple[int, int, set[int]]:
        """The steps with the lowest loss, the last one, and those kept.

        The learning rate ruins what the first steps learned, so that the best checkpoint is an early one.
        """
        recipe = tiny_recipe(
            titles_file,
            optim={"lr": 3.0},
            schedule={"name": "constant"},
            train={"checkpoint_every": every, "evals_per_epoch": 100},
        )
        train(recipe, path)
        losses = {e["step"]: e["document_loss"] for e in metrics(path) if e["event"] == "validation_step"}
        return (
            min(losses, key=lambda step: losses[step]),
            max(losses),
            {int(entry.name) for entry in (path / "checkpoints").iterdir()},
        )

    best, last, kept = trained(tmp_path / "each", every=1)
    assert best < last - 1
    assert kept == {best, last - 1, last}
    every = next(steps for steps in range(5, last) if best % steps)  # so that the best is not due
    again, _, kept = trained(tmp_path / "some", every)
    assert again == best
    assert kept == {best, last, last - (last % every or every)}


def test_killed_before_any_checkpoint_starts_over(
    whole: Callable[[str], Path], titles_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(tiny_recipe(titles_file), run, max_steps=2)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    resume(run)
    assert_same_end(whole("shuffled"), run)


def truncated(checkpoint: Path) -> None:
    os.truncate(checkpoint / "model.safetensors", 1000)


def with_another_digit(checkpoint: Path) -> None:
    """A counter is still a number, so only the seal knows."""
    path = checkpoint / "checkpoint.json"
    text = path.read_text()
    place = text.index('"tokens": ') + len('"tokens": ')
    path.write_text(text[:place] + ("2" if text[place] == "1" else "1") + text[place + 1 :])


@pytest.mark.parametrize("damage", [truncated, with_another_digit])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    whole: Callable[[str], Path], copied: Path, damage: Callable[[Path], None]
) -> None:
    *_, before, last = sorted((copied / "checkpoints").iterdir())
    damage(last)
    found, damaged = newest_checkpoint(RunFolder.open(copied))
    assert found is not None
    assert found.path == before
    assert str(last) in damaged[0]
    done = run_command("resume", copied)
    assert done.returncode == 0
    assert f"{last} is damaged" in done.stderr
    assert f"Resuming from {before}" in done.stderr
    assert_same_end(whole("shuffled"), copied)


def same_json(one: bytes, other: bytes) -> bool:
    """Whether both say the same: the last digits of a float may differ and mean the same float."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def test_any_flipped_bit_of_checkpoint_json_is_noticed(copied: Path) -> None:
    *_, before, last = sorted((copied / "checkpoints").iterdir())
    content = (last / "checkpoint.json").read_bytes()
    assert newest_checkpoint(RunFolder.open(copied))[1] == []
    for place, byte in enumerate(content):
        damaged_content = content[:place] + bytes([byte ^ 1]) + content[place + 1 :]
        if same_json(damaged_content, content):
            continue
        (last / "checkpoint.json").write_bytes(damaged_content)
        found, damaged = newest_checkpoint(RunFolder.open(copied))
        assert found is not None
        assert found.path == before, (place, content[max(place - 20, 0) : place + 20])
        assert "checkpoint.json" in damaged[0]


@pytest.mark.parametrize("file", ["checkpoint.json", "state.pt", "model.safetensors"])
def test_a_missing_file_of_a_checkpoint_is_seen_too(copied: Path, file: str) -> None:
    (max((copied / "checkpoints").iterdir()) / file).unlink()
    assert file in newest_checkpoint(RunFolder.open(copied))[1][0]


def test_when_every_checkpoint_is_damaged_nothing_is_overwritten(stopped: Path) -> None:
    for path in (stopped / "checkpoints").iterdir():
        (path / "state.pt").write_bytes(b"")
    before = (stopped / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"(?s)is damaged.*No whole checkpoint is left"):
        resume(stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == before
    (stopped / "manifest.json").write_text(json.dumps({"format": FORMAT}))
    with pytest.raises(UserError, match="is damaged: recipe is missing"):
        resume(stopped)


def test_damaged_later_checkpoints_do_not_push_out_the_new_one(titles_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_recipe(titles_file), run, max_steps=2)
    for later in ("0000006", "0000007"):
        shutil.copytree(run / "checkpoints" / "0000002", run / "checkpoints" / later)
        (run / "checkpoints" / later / "model.safetensors").write_bytes(b"cut off")
    resume(run, max_steps=4)
    newest, damaged = newest_checkpoint(RunFolder.open(run))
    assert newest is not None
    assert newest.progress.step == 4
    assert len(damaged) == 2


@pytest.mark.parametrize("share", [0.0, 0.7])
def test_a_run_goes_on_without_the_metrics_that_were_lost(
    whole: Callable[[str], Path], stopped: Path, share: float
) -> None:
    log = stopped / "metrics.jsonl"
    size = log.stat().st_size
    if share:
        os.truncate(log, int(share * size))
    else:
        log.unlink()
    whole_lines = log.read_bytes().rfind(b"\n") + 1 if share else 0
    events: list[Event] = []
    resume(stopped, max_steps=5, on_event=events.append)
    expected = f"{log} has lost lines: it held {size:,} bytes at the checkpoint and goes on after {whole_lines:,}"
    assert expected in notes(events)
    events.clear()
    resume(stopped, on_event=events.append)
    assert "lost" not in notes(events), "said once"
    assert_same_weights(whole("shuffled"), stopped)
    left = metrics(stopped)
    never_lost = metrics(whole("shuffled"))
    after = [event for event in never_lost if event.get("step", 0) > 3]
    before = left[: -len(after)]
    assert left == never_lost[: len(before)] + after
    assert bool(before) == bool(share)


def test_a_run_is_trained_by_one_process_at_a_time(stopped: Path) -> None:
    log = MetricsLog(RunFolder.open(stopped))
    done = run_command("resume", stopped)
    assert done.returncode == 2
    assert "is being trained by another process" in done.stderr
    log.close()
    resume(stopped, max_steps=4)


def test_resuming_under_another_recipe_is_refused(stopped: Path) -> None:
    text = (stopped / "recipe.toml").read_text()
    (stopped / "recipe.toml").write_text(text.replace("lr = 0.003", "lr = 0.004"))
    with pytest.raises(UserError, match=r"recipe.toml has changed.*\n.*optim.lr: 0.003 -> 0.004"):
        resume(stopped)
    with pytest.raises(UserError, match=r"recipe.toml has changed"):
        evaluate_run(stopped)


def test_data_may_move_and_a_run_may_be_resumed_from_anywhere(
    whole: Callable[[str], Path], titles_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(titles_file.parent)
    train(tiny_recipe(Path(titles_file.name)), tmp_path / "run", max_steps=3)
    monkeypatch.chdir("/")
    resume(tmp_path / "run", max_steps=4)
    moved = titles_file.rename(tmp_path / "moved.txt")
    recipe_file = tmp_path / "run" / "recipe.toml"
    recipe_file.write_text(recipe_file.read_text().replace(str(titles_file), str(moved)))
    resume(tmp_path / "run")
    assert_same_end(whole("shuffled"), tmp_path / "run")


def test_resuming_on_other_data_is_refused(stopped: Path, titles_file: Path) -> None:
    titles_file.write_text(titles_file.read_text(encoding="utf-8").replace("Rust", "Zig"), encoding="utf-8")
    with pytest.raises(UserError, match=r"(?s)not what this run was trained on.*train: 360 documents, sha256"):
        resume(stopped)
    with pytest.raises(UserError, match="The data is not what this run was trained on"):
        evaluate_run(stopped)


def test_resuming_with_another_tokenizer_is_refused(stopped: Path) -> None:
    path = stopped / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("  ", " "), encoding="utf-8")
    with pytest.raises(UserError, match=r"(?s)tokenizer.json has changed.*sha256 then.*sha256 now"):
        resume(stopped)


def test_an_occupied_folder_is_refused(stopped: Path) -> None:
    with pytest.raises(UserError, match="shortrun resume"):
        train(recipe_of(stopped), stopped)


def test_an_unwritable_place_is_a_sentence(titles_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="already exists and is not empty"):
        train(tiny_recipe(titles_file), tmp_path / "file")
    with pytest.raises(UserError, match=r"The run folder .* can't be made: Not a directory"):
        train(tiny_recipe(titles_file), tmp_path / "file" / "run")


def edit_manifest(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    change(manifest)
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "found", "age"),
    [
        (lambda manifest: manifest.pop("format"), 1, "an older"),
        (lambda manifest: manifest.update(format=FORMAT + 1), FORMAT + 1, "a newer"),
    ],
)
def test_a_run_of_an_unknown_format_is_refused(
    copied: Path, change: Callable[[dict[str, Any]], object], found: int, age: str
) -> None:
    edit_manifest(copied, change)
    for command in ("eval", "sample", "resume"):
        done = run_command(command, copied)
        assert done.returncode == 2
        assert (
            f"{copied} is a run of format {found}, made by {age} shortrun; this one reads format {FORMAT}"
            in done.stderr
        )


def test_a_run_with_fields_that_are_no_more_can_be_read_and_not_gone_on_with(stopped: Path) -> None:
    text = (stopped / "recipe.toml").read_text()
    (stopped / "recipe.toml").write_text(text.replace("[model]\n", "[model]\nisolate = true\n") + "\n[gone]\nlr = 1\n")
    edit_manifest(stopped, lambda manifest: manifest["recipe"].update(gone={"lr": 1}))
    edit_manifest(stopped, lambda manifest: manifest["recipe"]["model"].update(isolate=True))
    said = "was made by an older shortrun; this one does not know gone, model.isolate"
    evaluated = run_command("eval", stopped, "--json")
    assert evaluated.returncode == 0
    assert said in evaluated.stderr
    assert json.loads(evaluated.stdout)["loss"] == pytest.approx(scores_of(stopped)["loss"], rel=1e-6)
    sampled = run_command("sample", stopped, "--n", "2")
    assert sampled.returncode == 0
    assert said in sampled.stderr
    assert len(sampled.stdout.splitlines()) == 2
    resumed = run_command("resume", stopped)
    assert resumed.returncode == 2
    assert "can be read, but not gone on with: this one does not know gone, model.isolate" in resumed.stderr
    recipe = recipe_of(stopped)
    with pytest.raises(UserError, match="can be read, but not gone on with"):
        fit(prepare(recipe), recipe, stopped)


def test_a_run_is_found_by_its_fingerprint(whole: Callable[[str], Path], stopped: Path, titles_file: Path) -> None:
    """Among stopped and broken ones, and those of another recipe, the finished one comes first."""
    root = stopped.parent / "runs"
    shutil.copytree(stopped, root / "a" / "stopped")
    fingerprint = RunFolder.open(stopped).fingerprint()
    found = find_run(root, fingerprint)
    assert found is not None
    assert found.path == root / "a" / "stopped"
    shutil.copytree(whole("shuffled"), root / "finished")
    train(tiny_recipe(titles_file, train={"seed": 2}), root / "other seed", max_steps=1)
    (root / "broken").mkdir()
    (root / "broken" / "recipe.toml").write_text("")
    assert [run.path.name for run in runs_in(root)] == ["stopped", "finished", "other seed"]
    found = find_run(root, fingerprint)
    assert found is not None
    assert found.path == root / "finished"
    assert scores_of(root / "finished")["fingerprint"] == fingerprint
    other = find_run(root, RunFolder.open(root / "other seed").fingerprint())
    assert other is not None
    assert other.path == root / "other seed"
    assert find_run(root, "0" * 64) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scores.json", b""),
        ("scores.json", b'{"loss": 1.0}'),
        ("scores.json", b"[1]"),
        ("nats.npz", b""),
        ("nats.npz", b"PK"),
    ],
)
def test_a_damaged_result_is_none_and_is_written_anew(copied: Path, name: str, content: bytes) -> None:
    run = RunFolder.open(copied)
    before, nats = run.finished_scores(), run.nats().nats_D.tolist()
    assert before is not None
    (copied / name).write_bytes(content)
    assert run.finished_scores() is None
    found = find_run(copied.parent, run.fingerprint())
    assert found is not None
    assert found.path == copied
    shutil.copytree(copied, copied.parent / "a copy")
    found = find_run(copied.parent, run.fingerprint())
    assert found is not None
    assert found.path == copied.parent / "a copy", "of two unfinished ones the first"
    recipe = recipe_of(copied)
    fit(prepare(recipe), recipe, copied)
    after = run.finished_scores()
    assert after is not None
    assert (after["loss"], run.nats().nats_D.tolist()) == (before["loss"], nats)
    found = find_run(copied.parent, run.fingerprint())
    assert found is not None
    assert found.path == copied, "the finished one"


def test_a_run_that_is_being_made_is_none(copied: Path) -> None:
    copied.rename(copied.with_name("copied.tmp"))
    assert list(runs_in(copied.parent)) == []
