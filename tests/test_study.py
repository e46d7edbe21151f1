"""Studies end to end: real runs, real worker processes, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortrun.recipe_file import to_toml
from shortrun.runs.folder import RunFolder, runs_in
from shortrun.study.jobs import Job
from shortrun.study.ledger import Entry, Ledger, alone
from shortrun.study.result import results
from shortrun.study.run import Change, Crew, default_workers
from shortrun.study.study_file import load_study
from shortrun.study.worker import Outcome, Progress, Worker
from shortrun.view.charts import study_chart
from shortrun.view.study import sentences
from tests.conftest import Done, assert_same_end, run_command, tiny_recipe

FILE = """
about = "A tiny ladder."
base = "base.toml"
form = "{form}"
seeds = {seeds}

[scale]
titles = 0.5
tuning = 0.1

[[change]]
name = "faster"
reason = "A larger step learns more in a short run."
optim.lr = {lr}

[[change]]
name = "more heads"
reason = "It hardly matters here."
model.n_head = 4
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., Path]:
    def made(name: str = "tiny", form: str = "ladder", seeds: str = "[1, 2]", lr: str = "1e-2", **more: Any) -> Path:
        recipe = tiny_recipe(None, data={"num_titles": 400}, **more)
        (tmp_path / "base.toml").write_text(to_toml(recipe))
        path = tmp_path / f"{name}.toml"
        path.write_text(FILE.format(form=form, seeds=seeds, lr=lr))
        return path

    return made


def study(command: str, file: Path, *args: str | Path) -> Done:
    """In a process of its own, because it handles signals."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "shortrun",
            "study",
            command,
            str(file),
            "--out",
            str(file.parent / "runs"),
            *map(str, args),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def rows(done: Done) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return found


@pytest.mark.slow
def test_a_study_runs_once_and_shares_its_runs(study_file: Callable[..., Path]) -> None:
    file = study_file()
    runs = file.parent / "runs"
    assert "tuning documents: a larger [scale] has some" in study("plan", file, "--scale.titles", "0.01").stderr
    planned = json.loads(study("plan", file, "--json").stdout)
    assert planned["runs"] == {"done": 0, "begun": 0, "missing": 6}
    assert not runs.exists() or not list(runs_in(runs)), "a plan trains nothing"
    assert any("no sign-flip test gives p below 0.5" in sentence for sentence in planned["says"])

    first = rows(study("run", file, "--workers", "2", "--json"))
    assert [row["change"] for row in first] == ["base", "faster", "more heads"]
    assert [row["reference"] for row in first] == [None, "base", "faster"]
    for row in first:
        assert row["seeds"] == 2
        assert row["loss"] == pytest.approx(sum(row["losses"].values()) / 2)
        for seed, path in zip((1, 2), row["runs"], strict=True):
            run = RunFolder.open(Path(path))
            assert run.recipe().train.seed == seed
            assert run.nats("tuning").loss == pytest.approx(row["losses"][str(seed)])
    faster = first[1]
    assert faster["difference"] == pytest.approx(faster["loss"] - first[0]["loss"])
    assert faster["interval"][0] < faster["difference"] < faster["interval"][1]
    assert faster["p"] == 0.5

    stamps = {path: path.stat().st_mtime_ns for path in runs.rglob("scores.json")}
    again = study("run", file, "--json")
    assert rows(again) == first
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("scores.json")} == stamps

    other = study_file("other", form="ablation", seeds="[2, 3]")
    shared = json.loads(study("plan", other, "--json").stdout)
    assert shared["runs"] == {"done": 2, "begun": 0, "missing": 4}, "base and faster with seed 2 are there"
    assert shared["seconds_from"].startswith("scaled by the 2 runs done")


@pytest.mark.slow
def test_what_show_shows(study_file: Callable[..., Path]) -> None:
    file = study_file(seeds="[1]")
    assert study("run", file).returncode == 0
    table = study("show", file)
    assert table.returncode == 0
    assert "A question mark stands where one seed alone was compared" in table.stdout
    assert "faster" in table.stdout
    assert "tuning documents" in table.stdout
    page = study("show", file, "--markdown").stdout
    assert "- **faster**: A larger step learns more in a short run." in page
    assert "official" not in table.stdout + page, "it is of the validation documents"
    assert page.count("|\n") == 5, "headings, a rule and three rows"
    chart = file.parent / "chart.svg"
    assert study("show", file, "--chart", chart).returncode == 0
    drawn = chart.read_text(encoding="utf-8")
    assert drawn.startswith("<svg")
    assert "more heads" in drawn
    assert not (file.parent / "runs" / "tiny" / "final.json").exists(), "nobody has looked at the validation documents"
    final = json.loads(study("show", file, "--final", "--json").stdout)
    assert final["split"] == "validation"
    noted = json.loads((file.parent / "runs" / "tiny" / "final.json").read_text())
    assert noted["when"] == final["final"]
    for row in final["rows"]:
        (path,) = row["runs"]
        assert row["loss"] == pytest.approx(RunFolder.open(Path(path)).scores()["loss"])  # type: ignore[index]
    assert json.loads(study("show", file, "--json").stdout)["final"] == noted["when"]
    page = study("show", file, "--final", "--markdown").stdout
    for row in final["rows"]:
        assert f"{row['official_loss']:.4f} ({row['coverage']:.1%})" in page


@pytest.mark.slow
def test_a_failed_run_is_a_row_with_its_reason(study_file: Callable[..., Path]) -> None:
    file = study_file(form="ablation", seeds="[1]", lr="1e30")
    base, faster, heads = rows(study("run", file, "--json"))
    assert faster["loss"] is None
    assert "no longer a number" in faster["failures"]["1"]
    assert base["seeds"] == heads["seeds"] == 1
    assert "no longer a number" in study("show", file).stdout


@pytest.mark.slow
def test_rows_with_other_texts_have_no_difference(study_file: Callable[..., Path], titles_file: Path) -> None:
    file = study_file(form="ablation", seeds="[1]")
    (file.parent / "base.toml").write_text(to_toml(tiny_recipe(titles_file)))
    head, *_ = file.read_text().partition("[[change]]")
    change = 'name = "lower case"\nreason = "Fewer characters to tell apart."\ndata.normalise = ["lowercase"]\n'
    file.write_text(f"{head}[[change]]\n{change}")
    _, lower = rows(study("run", file, "--json"))
    assert lower["loss"]
    assert lower["difference"] is None
    assert "not the same texts" in lower["note"]
    assert "lower case has no difference from base" in study("show", file).stdout


def test_rows_whose_machines_chose_other_precisions_are_marked(study_file: Callable[..., Path]) -> None:
    file = study_file(form="ablation", seeds="[1]")
    root = file.parent / "runs"
    for entry in Ledger(load_study(str(file)), root).to_do():
        entry.job.do()
    ledger = Ledger(load_study(str(file)), root)
    assert [row.note for row in results(ledger).rows] == [None, None, None]
    manifest_file = RunFolder(ledger.of_row(1)[0].job.path).manifest_file
    manifest = json.loads(manifest_file.read_text())
    assert manifest["machine"]["precision"] == "float32"
    manifest["machine"]["precision"] = "bfloat16"
    manifest_file.write_text(json.dumps(manifest))
    found = results(ledger)
    base, faster, heads = found.rows
    assert base.note is None
    assert heads.note is None
    assert faster.difference is not None
    assert "with seed 1 it was trained in bfloat16 and the other in float32" in (faster.note or "")
    assert any(sentence.startswith("faster beside base: with seed 1") for sentence in sentences(found))
    values = study_chart(found).to_dict()["hconcat"][0]["layer"][1]["data"]["values"]
    assert {row["verdict"][-1:] for row in values[1:]} == {"?"}
    assert {row["colour"] for row in values} == {""}, "one seed shows nothing that deserves a colour"


def test_a_step_with_more_seeds_is_compared_over_all_pairs(study_file: Callable[..., Path]) -> None:
    file = study_file(form="ladder", seeds="[1]")
    text = file.read_text()
    at = text.index("reason")
    file.write_text(f"{text[:at]}more_seeds = [2]\n{text[at:]}")
    ledger = Ledger(load_study(str(file)), file.parent / "runs")
    assert [(entry.row, entry.seed) for entry in ledger.to_do()] == [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2)]
    for entry in ledger.to_do():
        entry.job.do()
    found = results(Ledger(load_study(str(file)), file.parent / "runs"))
    assert [(row.seeds, row.asked, row.pairs) for row in found.rows] == [(2, 2, 0), (2, 2, 2), (1, 1, 1)]
    assert any("more seeds: 2 in all, where p can be as low as 0.5" in sentence for sentence in sentences(found))


def long_study(study_file: Callable[..., Path]) -> tuple[Path, Path]:
    """A study of one run of several seconds, and the run's folder."""
    file = study_file(seeds="[1]", train={"epochs": 16, "evals_per_epoch": 1, "checkpoint_every": 40})
    text = file.read_text()
    file.write_text(text[: text.index('[[change]]\nname = "more')].replace("optim.lr = 1e-2", "model.n_head = 4"))
    return file, file.parent / "runs" / "tiny" / "00-base-1"


def begin(file: Path, *, until: Path) -> subprocess.Popen[str]:
    """A study in a process group of its own, as soon as a run has two checkpoints."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "shortrun",
            "study",
            "run",
            str(file),
            "--out",
            str(file.parent / "runs"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(until.glob("checkpoints/[0-9]*/checkpoint.json"))) < 2:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [[signal.SIGKILL], [signal.SIGINT], [signal.SIGINT, signal.SIGINT]])
def test_a_study_that_is_stopped_goes_on(study_file: Callable[..., Path], numbers: list[int], tmp_path: Path) -> None:
    file, run = long_study(study_file)
    process = begin(file, until=run)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    if signal.SIGINT in numbers:
        assert process.returncode == 130
        assert "the same command goes on" in errors
    assert not RunFolder(run).scores_file.exists()
    (base, heads) = rows(study("run", file, "--json"))
    assert [base["seeds"], heads["seeds"]] == [1, 1]
    whole = Job(load_study(str(file)).rows[0].recipes[1], tmp_path / "whole")
    threads = whole.recipe.train.model_copy(update={"threads": Crew(default_workers()).threads})
    Job(whole.recipe.model_copy(update={"train": threads}), whole.path).do()
    assert_same_end(run, whole.path)


def test_a_worker_that_is_killed_is_begun_again(study_file: Callable[..., Path], tmp_path: Path) -> None:
    file, _ = long_study(study_file)
    ledger = Ledger(load_study(str(file)), tmp_path / "runs")
    (entry, *_) = ledger.to_do()
    crew, told = Crew(2), list[Change]()

    def on_change(_: Entry, what: Change) -> None:
        told.append(what)
        if isinstance(what, Progress) and what.step > 30 and not any(isinstance(each, str) for each in told):
            (pid,) = [worker.pid for worker in crew.workers if worker.pid]
            os.kill(pid, signal.SIGKILL)

    crew.do([entry], on_change)
    assert isinstance(told[-1], Outcome)
    assert told[-1].scores
    assert "its process died (SIGKILL); it is begun once more" in told
    assert results(Ledger(ledger.study, tmp_path / "runs")).rows[0].seeds == 1


def test_what_goes_wrong_in_a_crew_is_not_lost(study_file: Callable[..., Path], tmp_path: Path) -> None:
    ledger = Ledger(load_study(str(study_file(seeds="[1]"))), tmp_path / "runs")

    def full(_: Entry, what: Change) -> None:
        if isinstance(what, Outcome):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        Crew(2).do(ledger.to_do(), full)


def test_a_study_is_run_by_one_command_at_a_time(study_file: Callable[..., Path]) -> None:
    file = study_file()
    with alone(file.parent / "runs" / "tiny"):
        refused = run_command("study", "run", file, "--out", file.parent / "runs")
    assert refused.returncode == 2
    assert "Another `shortrun study run` is at work in" in refused.stderr


def test_warnings_reach_whoever_runs_a_study(study_file: Callable[..., Path], tmp_path: Path) -> None:
    ledger = Ledger(load_study(str(study_file(seeds="[1]"))), tmp_path / "runs")
    told: list[Change] = []
    Crew(1).do(ledger.to_do()[:1], lambda _, what: told.append(what))
    warnings = [each.warning for each in told if isinstance(each, Progress) and each.warning]
    assert any("will hardly learn anything" in warning for warning in warnings)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="a process' environment is read in /proc")
@pytest.mark.parametrize(("decided", "expected"), [(None, b"GOMP_SPINCOUNT=10000"), ("7", b"GOMP_SPINCOUNT=7")])
def test_a_worker_says_how_its_threads_wait(
    decided: str | None, expected: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if decided:
        monkeypatch.setenv("GOMP_SPINCOUNT", decided)
    worker = Worker(1)
    found = []
    worker.do(
        Job(tiny_recipe(None), tmp_path / "run"),
        lambda _: found.append(Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")),
    )
    worker.close()
    assert expected in found[0]


def test_a_worker_stops_when_whoever_gave_the_job_is_gone(tmp_path: Path) -> None:
    worker, job = Worker(1), Job(tiny_recipe(None, train={"epochs": 100, "evals_per_epoch": 1}), tmp_path / "run")
    seen: list[Progress] = []

    def tell(progress: Progress) -> None:
        seen.append(progress)
        if progress.step:
            worker.stop()

    outcome = worker.do(job, tell)
    worker.close()
    assert outcome.stopped
    assert "resume" in outcome.reason
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_commands_say_what_is_wrong(study_file: Callable[..., Path]) -> None:
    file = study_file()
    assert "did you mean 'show'?" in run_command("study", "shoe", file).stderr
    assert "did you mean 'tiny'?" not in run_command("study", "plan", "vocabulery").stderr
    wrong = run_command("study", "plan", file, "--scale.tittles", "0.1", "--optm.lr", "3")
    assert wrong.returncode == 2
    assert "did you mean 'titles'?" in wrong.stderr
    assert "did you mean 'optim'?" in wrong.stderr
    chart = run_command("study", "show", file, "--out", file.parent / "runs", "--chart", "x.svgg")
    assert chart.returncode == 2
