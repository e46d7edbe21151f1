"""Trackers get what the log says, once and in order, whatever happens to the run; and the run does not notice them."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortrun.errors import UserError
from shortrun.recipe_file import to_toml
from shortrun.runs.folder import RunFolder
from shortrun.runs.result import Result
from shortrun.runs.trained import load_trained
from shortrun.track.tensorboard import METRICS
from shortrun.track.tracker import Reached, Tracker, hyperparameters, identity, of_record
from shortrun.track.tracking import DOCUMENTS, Tracking, trackers
from shortrun.train.events import Begun, Event, Note, StepTaken
from shortrun.train.fit import resume, train
from shortrun.train.loop import SAMPLED_TOKENS
from tests.conftest import ROOT, assert_same_end, metrics, recipe_of, run_command, scores_of, tiny_recipe

pytestmark = pytest.mark.slow

Points = dict[str, list[tuple[int, float]]]
SPEED = "Train/TokensPerSecond"


def logged(run: Path) -> Points:
    """What metrics.jsonl says, under the names that trackers get."""
    found: Points = {}
    for event in metrics(run):
        if event["event"] == "training_step":
            named = {
                "Train/Loss": event["loss"],
                "Train/LearningRate": event["lr"],
                "Train/Perplexity": math.exp(event["loss"]),
                "Train/GradientNorm": event["grad_norm"],
            }
        elif event["event"] == "validation_step":
            named = {
                "Val/Loss": event["document_loss"],
                "Val/OfficialLoss": event["official_loss"],
                "Val/BitsPerByte": event["bits_per_byte"],
                "Val/Perplexity": event["perplexity"],
                "Val/TuningLoss": event["tuning_loss"],
            }
        else:
            continue
        for name, value in named.items():
            if value is not None:
                found.setdefault(name, []).append((event["step"], value))
    return found


def as_float32(points: Points) -> Points:
    """The precision in which event files keep scalars."""
    return {name: [(step, float(np.float32(value))) for step, value in series] for name, series in points.items()}


def event_files(run: Path) -> Any:
    """The run's event files, read by TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tb"), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def in_tensorboard(run: Path) -> Points:
    found = event_files(run)
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def assert_tracked(run: Path) -> None:
    """The event files hold what the log says; the speed, which it does not say, of steps of this run."""
    found = in_tensorboard(run)
    speeds = found.pop(SPEED, [])
    assert found == as_float32(logged(run))
    steps = [step for step, _ in speeds]
    assert steps == sorted(set(steps))
    assert set(steps) <= {step for step, _ in found["Train/Loss"]}
    assert all(speed > 0 for _, speed in speeds)


@pytest.fixture(scope="module")
def tracked(whole: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `shuffled` run with TensorBoard; to look at, not to change."""
    run = tmp_path_factory.mktemp("tracked") / "run"
    with Tracking(trackers(["tensorboard"])) as tracking:
        train(recipe_of(whole("shuffled")), run, on_event=tracking)
    return run


def test_event_files_say_what_the_log_says(tracked: Path) -> None:
    assert_tracked(tracked)
    found = in_tensorboard(tracked)
    assert [step for step, _ in found[SPEED]] == [step for step, _ in found["Train/Loss"]]
    assert len(list((tracked / "tb").iterdir())) == 1


def test_an_official_loss_of_no_target_is_no_number(tracked: Path) -> None:
    """It is 0 by definition, and a curve at 0 would look like the best of all."""
    record = next(event for event in metrics(tracked) if event["event"] == "validation_step")
    assert of_record(record)["Val/OfficialLoss"] == record["official_loss"]
    without = of_record({**record, "official_loss": 0.0, "coverage": 0.0})
    assert without == {name: value for name, value in of_record(record).items() if name != "Val/OfficialLoss"}


def test_a_tracked_run_ends_in_the_same_bits(whole: Callable[[str], Path], tracked: Path) -> None:
    assert_same_end(whole("shuffled"), tracked)


def test_documents_are_those_that_the_model_writes(tracked: Path) -> None:
    texts = event_files(tracked).Tensors("Samples/text_summary")
    evaluations = [event["step"] for event in metrics(tracked) if event["event"] == "validation_step"]
    assert [text.step for text in texts] == evaluations
    trained = load_trained(tracked)
    seed = trained.recipe.train.seed
    written = trained.sample(prefix="", count=DOCUMENTS, temperature=1.0, seed=seed, max_tokens=SAMPLED_TOKENS)
    (last,) = texts[-1].tensor_proto.string_val
    lines = [line for document in written for line in document.split("\n")]
    assert last.decode() == "\n".join(f"    {line}" for line in lines), "a block of code in Markdown"
    assert texts[0].tensor_proto.string_val != texts[-1].tensor_proto.string_val


def test_hyperparameters_stand_beside_the_final_losses(tracked: Path) -> None:
    """As TensorBoard's own plugin shows them."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, list_session_groups
    from tensorboard.plugins.hparams.backend_context import Context

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tracked))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tracked))
    columns = [api_pb2.ColParams(metric=api_pb2.MetricName(tag=tag)) for tag in METRICS]
    ask = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10, allowed_statuses=[api_pb2.STATUS_SUCCESS], col_params=columns
    )
    handler = list_session_groups.Handler(RequestContext(), Context(TBContext(data_provider=provider)), "", ask)
    (group,) = handler.run().session_groups
    shown = {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()}
    assert shown == hyperparameters(recipe_of(tracked))
    assert shown["model.dropout"] == 0.2
    assert shown["optim.name"] == "adamw"
    scores = scores_of(tracked)
    assert {value.name.tag: value.value for value in group.metric_values} == {
        "Val/Loss": np.float32(scores["loss"]),
        "Val/OfficialLoss": np.float32(scores["official_loss"]),
        "Val/BitsPerByte": np.float32(scores["bits_per_byte"]),
        "Val/Perplexity": np.float32(scores["perplexity"]),
    }


KILLED = """
import os, signal, sys
from pathlib import Path
from shortrun.recipe_file import load_recipe
from shortrun.track.tracking import Tracking, trackers
from shortrun.train.events import StepTaken
from shortrun.train.fit import train

with Tracking(trackers(["tensorboard"])) as tracking:
    def listen(event):
        tracking(event)
        if isinstance(event, StepTaken) and event.step == 8:
            os.kill(os.getpid(), signal.SIGKILL)
    train(load_recipe(sys.argv[1]), Path(sys.argv[2]), on_event=listen)
"""


def test_a_killed_run_goes_on_without_doubled_or_future_points(titles_file: Path, tmp_path: Path) -> None:
    """Killed at step 8, in the middle of a record, with a checkpoint of step 5; gone on with until 7, then to the end."""
    run, recipe = tmp_path / "run", tmp_path / "recipe.toml"
    recipe.write_text(
        to_toml(tiny_recipe(titles_file, data={"tuning_titles": 20}, train={"checkpoint_every": 5, "epochs": 1}))
    )
    done = subprocess.run([sys.executable, "-c", KILLED, str(recipe), str(run)], capture_output=True, timeout=120)
    assert done.returncode == -9, done.stderr
    assert in_tensorboard(run)[SPEED][-1][0] == 8
    (file,) = (run / "tb").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    assert run_command("resume", run, "--track", "tensorboard", "--max-steps", "7").returncode == 0
    assert [step for step, _ in in_tensorboard(run)["Train/Loss"]] == list(range(1, 8))
    assert_tracked(run)
    assert run_command("resume", run, "--track", "tensorboard").returncode == 0
    assert scores_of(run)["complete"]
    assert_tracked(run)
    assert "Val/TuningLoss" in in_tensorboard(run)
    train(recipe_of(run), tmp_path / "at once")
    assert_same_end(tmp_path / "at once", run)


def test_the_clock_may_be_set_back_between_sittings(titles_file: Path, tmp_path: Path) -> None:
    """TensorBoard reads files in the order of their names, and a name begins with the second in which it was begun."""
    run = tmp_path / "run"
    for steps in (3, 5):
        with Tracking(trackers(["tensorboard"])) as tracking:
            if steps == 3:
                train(tiny_recipe(titles_file, train={"checkpoint_every": 2}), run, max_steps=steps, on_event=tracking)
            else:
                resume(run, max_steps=steps, on_event=tracking)
    for file in (run / "tb").iterdir():
        file.rename(
            file.with_name(re.sub(r"\.(\d+)\.", lambda found: f".{int(found[1]) + 10**6}.", file.name, count=1))
        )
    with Tracking(trackers(["tensorboard"])) as tracking:
        resume(run, on_event=tracking)
    assert len(list((run / "tb").iterdir())) == 3
    assert_tracked(run)


def test_a_run_that_was_not_tracked_all_along_gets_its_history(stopped: Path) -> None:
    """Begun without, stopped after 3 steps; then with, without, with, to the end, and once more when nothing is left."""
    for steps, names in (
        (6, ["tensorboard"]),
        (9, []),
        (12, ["tensorboard"]),
        (None, ["tensorboard"]),
        (None, ["tensorboard"]),
    ):
        with Tracking(trackers(names)) as tracking:
            resume(stopped, max_steps=steps, on_event=tracking)
        if names:
            assert_tracked(stopped)
    assert [step for step, _ in in_tensorboard(stopped)[SPEED]][:3] == [4, 5, 6], "the log does not say the first three"


class Recorder:
    """A tracker that keeps what it is told, prints, and fails where it is asked to."""

    def __init__(self, fails_in: str = "", has: Reached | None = None) -> None:
        self.fails_in, self.has = fails_in, has or Reached()
        self.told: list[tuple[str, int]] = []
        self.points: Points = {}

    def _tell(self, method: str, step: int) -> None:
        print(f"{method} {step}")
        self.told.append((method, step))
        if self.fails_in == method and step != 1:
            raise ConnectionError("the server has gone\nTraceback and more")

    def begin(self, run: Begun) -> Reached:
        self._tell("begin", run.step)
        return self.has

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._tell("scalars", step)
        for name, value in values.items():
            self.points.setdefault(name, []).append((step, value))

    def documents(self, step: int, documents: list[str]) -> None:
        assert len(documents) == DOCUMENTS
        self._tell("documents", step)

    def end(self, result: Result | None) -> None:
        self._tell("end", result.budget.steps if result else 0)


@pytest.mark.parametrize("method", ["begin", "scalars", "documents", "end"])
def test_a_tracker_that_fails_is_left_out_and_nothing_else_notices(
    whole: Callable[[str], Path], tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, other, events = Recorder(method), Recorder(), list[Event]()
    made: dict[str, Tracker] = {"failing": failing, "other": other}
    with Tracking(made, events.append) as tracking:
        train(recipe_of(whole("shuffled")), tmp_path / "run", on_event=tracking)
    (warning,) = [event.text for event in events if isinstance(event, Note) and "Tracking" in event.text]
    assert warning == "Tracking by failing ends here, and training goes on: the server has gone"
    assert [name for name, _ in failing.told[-2:]] == [method, "end"], "nothing more, but it may let go"
    assert {name: series for name, series in other.points.items() if name != SPEED} == logged(tmp_path / "run")
    assert [name for name, _ in other.told].count("end") == 1
    assert_same_end(whole("shuffled"), tmp_path / "run")
    assert capsys.readouterr().out == "", "standard output belongs to --json"


def test_a_tracker_is_told_only_what_it_lacks(stopped: Path) -> None:
    """It has 2 of 3 steps and the evaluation at step 1; another has what the run will only take again."""
    behind, ahead = Recorder(has=Reached(2, 1)), Recorder(has=Reached(5, 5))
    with Tracking({"behind": behind, "ahead": ahead}) as tracking:
        resume(stopped, max_steps=6, on_event=tracking)
    assert behind.told == [("begin", 3), *(("scalars", step) for step in (3, 4, 5, 6)), ("end", 6)]
    assert behind.points["Train/Loss"] == logged(stopped)["Train/Loss"][2:]
    assert ahead.told == [("begin", 3), ("scalars", 6), ("end", 6)]


def test_a_run_that_stops_ends_its_trackers(titles_file: Path, tmp_path: Path) -> None:
    recorder = Recorder()

    def listen(event: Event) -> None:
        tracking(event)
        if isinstance(event, StepTaken):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Tracking({"recorder": recorder}) as tracking:
        train(tiny_recipe(titles_file), tmp_path / "run", on_event=listen)
    assert recorder.told == [("begin", 0), ("scalars", 1), ("end", 0)]
    with Tracking({"recorder": recorder}):
        pass
    assert len(recorder.told) == 3, "what has not begun has no end"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is always full")
def test_a_full_disk_ends_tensorboard_and_not_the_training(
    whole: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, events, hook = tmp_path / "run", list[Event](), threading.excepthook
    with Tracking(trackers(["tensorboard"]), events.append) as tracking:

        def listen(event: Event) -> None:
            tracking(event)
            if isinstance(event, StepTaken) and event.step == 4:
                (file,) = (run / "tb").iterdir()
                file.unlink()
                file.symlink_to("/dev/full")

        train(recipe_of(whole("shuffled")), run, on_event=listen)
    (warning,) = [event for event in events if isinstance(event, Note) and "tensorboard" in event.text]
    assert "No space left on device" in warning.text
    assert warning.warning
    assert capfd.readouterr() == ("", "")
    assert threading.excepthook is hook
    assert_same_end(whole("shuffled"), run)


def test_what_is_missing_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package in (("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=rf"needs the extra `{name}`: pip install 'shortrun\[{name}\]'"):
            trackers([name])
    done = run_command("train", "quickstart", "--track", "tensorbord")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no tracker 'tensorbord': did you mean 'tensorboard'?" in done.stderr


def test_an_identity_belongs_to_one_run(whole: Callable[[str], Path], tracked: Path) -> None:
    """Two runs of a recipe are two; one that goes on stays the same, because the log keeps its first line."""
    one, other = RunFolder.open(whole("shuffled")), RunFolder.open(tracked)
    assert one.fingerprint() == other.fingerprint()
    assert identity(one) != identity(other)
    line = one.metrics_file.read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch("[0-9a-f]{16}", identity(one))
    moved = tracked.parent / "moved"
    moved.mkdir()
    (moved / "metrics.jsonl").write_text(line + "\n", encoding="utf-8")
    assert identity(RunFolder(moved)) == identity(one)


def test_the_page_names_what_is_written(tracked: Path) -> None:
    page = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:Train|Val)/\w+)`", page))
    assert named == {*in_tensorboard(tracked), "Val/TuningLoss"}


# The services, by their own packages, without a network. They are large, and not among what the tests install.


def begun_and_gone_on(name: str, run: Path, titles_file: Path) -> None:
    """A tracked run that is stopped after step 11; it goes on from step 8, and so takes three steps again."""
    recipe = tiny_recipe(titles_file, data={"tuning_titles": 20}, train={"checkpoint_every": 4, "epochs": 1})
    events: list[Event] = []

    def listen(event: Event) -> None:
        tracking(event)
        if isinstance(event, StepTaken) and event.step == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Tracking(trackers([name]), events.append) as tracking:
        train(recipe, run, on_event=listen)
    for steps in (14, None):
        with Tracking(trackers([name]), events.append) as tracking:
            resume(run, max_steps=steps, on_event=tracking)
    assert not [event.text for event in events if isinstance(event, Note) and "Tracking" in event.text]


def test_mlflow(titles_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run = tmp_path / "run"
    begun_and_gone_on("mlflow", run, titles_file)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (kept,) = client.search_runs([client.get_experiment_by_name("shortrun").experiment_id])
    assert kept.info.status == "FINISHED"
    assert kept.data.params["model.n_layer"] == "1"
    for name, series in logged(run).items():
        points = client.get_metric_history(kept.info.run_id, name)
        assert sorted((point.step, point.value) for point in points) == [
            (step, pytest.approx(value, rel=1e-12)) for step, value in series
        ]
    assert client.list_artifacts(kept.info.run_id, "samples")


def test_trackio(titles_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    run = tmp_path / "run"
    begun_and_gone_on("trackio", run, titles_file)
    (name,) = SQLiteStorage.get_runs("shortrun")
    assert name.startswith("run-")
    rows = SQLiteStorage.get_logs("shortrun", name)
    for scalar, series in logged(run).items():
        assert [(row["step"], row[scalar]) for row in rows if scalar in row] == series
    assert any("Samples" in row for row in rows)


def test_wandb(titles_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, nobody can be asked what is there already: each sitting writes the whole history, and the last is whole."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = tmp_path / "run"
    begun_and_gone_on("wandb", run, titles_file)
    *_, last = sorted((tmp_path / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_mtime_ns)
    assert identity(RunFolder.open(run)) in last.name
    assert history_of(next(last.glob("*.wandb"))) == logged(run)


def history_of(file: Path) -> Points:
    """The numbers in a .wandb file: blocks of 32 kB, as LevelDB's log has them, of wandb's own records, after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, record, found = file.read_bytes(), 7, b"", Points()
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in Record.FromString(record).history.item
            }
            record = b""
            for name, value in values.items():
                if name.startswith(("Train/", "Val/")) and name != SPEED:
                    found.setdefault(name, []).append((values["_step"], value))
    return found
