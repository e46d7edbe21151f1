"""Runs repeat bit for bit, wherever they are stopped, and `fit` can be used as a library."""

from __future__ import annotations

import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from shortrun.cli.signals import SIGNALS
from shortrun.errors import UserError
from shortrun.recipe import Recipe
from shortrun.recipe_file import to_toml
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder
from shortrun.train.events import Begun, Ended, Evaluated, Event, Note, Saved, StepTaken
from shortrun.train.fit import fit, resume, train
from shortrun.train.loop import Diverged, Stopped
from shortrun.train.prepare import prepare
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

pytestmark = pytest.mark.slow

MODES = ["stream", "shuffled", "documents"]


@pytest.mark.parametrize("mode", MODES)
def test_the_same_recipe_gives_the_same_bits(whole: Callable[[str], Path], mode: str, tmp_path: Path) -> None:
    train(recipe_of(whole(mode)), tmp_path / "again")
    assert_same_end(whole(mode), tmp_path / "again")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["step 1", "inside", "edge", "after the edge", "twice", "last"])
def test_stopping_and_resuming_changes_nothing(
    whole: Callable[[str], Path], mode: str, where: str, tmp_path: Path
) -> None:
    recipe, run = recipe_of(whole(mode)), tmp_path / "run"
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


def start(*args: str | Path, **popen: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "shortrun", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)


def start_training(recipe: Recipe, run: Path, folder: Path) -> subprocess.Popen[str]:
    """A process that trains a recipe, with a checkpoint after each step, which leaves time to interrupt it."""
    recipe_file = folder / "recipe.toml"
    recipe_file.write_text(to_toml(recipe))
    return start("train", recipe_file, "--out", run, "--train.checkpoint-every", "1")


def wait_for_step(run: Path, step: int) -> None:
    """Waits for the checkpoint of that step or of a later one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(path.suffix != ".tmp" and int(path.name) >= step for path in (run / "checkpoints").glob("[0-9]*")):
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of step {step} within a minute")


@pytest.mark.parametrize("mode", ["stream", "shuffled"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_killed_or_interrupted_process_resumes_to_the_same_bits(
    whole: Callable[[str], Path], mode: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start_training(recipe_of(whole(mode)), run, tmp_path)
    wait_for_step(run, 1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert not (run / "scores.json").exists(), "the run was over before the signal came"
    if number != signal.SIGKILL:
        assert "shortrun resume" in errors
    assert resume(run).complete
    assert_same_end(whole(mode), run)


def test_scores_do_not_outlive_the_weights_they_are_of(whole: Callable[[str], Path], tmp_path: Path) -> None:
    """Killed after it had taken further steps: what the earlier stop wrote is gone."""
    run = tmp_path / "run"
    recipe = tiny_recipe(Path(recipe_of(whole("shuffled")).data.path[0]), train={"checkpoint_every": 1})
    train(recipe, run, max_steps=3)
    assert (run / "scores.json").exists()
    assert (run / "nats.npz").exists()
    process = start("resume", run)
    wait_for_step(run, 4)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -9, "the run was over before the signal came"
    assert not (run / "scores.json").exists()
    assert not (run / "nats.npz").exists()
    resume(run)
    assert_same_end(whole("shuffled"), run)


def test_scores_stay_until_the_first_further_step(stopped: Path) -> None:
    """Whoever is killed while a run is made ready to go on loses nothing; after a step there are no scores to be wrong."""
    there: dict[type[Event], bool] = {}

    def look(event: Event) -> None:
        found = {(stopped / name).exists() for name in ("scores.json", "nats.npz")}
        assert len(found) == 1
        there.setdefault(type(event), found.pop())

    resume(stopped, on_event=look)
    assert there[Begun]
    assert not there[StepTaken]
    assert scores_of(stopped)["complete"]


def test_a_full_disk_keeps_the_last_good_checkpoint(whole: Callable[[str], Path], tmp_path: Path) -> None:
    """The system refuses to write more than a few kilobytes a file, as a full disk would."""
    run = tmp_path / "run"
    train(recipe_of(whole("shuffled")), run, max_steps=3)
    before = newest_checkpoint(RunFolder.open(run))[0]

    def no_more_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start("resume", run, preexec_fn=no_more_room)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "could not be written" in errors
    assert "Traceback" not in errors
    assert before is not None
    assert newest_checkpoint(RunFolder.open(run)) == (before, [])
    resume(run)
    assert_same_weights(whole("shuffled"), run)


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    """Sets back what a test of global state has set."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])
    torch.set_rng_state(before[2])
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


@pytest.mark.usefixtures("torch_as_it_was")
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("stop_at", [2, 10**6])
def test_fit_leaves_the_process_as_it_found_it(
    titles_file: Path, tmp_path: Path, deterministic: bool, stop_at: int
) -> None:
    recipe = tiny_recipe(titles_file)
    prepared = prepare(recipe)
    taken: list[int] = []
    inside: list[tuple[int, bool]] = []

    def handlers() -> list[Any]:
        return [signal.getsignal(number) for number in SIGNALS]

    def look(event: Event) -> None:
        assert handlers() == handlers_before
        inside.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        if isinstance(event, StepTaken):
            taken.append(event.step)

    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.manual_seed(5)
    handlers_before, random_before = handlers(), torch.get_rng_state()
    try:
        fit(prepared, recipe, tmp_path / "run", on_event=look, stop=lambda: signal.SIGTERM * (len(taken) >= stop_at))
    except Stopped:
        assert taken == [1, 2]
    else:
        assert len(taken) > stop_at or stop_at == 10**6
    assert set(inside) == {(1, True)}
    assert torch.get_num_threads() == 3
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert torch.equal(torch.get_rng_state(), random_before)
    assert handlers() == handlers_before


def test_fit_tells_what_happens(titles_file: Path, tmp_path: Path) -> None:
    recipe, run = tiny_recipe(titles_file), tmp_path / "run"
    events: list[Event] = []

    def listen(event: Event) -> None:
        if isinstance(event, Saved):
            assert newest_checkpoint(RunFolder(run))[0].path == event.path  # type: ignore[union-attr]
        events.append(event)

    result = fit(prepare(recipe), recipe, run, on_event=listen)
    told = [event for event in events if not isinstance(event, Note)]
    begun = told[0]
    assert isinstance(begun, Begun)
    assert (begun.step, begun.total_steps, begun.log_every) == (0, result.budget.steps, recipe.train.log_every)
    assert begun.folder.recipe() == recipe.located()
    assert sum(isinstance(event, Begun) for event in told) == 1
    assert events.index(told[0]) == len(events) - len(told), "notes come first"
    logged = {name: [e for e in metrics(run) if e["event"] == name] for name in ("training_step", "validation_step")}
    steps = [event for event in told if isinstance(event, StepTaken)]
    assert [event.step for event in steps] == list(range(1, result.budget.steps + 1))
    for key in ("step", "loss", "lr", "grad_norm", "tokens"):
        assert [getattr(event, key) for event in steps] == [event[key] for event in logged["training_step"]]
    evaluated = [event for event in told if isinstance(event, Evaluated)]
    assert [event.step for event in evaluated] == [event["step"] for event in logged["validation_step"]]
    assert evaluated[-1].validation.loss == result.evaluation.loss
    saved = [event for event in told if isinstance(event, Saved)]
    assert [event.step for event in saved] == [event.step for event in evaluated]
    assert "360 documents to train on, 40 to validate" in notes(events)
    assert told[-2:] == [saved[-1], Ended(result)]


def test_a_run_says_how_much_of_its_rows_of_documents_is_padding(titles_file: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    recipe = tiny_recipe(titles_file, batches={"mode": "documents", "block_size": 64, "batch_size": 64})
    train(recipe, tmp_path / "run", max_steps=1, on_event=events.append)
    found = re.search(r"(\d+\.\d)% padding", notes(events))
    assert found
    assert float(found[1]) < 5


def test_fit_stops_where_it_is_asked_to_and_goes_on(
    whole: Callable[[str], Path], titles_file: Path, tmp_path: Path
) -> None:
    recipe, run = tiny_recipe(titles_file), tmp_path / "run"
    prepared, taken = prepare(recipe), 0

    def count(event: Event) -> None:
        nonlocal taken
        taken += isinstance(event, StepTaken)

    with pytest.raises(
        Stopped, match=r"Stopped at step 5 of \d+ with a checkpoint; go on by `shortrun resume"
    ) as stopped:
        fit(prepared, recipe, run, on_event=count, stop=lambda: signal.SIGTERM if taken == 5 else 0)
    assert stopped.value.exit_code == 143
    assert not (run / "scores.json").exists()
    result = fit(prepared, recipe, run, on_event=count)
    assert result.complete
    assert taken == result.budget.steps, "no step is taken twice"
    assert_same_end(whole("shuffled"), run)


def test_fit_refuses_the_run_of_something_else(stopped: Path, titles_file: Path) -> None:
    recipe = recipe_of(stopped)
    prepared = prepare(recipe)
    other = tiny_recipe(titles_file, optim={"lr": 0.5})
    with pytest.raises(UserError, match=r"is a run of another recipe:\n  optim.lr: 0.003 -> 0.5"):
        fit(prepared, other, stopped)
    tokenizer = prepare(tiny_recipe(titles_file, tokenizer={"vocab_size": 290})).tokenizer
    with pytest.raises(UserError, match="is a run with another tokenizer"):
        fit(prepare(recipe, tokenizer), recipe, stopped)
    titles_file.write_text(titles_file.read_text(encoding="utf-8").replace("Rust", "Zig"), encoding="utf-8")
    with pytest.raises(UserError, match="The data is not what this run was trained on"):
        fit(prepare(recipe, prepared.tokenizer), recipe, stopped)


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
    events = [event for event in metrics(tmp_path / "run") if event["event"] == "validation_step"]
    assert events
    assert all(math.isfinite(event["document_loss"]) for event in events)


def test_an_evaluation_that_is_no_number_stops_the_run_unsaved(titles_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(titles_file, optim={"name": "sgd", "lr": 1e38, "grad_clip": 1e30})
    with pytest.raises(Diverged, match=r"After step 1 .* no longer a number\. No checkpoint had been made yet"):
        train(recipe, tmp_path / "run", max_steps=1)
    assert newest_checkpoint(RunFolder.open(tmp_path / "run")) == (None, [])
    assert not (tmp_path / "run" / "scores.json").exists()


def test_resuming_keeps_the_number_of_threads(
    titles_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that began on one thread goes on with one, wherever it is resumed; another torch is said."""
    recipe, run = tiny_recipe(titles_file, train={"threads": None}), tmp_path / "run"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train(recipe, run, max_steps=3)
    assert RunFolder.open(run).manifest()["machine"]["threads"] == 1
    manifest = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(manifest.replace(f'"torch": "{torch.__version__}"', '"torch": "1.0"'))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    done = run_command("resume", run)
    assert done.returncode == 0
    assert "; 1 thread;" in done.stderr
    assert "torch was 1.0 and is" in done.stderr
    train(recipe, tmp_path / "other", max_steps=1)
    assert RunFolder.open(tmp_path / "other").manifest()["machine"]["threads"] == 2


def test_a_tuning_split_is_scored_and_chooses(titles_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(titles_file, data={"tuning_titles": 40})
    result = train(recipe, tmp_path / "run")
    assert result.data["splits"]["tuning"]["documents"] == 40
    assert result.tuning is not None
    assert result.tuning.loss.documents == 40
    assert scores_of(tmp_path / "run")["tuning_loss"] == result.tuning.loss.loss > 0
    newest, _ = newest_checkpoint(RunFolder.open(tmp_path / "run"))
    assert newest is not None
    assert newest.progress.selection_loss == result.tuning.loss.loss


def test_bfloat16_trains_and_repeats(titles_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(titles_file, train={"precision": "bfloat16"})
    first, second = (train(recipe, tmp_path / name).evaluation.loss.loss for name in "ab")
    assert first == second
    plain = train(tiny_recipe(titles_file), tmp_path / "c").evaluation.loss.loss
    assert first != plain
    assert first == pytest.approx(plain, rel=0.02)


def test_a_missing_device_is_refused(titles_file: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device that the test expects to be missing")
    with pytest.raises(UserError, match="no such device; it has cpu"):
        train(tiny_recipe(titles_file, train={"device": "cuda"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
