"""`shortrun compare`: runs side by side, paired by documents, by evaluations, and by characters."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from shortrun.cli.columns import cut, fits, table_of
from shortrun.errors import UserError
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import load_trained
from shortrun.score.intervals import sign_flip_p
from shortrun.train.fit import train
from shortrun.view.alignment import aligned
from shortrun.view.compare import compare_runs
from shortrun.view.compare_text import Section, chart_changes, markdown, sections
from shortrun.view.curves import Curves, Evaluated, read_curves
from shortrun.view.paired_steps import paired_steps
from shortrun.view.reading import Reading, ReadToken, read
from tests.conftest import Done, recipe_of, run_command, scores_of, tiny_recipe


@pytest.fixture(scope="module")
def runs(whole: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs over the same documents: BPE in one stream of shuffled documents, and Unigram with one document a row."""
    first = whole("shuffled")
    (file,) = recipe_of(first).data.path
    second = tmp_path_factory.mktemp("compare") / "unigram"
    train(
        tiny_recipe(Path(file), batches={"mode": "documents"}, tokenizer={"kind": "unigram", "vocab_size": 320}), second
    )
    return first, second


@pytest.fixture
def copied(whole: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a finished run, to be changed."""
    return Path(shutil.copytree(whole("documents"), tmp_path / "copied"))


def compare(*args: str | Path) -> Any:
    done = run_command("compare", *args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(done: Done) -> str:
    assert (done.returncode, done.stdout) == (2, "")
    return " ".join(done.stderr.split())


def test_what_compare_promises_in_json(runs: tuple[Path, Path]) -> None:
    found = compare(*runs, "--show", "3")
    fields = {each["field"]: each["values"] for each in found["recipe_differences"]}
    assert fields == {
        "tokenizer.kind": ["bpe", "unigram"],
        "tokenizer.vocab_size": [300, 320],
        "batches.mode": ["shuffled", "documents"],
    }
    scores = [scores_of(run) for run in runs]
    for told, run, score in zip(found["runs"], runs, scores, strict=True):
        assert told["run"] == str(run)
        for key in (
            "loss",
            "official_loss",
            "coverage",
            "parameters",
            "steps",
            "epochs",
            "tokens",
            "passes",
            "flops",
            "seconds",
        ):
            assert told[key] == score[key], key
        assert told["interval"][0] < told["loss"] < told["interval"][1]
    (difference,) = found["differences"]
    assert (difference["run"], difference["reference"]) == (str(runs[1]), str(runs[0]))
    assert difference["difference"] == pytest.approx(scores[1]["loss"] - scores[0]["loss"], abs=1e-12)
    low, high = difference["interval"]
    assert low < difference["difference"] < high
    assert difference["tie"] == (low <= 0 <= high)
    assert 0 < difference["p"] <= 1
    assert found["on"] is None
    assert found["steps"][-1]["losses"] == [score["loss"] for score in scores]


def test_the_documents_are_those_that_changed_most(runs: tuple[Path, Path]) -> None:
    found = compare(*runs, "--show", "4")
    one, other = (RunFolder.open(run).nats().nats_D for run in runs)
    texts = RunFolder.open(runs[0]).corpus().split("validation")
    change_D = other - one
    (difference,) = found["differences"]
    assert (difference["better"], difference["worse"]) == (int((change_D < 0).sum()), int((change_D > 0).sum()))
    assert difference["better"] + difference["worse"] == len(texts), "else none of these would say anything"
    for kind, order in (("better", np.argsort(change_D)), ("worse", np.argsort(-change_D))):
        told = found["documents"][kind]
        wanted = [at for at in order if (change_D[at] < 0) == (kind == "better")][:4]
        assert [each["difference"] for each in told] == pytest.approx([change_D[at] for at in wanted])
        for each in told:
            assert each["document"] == texts[each["index"]]
            assert each["nats"] == [one[each["index"]], other[each["index"]]]
    assert compare(*runs, "--show", "0")["documents"] == {"better": [], "worse": []}


def test_a_text_is_compared_where_both_tokenizers_cut_it(runs: tuple[Path, Path]) -> None:
    text = "Show HN: 日本語 🚀  für <eos> C++"
    found = compare(*runs, "--on", text)["on"]
    readings = [read(load_trained(run), text) for run in runs]
    assert "".join(span["text"] for span in found["spans"]) == text
    for number, reading in enumerate(readings):
        assert sum(span["nats"][number] for span in found["spans"]) == pytest.approx(reading.nats)
    assert found["spans"][-1]["text"] == ""
    assert found["spans"][-1]["nats"] == pytest.approx([reading.tokens[-1].surprisal for reading in readings])
    assert len(found["spans"]) > 5
    assert "--on is not valid UTF-8 text" in refused(run_command("compare", *runs, "--on", "\ud800"))


@st.composite
def readings_of_one_text(draw: st.DrawFn) -> list[Reading]:
    """Readings whose tokens cut a text anywhere, a character sometimes in pieces of which only the last adds it."""
    text = draw(st.text("aé日 ", min_size=0, max_size=8))
    found = []
    for _ in range(draw(st.integers(2, 3))):
        cuts = sorted(draw(st.sets(st.integers(1, max(len(text) - 1, 1)), max_size=6)))
        pieces = [text[a:b] for a, b in itertools.pairwise([0, *[cut for cut in cuts if cut < len(text)], len(text)])]
        tokens: list[ReadToken] = []
        for piece in [piece for piece in pieces if piece]:
            before = draw(st.integers(0, 2))
            for told in [*[""] * before, piece]:
                tokens.append(ReadToken(0, "", told, draw(st.floats(0, 20)), 1, ()))
        tokens.append(ReadToken(0, "", "", draw(st.floats(0, 20)), 1, ()))
        found.append(Reading(text, 1, tuple(tokens)))
    return found


@given(readings_of_one_text())
def test_alignment_keeps_all_text_and_all_nats(readings: list[Reading]) -> None:
    spans = aligned(readings)
    assert "".join(span.text for span in spans) == readings[0].text
    assert all(span.text for span in spans[:-1])
    for number, reading in enumerate(readings):
        assert sum(span.nats[number] for span in spans) == pytest.approx(reading.nats)
    ends = [set(np.cumsum([len(token.text) for token in reading.tokens]).tolist()) for reading in readings]
    cuts = set(np.cumsum([len(span.text) for span in spans]).tolist())
    assert cuts <= set.intersection(*ends) | {0}, "no token is split"
    assert cuts >= set.intersection(*ends) - {0}, "and none is joined that need not be"


def test_what_a_person_sees(runs: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("altair", reason="the charts extra is not installed")
    done = run_command("compare", *runs, "--on", "Show HN", "--chart", tmp_path / "curves.svg", "--show", "1")
    assert done.returncode == 0, done.stderr
    loss = scores_of(runs[1])["loss"]
    for expected in (
        "recipes differ in",
        '"unigram"',
        f"{loss:.4f}",
        "95 % interval",
        "improvement",
        "(its end)",
        "better",
    ):
        assert expected in done.stdout, expected
    assert done.stdout.index("recipes differ in") < done.stdout.index("losses, nats per character")
    assert "Seeds have noise of their own, which one run each (seed 1337) can't show" in " ".join(done.stdout.split())
    drawn = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    for expected in ("unigram", f"{loss:.4f}", "steps", "tokens trained on", "seconds, evaluations included"):
        assert expected in drawn, expected


def test_three_runs_of_long_names_fit_eighty_columns(
    runs: tuple[Path, Path], whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number is whole, no line is too long, and a key says which run each letter is."""
    monkeypatch.setenv("COLUMNS", "80")
    paths = [*runs, whole("documents")]
    names = [f"{at:02}-a-change-with-a-long-name-{at}" for at in range(3)]
    moved = [shutil.copytree(path, tmp_path / name) for path, name in zip(paths, names, strict=True)]
    done = run_command("compare", *moved, "--on", "Show HN", "--show", "2")
    assert done.returncode == 0, done.stderr
    tables, told = done.stdout.split("Intervals and p are")
    assert max(cell_len(line) for line in tables.splitlines()) <= 80
    for letter, name, path in zip("ABC", names, paths, strict=True):
        assert re.search(rf"^  {letter} +{name} *$", tables, re.MULTILINE)
        assert re.search(rf"^  {letter} +{scores_of(path)['loss']:.4f} ", tables, re.MULTILINE)
    found = compare_runs(moved)
    for number, letter in ((1, "B"), (2, "C")):
        for row in found.steps:
            better = f"{row.improvement_percent[number]:+.2f} %"
            wanted = rf"{row.losses[0]:.4f} .*{row.losses[number]:.4f} +{re.escape(better)}"
            assert re.search(wanted, tables), f"{letter} beside A at step {row.steps[number]}"
        change = found.differences[number - 1]
        assert re.search(rf"^  {letter} +{re.escape(f'{change.difference:+.4f}')} ", tables, re.MULTILINE)
    assert '"better?", "worse?" or "tie?"' in " ".join(told.split())


@given(st.integers(1, 12), st.integers(48, 160))
def test_a_table_of_many_runs_becomes_several(count: int, width: int) -> None:
    names = [f"run {number}" for number in range(count + 1)]
    headings = ("epoch", "step", names[0], *(heading for name in names[1:] for heading in (name, "improvement")))
    rows = [("1.00", "100", "2.1000", *(cell for at in range(count) for cell in (f"2.{at:04}", f"+{at}.00 %")))]
    whole = Section("evaluations", headings, rows, text=0, first=3, groups=(2,) * count)
    parts = list(cut(whole, width))
    assert tuple(heading for part in parts for heading in part.headings[3:]) == headings[3:], "all of them, once"
    for part in parts:
        assert part.headings[:3] == headings[:3]
        assert fits(part, width)
        console = Console(width=width, file=io.StringIO(), record=True)
        console.print(table_of(part, width))
        drawn = console.export_text()
        assert "…" not in drawn
        assert all(cell in drawn for cell in part.rows[0])
    assert len(parts) == 1 or not fits(whole, width), "no more of them than have to be"


def test_the_output_is_as_wide_as_columns_say(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    wide = run_command("show", runs[0]).stdout
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run_command("show", runs[0]).stdout
    assert max(map(cell_len, narrow.splitlines())) <= 80 < max(map(cell_len, wide.splitlines()))
    assert "…" not in narrow


def test_a_report_can_leave_out_losses_and_costs(runs: tuple[Path, Path]) -> None:
    found = compare_runs(runs, show=0)
    titles = [[section.title for section in sections(found, scores=scores)] for scores in (True, False)]
    left_out = ["losses, nats per character of the validation documents", "what they cost"]
    assert [title for title in titles[0] if title not in left_out] == titles[1]
    assert set(left_out) <= set(titles[0])


def test_markdown_takes_no_title_for_markup(runs: tuple[Path, Path]) -> None:
    done = run_command("compare", *runs, "--on", "a|b <b>*c*</b>", "--markdown")
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    assert "surprisal in nats: a\\|b \\<b\\>\\*c\\*\\</b\\>" in done.stdout
    assert '| tokenizer.kind | "bpe" | "unigram" |' in done.stdout
    assert "give one of them" in refused(run_command("compare", *runs, "--markdown", "--json"))


def test_runs_of_other_documents_are_not_paired(runs: tuple[Path, Path], tmp_path: Path) -> None:
    train(tiny_recipe(None), tmp_path / "synthetic")
    found = compare(runs[0], tmp_path / "synthetic")
    assert found["differences"] == []
    assert found["documents"] == {"better": [], "worse": []}
    assert [run["loss"] for run in found["runs"]] == [
        scores_of(runs[0])["loss"],
        scores_of(tmp_path / "synthetic")["loss"],
    ]
    assert "have different validation documents" in " ".join(found["notes"])
    assert "data.source" in {each["field"] for each in found["recipe_differences"]}
    RunFolder(tmp_path / "synthetic").remove_result()
    found = compare(runs[0], tmp_path / "synthetic")
    assert "have different validation documents" in " ".join(found["notes"]), "also of a run without scores"
    assert found["steps"]
    assert {row["improvement_percent"][1] for row in found["steps"]} == {None}


def test_an_unfinished_run_is_compared_in_recipe_and_curve(runs: tuple[Path, Path], copied: Path) -> None:
    RunFolder(copied).remove_result()
    found = compare(runs[0], copied, "--on", "Show HN")
    assert f"The text was read by the model of copied after {load_trained(copied).step} steps." in found["notes"]
    assert found["differences"] == []
    assert (found["runs"][1]["loss"], found["runs"][1]["interval"]) == (None, None)
    assert found["steps"]
    assert f"copied has no scores.json yet: it is still training, or `shortrun resume {copied}`" in " ".join(
        found["notes"]
    )


def test_what_else_may_make_the_difference_is_said(whole: Callable[[str], Path], copied: Path) -> None:
    same = compare(whole("documents"), copied, "--show", "0")
    assert "copied has the recipe, the data and the tokenizer of documents: it is the same run again." in same["notes"]
    assert (same["recipe_differences"], same["differences"][0]["difference"], same["differences"][0]["p"]) == (
        [],
        0.0,
        1.0,
    )
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["machine"] |= {"precision": "bfloat16", "threads": 7, "torch": "2.9"}
    (copied / "manifest.json").write_text(json.dumps(manifest))
    notes = " ".join(compare(whole("documents"), copied, "--show", "0")["notes"])
    assert "different precisions (float32, bfloat16)" in notes
    assert "different versions of torch" in notes
    assert "different numbers of threads (1, 7), so that their seconds don't compare" in notes
    (copied / "nats.npz").write_bytes(b"no archive")
    (copied / "metrics.jsonl").unlink()
    found = compare(whole("documents"), copied)
    assert (found["differences"], found["steps"]) == ([], [])
    assert f"copied has no nats of its documents: {copied / 'nats.npz'} is damaged: " in " ".join(found["notes"])
    assert "copied has no evaluation in the log, so no evaluations are set side by side." in found["notes"]


def test_documents_that_can_not_be_read_any_more_are_numbers(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path / "cache"))
    moved = []
    for run in runs:
        path = Path(shutil.copytree(run, tmp_path / run.name))
        text = (path / "recipe.toml").read_text()
        (file,) = recipe_of(run).data.path
        (path / "recipe.toml").write_text(text.replace(file, str(tmp_path / "gone.txt")))
        moved.append(path)
    found = compare(*moved)
    assert found["documents"]["better"][0]["document"] is None
    assert "The documents can't be read any more" in " ".join(found["notes"])
    assert "document " in run_command("compare", *moved).stdout


def test_what_can_not_be_compared_is_a_sentence(runs: tuple[Path, Path], copied: Path) -> None:
    first, second = runs
    assert "needs two runs at least" in refused(run_command("compare", first))
    assert "needs two runs at least" in refused(run_command("compare"))
    again = refused(run_command("compare", first, second, first.parent / "." / first.name))
    assert "is given twice" in again
    assert "is not a run" in refused(run_command("compare", first, "/nowhere"))
    assert "--show -1 must be at least 0" in refused(run_command("compare", first, second, "--show", "-1"))
    assert "chart.svgg: a chart is no .svgg" in refused(
        run_command("compare", first, "/nowhere", "--chart", "chart.svgg")
    )
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    assert "is a run of format 2" in refused(run_command("compare", first, copied))


def test_three_runs_are_each_compared_with_the_first(runs: tuple[Path, Path], whole: Callable[[str], Path]) -> None:
    found = compare_runs([*runs, whole("documents")], show=1)
    assert [each.name for each in found.differences] == ["unigram", "documents"]
    assert len(found.documents["better"]) + len(found.documents["worse"]) >= 2
    assert all(len(row.losses) == 3 for row in found.steps)
    assert chart_changes(found) == {"shuffled": "", "documents": 'mode "documents"'}, (
        "three fields are too many to write"
    )
    assert markdown(found).startswith("## shuffled, unigram, documents\n")


def test_runs_of_one_name_are_told_apart_by_their_paths(whole: Callable[[str], Path], tmp_path: Path) -> None:
    other = shutil.copytree(whole("shuffled"), tmp_path / "elsewhere" / "shuffled")
    found = compare_runs([whole("shuffled"), other], show=0)
    assert [run.name for run in found.runs] == [str(whole("shuffled")), str(other)]


def curve(epochs: int, max_steps: int, losses: dict[int, float], run: Path) -> Curves:
    """A run's curves with these evaluations, by their step."""
    at = [
        Evaluated(step, step / max_steps * epochs, 1, 1.0, loss, loss, 1.0, 9.0, None) for step, loss in losses.items()
    ]
    return replace(read_curves(run), epochs=epochs, max_steps=max_steps, evaluations=tuple(at))


def test_evaluations_are_paired_by_step_or_by_epoch(whole: Callable[[str], Path]) -> None:
    path = whole("shuffled")
    one = curve(2, 200, {1: 4.0, 100: 2.0, 200: 1.0}, path)
    longer = curve(3, 300, {1: 4.0, 100: 1.9, 200: 1.1, 300: 0.9}, path)
    rows, sentences = paired_steps([one, longer], ["one", "longer"], [True, True])
    assert [row.steps for row in rows] == [(1, 1), (100, 100), (200, 200)]
    assert rows[1].improvement_percent == pytest.approx((0, 5))
    assert sentences == ["1 evaluation of a run had no partner at the same step in every other."]
    fewer = curve(2, 151, {1: 4.1, 37: 3.0, 74: 1.8, 148: 0.8, 151: 0.7}, path)
    rows, sentences = paired_steps([one, fewer], ["one", "fewer"], [True, False])
    assert [row.steps for row in rows] == [(1, 1), (100, 74), (200, 151)], "the last step, and not the one before it"
    assert [row.improvement_percent for row in rows] == [(0.0, None)] * 3, "their losses are of other documents"
    assert sentences[0].startswith("The epochs of these runs differ in their number of steps")
    rows, sentences = paired_steps([one, curve(2, 200, {}, path)], ["one", "empty"], [True, True])
    assert (rows, sentences) == (
        [],
        ["empty has no evaluation in the log, so no evaluations are set side by side."],
    )


def test_the_sign_flip_test_agrees_with_all_signs() -> None:
    differences_D = np.array([0.9, -0.2, 0.4, 0.7, -0.1, 0.3, 0.8, 0.5, 0.2, -0.3])
    signs = np.array(list(itertools.product([-1, 1], repeat=len(differences_D))))
    exact = float((np.abs(signs @ differences_D) >= abs(differences_D.sum()) - 1e-12).mean())
    assert sign_flip_p(differences_D) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p(-differences_D) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p(np.zeros(5)) == 1.0
    assert sign_flip_p(np.ones(40)) == pytest.approx(1e-4)


def test_the_sign_flip_test_is_rarely_sure_of_nothing() -> None:
    """Of 400 comparisons without a difference, about one in twenty has p of at most 0.05."""
    rng = np.random.default_rng(3)
    sure = sum(sign_flip_p(rng.standard_t(3, size=12), seed=seed) <= 0.05 for seed in range(400))
    assert 8 <= sure <= 35  # binomial: 20 ± 4.4


def test_one_run_alone_is_no_comparison(runs: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="`shortrun show RUN` looks at one"):
        compare_runs([runs[0]])
