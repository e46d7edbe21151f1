"""The command line, as a person or a script meets it."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shortrun
from shortrun.cli.signals import SIGNALS, stopping
from shortrun.errors import LostProcess, ShortrunError, UserError, missing_extra
from shortrun.recipe_file import shipped_recipes, to_toml
from shortrun.runs.folder import RunFolder
from tests.conftest import gpt2_files, run_command, tiny_recipe


def in_a_process(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shortrun", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def succeeded(*args: str | Path, cwd: Path | None = None) -> str:
    done = run_command(*args, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*args: str | Path) -> str:
    done = run_command(*args)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    return " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> tuple[Path, dict[str, Any]]:
    """A tiny trained run, and what `train --json` printed."""
    folder = tmp_path_factory.mktemp("cli")
    file = folder / "titles.jsonl"
    file.write_text("".join(json.dumps({"headline": title}) + "\n" for title in titles), encoding="utf-8")
    recipe = folder / "tiny.toml"
    recipe.write_text(to_toml(tiny_recipe(None)))
    output = succeeded(
        "train", recipe, "--out", folder / "run", "--data.path", file, "--data.column", "headline",
        "--data.num-titles", "all", "--seed", "5", "--json",
    )  # fmt: skip
    return folder / "run", json.loads(output)


def test_train_prints_one_object_with_everything(run: tuple[Path, dict[str, Any]]) -> None:
    path, scores = run
    promised = "run parameters steps epochs seconds tokens_per_second loss official_loss coverage bits_per_byte data"
    assert set(promised.split()) <= scores.keys()
    assert (scores["run"], scores["epochs"], scores["seed"]) == (str(path), 2, 5)
    assert scores["data"]["splits"]["train"]["documents"] == 360
    assert RunFolder.open(path).recipe().train.seed == 5
    assert json.loads((path / "scores.json").read_text()) == scores


def test_eval_gives_the_runs_own_loss_and_that_of_any_file(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, scores = run
    own = json.loads(succeeded("eval", path, "--json"))
    for key in ("loss", "nats", "characters", "bytes", "targets", "documents", "bits_per_byte", "perplexity"):
        assert own[key] == pytest.approx(scores[key], rel=1e-6), key
    file = tmp_path / "other.txt"
    file.write_text("Show HN: a title\n<eos> stays text\n", encoding="utf-8")
    other = json.loads(succeeded("eval", path, "--data.path", file, "--json"))
    assert (other["documents"], other["characters"]) == (2, len("Show HN: a title") + len("<eos> stays text") + 10)
    assert "bits/byte" in succeeded("eval", path, "--data.path", file)
    assert "no split 'heldout'" in refused("eval", path, "--split", "heldout")
    assert "give one of them" in refused("eval", path, "--split", "train", "--data.path", file)


def test_eval_of_all_checkpoints_with_intervals_and_extremes(run: tuple[Path, dict[str, Any]]) -> None:
    path, scores = run
    result = json.loads(succeeded("eval", path, "--all", "--show", "3", "--split", "train", "--json"))
    kept = sorted(int(folder.name) for folder in (path / "checkpoints").iterdir())
    assert [row["step"] for row in result["checkpoints"]] == kept
    assert result["step"] == scores["steps"]
    for row in result["checkpoints"]:
        low, high = row["interval"]
        assert low < row["loss"] < high
        assert row["exp_loss"] == pytest.approx(math.exp(row["official_loss"]))
    assert result["checkpoints"][0]["loss"] > result["loss"]
    hardest, easiest = ([found["loss"] for found in result[kind]] for kind in ("hardest", "easiest"))
    assert hardest == sorted(hardest, reverse=True)
    assert easiest == sorted(easiest)
    assert len(hardest) == 3
    assert min(hardest) > result["loss"] > max(easiest)
    assert result["share_in_training"] == 1.0
    shown = succeeded("eval", path, "--show", "2")
    assert "95 % interval" in shown
    assert "hardest documents" in shown


def test_sample_repeats_and_continues_the_prefix(run: tuple[Path, dict[str, Any]]) -> None:
    path, _ = run
    options = "--prefix", "Show HN", "--n", "3", "--seed", "2", "--temperature", "0.8", "--json"
    first, second = (json.loads(succeeded("sample", path, *options))["documents"] for _ in range(2))
    assert first == second
    assert len(first) == 3
    assert all(document.startswith("Show HN") for document in first)
    assert len(succeeded("sample", path, "--n", "2").splitlines()) == 2
    assert "temperature -1.0 must be" in refused("sample", path, "--temperature", "-1")
    assert "n 0 must be at least 1" in refused("sample", path, "--n", "0")
    assert "seed -1 must be" in refused("sample", path, "--seed", "-1")
    assert json.loads(succeeded("sample", path, "--temperature", "1e-45", "--json"))["documents"]


def test_resume_of_a_finished_run_says_the_same_again(run: tuple[Path, dict[str, Any]]) -> None:
    path, scores = run
    again = json.loads(succeeded("resume", path, "--json"))
    assert again["loss"] == scores["loss"]
    assert again["steps"] == scores["steps"]


def test_training_ends_with_losses_samples_and_the_folder(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(tiny_recipe(None)))
    done = run_command("train", recipe, "--max-steps", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for expected in (
        "loss (nats per character)",
        "official loss, coverage",
        "bits per byte",
        "above it",
        "five documents",
    ):
        assert expected in done.stdout
    assert done.stdout.endswith("\nrun folder: runs/tiny-1337\ngo on by: shortrun resume runs/tiny-1337\n")
    assert "step 1/" in done.stderr
    assert "because" in done.stderr, "the device is chosen with a reason"
    succeeded("train", recipe, "--max-steps", "1", cwd=tmp_path)
    assert (tmp_path / "runs" / "tiny-1337-2").is_dir(), "a second run gets a folder of its own"


def test_recipes_are_listed_and_explained() -> None:
    listed = json.loads(succeeded("recipes", "--json"))["recipes"]
    assert listed.keys() == shipped_recipes().keys()
    shown = succeeded("recipes", "show", "baseline")
    assert "lr = 0.006" in shown
    assert "# Peak learning rate" in shown


def test_techniques_are_listed() -> None:
    listed = json.loads(succeeded("techniques", "--json"))["techniques"]
    with_card = [one["name"] for one in listed if one["path"]]
    assert with_card == [one["name"] for one in listed[: len(with_card)]], "cards come first"
    assert set(with_card) >= {"muon", "rotary", "sam", "rdrop"}
    shown = succeeded("techniques")
    assert 'optim.name = "muon"' in shown
    assert 'optim.name = "sgd"' in shown


def test_data_info_counts(tmp_path: Path) -> None:
    file = tmp_path / "titles.csv"
    file.write_text("title\n" + "".join(f"number {index % 15}\n" for index in range(20)) + "  \n", encoding="utf-8")
    info = json.loads(succeeded("data", "info", "baseline", "--data.path", file, "--data.num-titles", "20", "--json"))
    assert info["splits"]["train"]["documents"] == 18
    assert info["splits"]["train"]["duplicates_inside"] + info["duplicates_across"]["validation in train"] == 5
    assert "validation in train" in succeeded(
        "data", "info", "baseline", "--data.path", file, "--data.num-titles", "all"
    )


def test_help_is_worth_reading_and_needs_no_torch() -> None:
    assert "shortrun train quickstart" in succeeded("--help")
    text = " ".join(succeeded("train", "--help").split())
    assert "defaults, then the recipe file, then the command line" in text
    assert "--model.n-layer" in text
    for command in (
        "resume",
        "eval",
        "sample",
        "predict",
        "tokenizer",
        "show",
        "compare",
        "recipes",
        "plan",
        "techniques",
        "data",
        "cache",
    ):
        assert "usage:" in succeeded(command, "--help")
    code = "import sys, shortrun.cli.commands as c; c.run(['train', '--help'])"
    probe = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "shortrun.cli" in probe.stderr
    assert not [line for line in probe.stderr.splitlines() if line.endswith(" torch")], "help must not wait for torch"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["tran"], "did you mean 'train'?"),
        (["train", "quikstart"], "did you mean 'quickstart'?"),
        (["train", "baseline", "--model.n_head", "7", "--optim.lr", "-1"], "2 things are wrong"),
        (["train", "baseline", "--model.n_layr", "7"], "did you mean 'n_layer'?"),
        (["train", "baseline", "--max-steps", "0"], "--max-steps 0 must be at least 1"),
        (["train", "baseline", "--data.path", "/nowhere/x.txt"], "There is no file"),
        (["train", "quickstart", "--data.path", "x.txt", "--data.source", "synthetic"], "does not read data.path"),
        (["train", "quickstart", "--schedule.warmup", "1.5"], "neither a whole number of steps nor a share"),
        (["train", "quickstart", "--optim.rho", "0.1"], "optim.rho = 0.1 does nothing here: it is only read with"),
        (
            ["train", "quickstart", "--optim.rho", "0.05"],
            "optim.rho = 0.05 does nothing here",
        ),  # its default, but given
        (["train", "quickstart", "--schedule.cycles=2"], "schedule.cycles = 2 does nothing here"),
        (["train", "baseline", "--model.rope-base", "500"], "model.rope_base = 500.0 does nothing here"),
        (["plan", "baseline", "--optim.muon_lr", "0.1"], "optim.muon_lr = 0.1 does nothing here"),
        (["resume", "/nowhere"], "is not a run"),
        (["eval", "/nowhere"], "is not a run"),
        (["sample", "/nowhere"], "is not a run"),
        (["data", "inf"], "did you mean 'info'?"),
        (["recipes", "show", "basline"], "did you mean 'baseline'?"),
    ],
)
def test_mistakes_are_sentences_with_exit_code_2(args: list[str], expected: str) -> None:
    assert expected in refused(*args)


def test_a_process_ends_with_the_exit_code() -> None:
    done = in_a_process("train", "quikstart")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("shortrun: There is no shipped recipe 'quikstart'")
    assert in_a_process("--version").returncode == 0


def test_signals_are_caught_once_a_step_has_been_taken(tmp_path: Path) -> None:
    """Before, Ctrl-C ends a preparation at once; after, the first one asks to stop and the second one is as usual."""

    def handlers() -> list[Any]:
        return [signal.getsignal(number) for number in SIGNALS]

    usual, said = handlers(), list[str]()
    with stopping(tmp_path, said.append) as stop:
        assert handlers() == usual
        assert stop() == 0
        assert signal.SIGINT in SIGNALS
        assert not set(handlers()) & set(usual)
        signal.raise_signal(signal.SIGTERM)
        assert stop() == signal.SIGTERM
        assert handlers() == usual
        assert len(said) == 1
    with stopping(tmp_path, said.append) as stop:
        stop()
    assert handlers() == usual


@pytest.mark.parametrize(("error", "came"), [(LostProcess, False), (LostProcess, True), (ShortrunError, False)])
def test_a_process_that_lost_another_says_so_before_sigterm_ends_it(
    tmp_path: Path, error: type[ShortrunError], came: bool
) -> None:
    """As torchrun sends it to the processes that are left, whether or not the first one came before the error."""
    usual = signal.getsignal(signal.SIGTERM)

    def ends() -> None:
        with stopping(tmp_path, lambda _: None) as stop:
            stop()
            if came:
                signal.raise_signal(signal.SIGTERM)
            raise error("another one has ended")

    try:
        with pytest.raises(error):
            ends()
        assert (signal.getsignal(signal.SIGTERM) == signal.SIG_IGN) == (error is LostProcess)
    finally:
        signal.signal(signal.SIGTERM, usual)


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As `head` does; the pipe is closed before there is anything to read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "shortrun", "recipes", "show", "baseline"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0


def test_the_cache_is_shown_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path / "cache"))
    succeeded("data", "info", "quickstart", "--data.num-titles", "50")
    found = json.loads(succeeded("cache", "--json"))
    assert found["root"] == str(tmp_path / "cache")
    (entry,) = found["entries"]
    assert (entry["kind"], entry["about"]) == ("corpus", "synthetic")
    assert entry["bytes"] == sum(file.stat().st_size for file in Path(entry["path"]).iterdir())
    assert "synthetic" in succeeded("cache")
    assert json.loads(succeeded("cache", "--clear", "--json"))["entries"] == []
    assert not (tmp_path / "cache").exists()


def test_overrides_hold_wherever_the_recipe_stands(tmp_path: Path) -> None:
    """The baseline's own value on the command line must still override another recipe's, flags before the name or after."""
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(tiny_recipe(None)))
    orders: list[list[str | Path]] = [["--model.dropout", "0.1", recipe], [recipe, "--model.dropout", "0.1"]]
    for number, words in enumerate(orders):
        out = tmp_path / f"run{number}"
        succeeded("train", *words, "--max-steps", "1", "--out", out)
        assert RunFolder.open(out).recipe().model.dropout == 0.1


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_trains_two_steps_and_resumes(name: str, tmp_path: Path, titles_file: Path) -> None:
    small = ["--batches.batch_size", "2", "--batches.block_size", "32", "--model.d_model", "48", "--model.n_layer", "2"]
    data, titles = [] if name == "quickstart" else ["--data.path", str(titles_file)], "400"
    if name.startswith("mini-gpt"):
        titles = "60"  # each has 50,257 logits
        data += ["--data.source", "file", "--tokenizer.path", gpt2_files(), "--model.embedding_width", "12"]
    out = tmp_path / "run"
    succeeded("train", name, *small, *data, "--data.num_titles", titles, "--max-steps", "2", "--out", out)
    resumed = json.loads(succeeded("resume", out, "--max-steps", "4", "--json"))
    assert resumed["steps"] == 4
    assert resumed["loss"] > 0


def test_a_folder_that_is_no_run_is_named_with_its_neighbours(run: tuple[Path, dict[str, Any]]) -> None:
    path, _ = run
    with pytest.raises(UserError, match=f"did you mean {path}"):
        RunFolder.open(path.parent / f"{path.name}x")
    with pytest.raises(UserError, match=f"runs beside it: {path}"):
        RunFolder.open(path.parent / "quite-another")
    with pytest.raises(UserError, match=f"runs in it: {path}"):
        RunFolder.open(path.parent)


def test_a_missing_extra_has_one_sentence_in_every_room() -> None:
    """It is written once, so it can't be worded differently."""
    sources = Path(shortrun.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "pip install" in path.read_text(encoding="utf-8")] == ["errors.py"]
    assert str(missing_extra("A chart", "charts")) == "A chart needs the extra `charts`: pip install 'shortrun[charts]'"
