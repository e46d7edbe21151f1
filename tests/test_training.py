"""Runs repeat bit for bit, wherever they are stopped, and never lose what they had."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shortrun.errors import UserError
from shortrun.recipe_file import to_toml
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder
from shortrun.runs.log import MetricsLog
from shortrun.runs.trained import load_trained
from shortrun.train.fit import Diverged, resume, train
from shortrun.view.evaluate import evaluate_run
from tests.conftest import tiny_recipe

MODES = ["stream", "shuffled"]


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_trained(run).model.state_dict()


def metrics(run: Path) -> list[dict[str, Any]]:
    """All events without what a clock or the folder's name decides."""
    drop = {"timestamp", "elapsed_time", "log_file"}
    return [{k: v for k, v in event.items() if k not in drop} for event in RunFolder.open(run).metrics()]


def assert_same_end(one: Path, other: Path) -> None:
    first, second = final_weights(one), final_weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics(one) == metrics(other)
    scores = [json.loads((run / "scores.json").read_text()) for run in (one, other)]
    assert scores[0]["loss"] == scores[1]["loss"]
    assert scores[0]["official_loss"] == scores[1]["official_loss"]
    assert scores[0]["tokens"] == scores[1]["tokens"]


@pytest.fixture(scope="module")
def whole(titles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An uninterrupted run of either batch mode, made once."""
    folder = tmp_path_factory.mktemp("whole")
    file = folder / "titles.txt"
    file.write_text("\n".join(titles) + "\n", encoding="utf-8")
    for mode in MODES:
        train(tiny_recipe(file, batches={"mode": mode}), folder / mode)
    return lambda mode: folder / mode


def the_recipe(run: Path) -> Any:
    return RunFolder.open(run).recipe()


@pytest.mark.parametrize("mode", MODES)
def test_the_same_recipe_gives_the_same_bits(whole: Callable[[str], Path], mode: str, tmp_path: Path) -> None:
    train(the_recipe(whole(mode)), tmp_path / "again")
    assert_same_end(whole(mode), tmp_path / "again")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["step 1", "inside", "edge", "after the edge", "twice", "last"])
def test_stopping_and_resuming_changes_nothing(
    whole: Callable[[str], Path], mode: str, where: str, tmp_path: Path
) -> None:
    recipe, run = the_recipe(whole(mode)), tmp_path / "run"
    info = next(event for event in metrics(whole(mode)) if event["event"] == "dataset_info")
    per_epoch, total = info["batches_per_epoch"], metrics(whole(mode))[-1]["max_steps"]
    stops = {
        "step 1": [1],
        "inside": [per_epoch // 2 + 1],
        "edge": [per_epoch],
        "after the edge": [per_epoch + 1],
        "twice": [3, per_epoch + 2],
        "last": [total - 1],
    }[where]
    train(recipe, run, max_steps=stops[0])
    for stop in [*stops[1:], None]:
        resume(run, max_steps=stop)
    assert_same_end(whole(mode), run)


def start(args: list[str], **popen: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "shortrun", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen
    )


def wait_for_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any((run / "checkpoints").glob(f"{step:07d}")):
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of step {step} within a minute")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_killed_or_interrupted_process_resumes_to_the_same_bits(
    whole: Callable[[str], Path], mode: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    recipe, run = the_recipe(whole(mode)), tmp_path / "run"
    recipe_file = tmp_path / "recipe.toml"
    recipe_file.write_text(to_toml(recipe))
    process = start(["train", str(recipe_file), "--out", str(run)])
    wait_for_step(run, 1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert not (run / "scores.json").exists(), "the run was over before the signal came"
    if number != signal.SIGKILL:
        assert "shortrun resume" in errors
    resumed = start(["resume", str(run), "--json"])
    output, errors = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, errors
    assert json.loads(output)["complete"]
    assert_same_end(whole(mode), run)


def test_killed_before_any_checkpoint_starts_over(whole: Callable[[str], Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(the_recipe(whole("shuffled")), run, max_steps=2)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    resume(run)
    assert_same_end(whole("shuffled"), run)


def test_a_truncated_newest_checkpoint_is_named_and_the_one_before_used(
    whole: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole("shuffled"), run)
    last = max((run / "checkpoints").iterdir())
    with (last / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    found, damaged = newest_checkpoint(RunFolder.open(run))
    assert found is not None
    assert found.path < last
    assert str(last) in damaged[0]
    resume(run)
    assert f"{last} is damaged" in capfd.readouterr().err.replace("\n", "")
    assert_same_end(whole("shuffled"), run)


@pytest.mark.parametrize("file", ["checkpoint.json", "state.pt"])
def test_other_damage_to_a_checkpoint_is_seen_too(whole: Callable[[str], Path], file: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole("stream"), run)
    last = max((run / "checkpoints").iterdir())
    (last / file).unlink()
    assert file in newest_checkpoint(RunFolder.open(run))[1][0]


@pytest.mark.parametrize("every", [1, 7])
def test_only_the_last_two_checkpoints_and_the_best_are_kept(
    whole: Callable[[str], Path], every: int, tmp_path: Path
) -> None:
    # a learning rate that ruins what the first steps learned: the best checkpoint is an early one
    path = Path(the_recipe(whole("shuffled")).data.path[0])
    recipe = tiny_recipe(
        path,
        optim={"lr": 3.0},
        schedule={"name": "constant"},
        train={"checkpoint_every": every, "evals_per_epoch": 100},
    )
    train(recipe, tmp_path / "run")
    losses = {e["step"]: e["title_loss"] for e in metrics(tmp_path / "run") if e["event"] == "validation_step"}
    best, last = min(losses, key=lambda step: losses[step]), max(losses)
    kept = {int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert best < last - 1
    assert every == 1 or best % every, "kept because it was the best, not because one was due"
    assert best in kept
    assert last in kept
    assert len(kept) == 3
    if every == 1:
        assert last - 1 in kept


@pytest.fixture
def stopped(whole: Callable[[str], Path], titles_file: Path, tmp_path: Path) -> Path:
    """A run of its own titles file, stopped at step 3."""
    recipe = the_recipe(whole("shuffled"))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": (str(titles_file),)})})
    train(recipe, tmp_path / "stopped", max_steps=3)
    return tmp_path / "stopped"


def test_resuming_under_another_recipe_is_refused(stopped: Path) -> None:
    text = (stopped / "recipe.toml").read_text()
    (stopped / "recipe.toml").write_text(text.replace("lr = 0.003", "lr = 0.004"))
    with pytest.raises(UserError, match=r"recipe.toml has changed.*\n.*optim.lr: 0.003 -> 0.004"):
        resume(stopped)
    with pytest.raises(UserError, match=r"recipe.toml has changed"):
        evaluate_run(stopped, None)


def test_data_may_move_and_a_run_may_be_resumed_from_anywhere(
    whole: Callable[[str], Path], titles_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(titles_file.parent)
    recipe = the_recipe(whole("shuffled"))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": (titles_file.name,)})})
    train(recipe, tmp_path / "run", max_steps=3)
    monkeypatch.chdir("/")
    resume(tmp_path / "run", max_steps=4)
    moved = titles_file.rename(tmp_path / "moved.txt")
    recipe_file = tmp_path / "run" / "recipe.toml"
    recipe_file.write_text(recipe_file.read_text().replace(str(titles_file), str(moved)))
    resume(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["complete"]
    first, second = final_weights(tmp_path / "run"), final_weights(whole("shuffled"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_resuming_on_other_data_is_refused(stopped: Path, titles_file: Path) -> None:
    titles_file.write_text(titles_file.read_text(encoding="utf-8").replace("Rust", "Zig"), encoding="utf-8")
    with pytest.raises(UserError, match=r"(?s)The data is not what this run was trained on.*train: 360 titles, sha256"):
        resume(stopped)
    with pytest.raises(UserError, match="The data is not what this run was trained on"):
        evaluate_run(stopped, None)


def test_resuming_with_another_tokenizer_is_refused(stopped: Path) -> None:
    path = stopped / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("  ", " "), encoding="utf-8")
    with pytest.raises(UserError, match=r"(?s)tokenizer.json has changed.*sha256 then.*sha256 now"):
        resume(stopped)


@pytest.mark.parametrize("left", [None, 100])
def test_resuming_without_the_metrics_so_far_is_refused(stopped: Path, left: int | None) -> None:
    if left is None:
        (stopped / "metrics.jsonl").unlink()
    else:
        os.truncate(stopped / "metrics.jsonl", left)
    with pytest.raises(UserError, match=r"has lost lines: it held .* bytes at the checkpoint"):
        resume(stopped)


def test_an_occupied_folder_is_refused(stopped: Path) -> None:
    with pytest.raises(UserError, match="shortrun resume"):
        train(the_recipe(stopped), stopped)


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_that_is_no_number_stops_the_run(titles_file: Path, mode: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(titles_file, batches={"mode": mode}, optim={"name": "sgd", "lr": 1e6, "grad_clip": 1e30})
    with pytest.raises(
        Diverged, match=r"diverged at step \d+: loss .*gradient norm .*learning rate .*checkpoints/0000001"
    ):
        train(recipe, tmp_path / "run")
    newest, damaged = newest_checkpoint(RunFolder.open(tmp_path / "run"))
    assert newest is not None
    assert newest.progress.step == 1
    assert not damaged
    validations = [event["title_loss"] for event in metrics(tmp_path / "run") if event["event"] == "validation_step"]
    assert validations
    assert all(map(math.isfinite, validations))


def test_an_evaluation_that_is_no_number_stops_the_run_unsaved(titles_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(titles_file, optim={"name": "sgd", "lr": 1e38, "grad_clip": 1e30})
    with pytest.raises(Diverged, match=r"After step 1 .* no longer a number\. No checkpoint had been made yet"):
        train(recipe, tmp_path / "run", max_steps=1)
    assert newest_checkpoint(RunFolder.open(tmp_path / "run")) == (None, [])
    assert not (tmp_path / "run" / "scores.json").exists()


def test_resuming_keeps_the_number_of_threads(titles_file: Path, tmp_path: Path) -> None:
    """A run that began on one thread goes on with one, wherever it is resumed; another torch is said."""
    recipe = tiny_recipe(titles_file, train={"threads": None})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    recipe_file = tmp_path / "recipe.toml"
    recipe_file.write_text(to_toml(recipe))
    run = tmp_path / "run"
    started = start(["train", str(recipe_file), "--out", str(run), "--max-steps", "3"], env=environment)
    started.communicate(timeout=60)
    assert RunFolder.open(run).manifest()["machine"]["threads"] == 1
    manifest = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(manifest.replace(f'"torch": "{torch.__version__}"', '"torch": "1.0"'))
    _, errors = start(["resume", str(run)], env={**environment, "OMP_NUM_THREADS": "2"}).communicate(timeout=60)
    assert "1 threads" in errors
    assert "torch was 1.0 and is" in errors


def test_a_run_is_trained_by_one_process_at_a_time(stopped: Path) -> None:
    log = MetricsLog(RunFolder.open(stopped))
    done = start(["resume", str(stopped)])
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 2
    assert "is being trained by another process" in errors
    log.close()
    resume(stopped, max_steps=4)


def test_when_every_checkpoint_is_damaged_nothing_is_overwritten(stopped: Path) -> None:
    for path in (stopped / "checkpoints").iterdir():
        (path / "state.pt").write_bytes(b"")
    before = (stopped / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"(?s)is damaged.*No whole checkpoint is left"):
        resume(stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == before
    (stopped / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="it lacks data, machine, recipe, tokenizer"):
        resume(stopped)


def test_damaged_later_checkpoints_do_not_push_out_the_new_one(whole: Callable[[str], Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(the_recipe(whole("shuffled")), run, max_steps=2)
    for later in ("0000006", "0000007"):
        shutil.copytree(run / "checkpoints" / "0000002", run / "checkpoints" / later)
        (run / "checkpoints" / later / "model.safetensors").write_bytes(b"cut off")
    resume(run, max_steps=4)
    newest, damaged = newest_checkpoint(RunFolder.open(run))
    assert newest is not None
    assert newest.progress.step == 4
    assert len(damaged) == 2


def test_a_full_disk_keeps_the_last_good_checkpoint(whole: Callable[[str], Path], tmp_path: Path) -> None:
    """The system refuses to write more than a few kilobytes a file, as a full disk would."""
    run = tmp_path / "run"
    train(the_recipe(whole("shuffled")), run, max_steps=3)
    before = newest_checkpoint(RunFolder.open(run))[0]

    def no_more_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start(["resume", str(run)], preexec_fn=no_more_room)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "could not be written" in errors
    assert "Traceback" not in errors
    assert before is not None
    assert newest_checkpoint(RunFolder.open(run)) == (before, [])
    resume(run)
    ended = final_weights(run)
    assert all(torch.equal(weight, ended[name]) for name, weight in final_weights(whole("shuffled")).items())


def test_every_title_is_counted(whole: Callable[[str], Path]) -> None:
    run = whole("shuffled")
    state = torch.load(max((run / "checkpoints").iterdir()) / "state.pt", weights_only=True)
    assert state["documents_seen"].tolist() == [the_recipe(run).train.epochs] * 360


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
        "validation_step": {"step", "max_steps", "loss", "elapsed_time", "coverage", "title_loss"},
    }  # fmt: skip
    assert by_name.keys() == wanted.keys()
    for name, fields in wanted.items():
        assert fields <= by_name[name].keys()
    steps = [event["step"] for event in events if event["event"] == "training_step"]
    assert steps == list(range(1, events[-1]["max_steps"] + 1))
    evaluated = [event["step"] for event in events if event["event"] == "validation_step"]
    interval = by_name["dataset_info"]["batches_per_epoch"] // 2
    assert evaluated == sorted({1, *range(interval, steps[-1] + 1, interval), steps[-1]})


def test_a_tuning_split_is_scored_and_chooses(titles_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(titles_file, data={"tuning_titles": 40})
    scores = train(recipe, tmp_path / "run")
    assert scores["data"]["splits"]["tuning"]["titles"] == 40
    assert scores["tuning_loss"] > 0
    newest, _ = newest_checkpoint(RunFolder.open(tmp_path / "run"))
    assert newest is not None
    assert newest.progress.selection_loss == scores["tuning_loss"]


def test_bfloat16_trains_and_repeats(titles_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(titles_file, train={"precision": "bfloat16"})
    first, second = (train(recipe, tmp_path / name)["loss"] for name in "ab")
    assert first == second
    plain = train(tiny_recipe(titles_file), tmp_path / "c")["loss"]
    assert first != plain
    assert first == pytest.approx(plain, rel=0.02)


def test_an_unwritable_place_is_a_sentence(whole: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="already exists and is not empty"):
        train(the_recipe(whole("stream")), tmp_path / "file")
    with pytest.raises(UserError, match=r"The run folder .* can't be made: Not a directory"):
        train(the_recipe(whole("stream")), tmp_path / "file" / "run")


def test_a_missing_device_is_refused(titles_file: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device that the test expects to be missing")
    with pytest.raises(UserError, match="no such device; it has cpu"):
        train(tiny_recipe(titles_file, train={"device": "cuda"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
