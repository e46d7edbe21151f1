"""Reports: every form, from real runs; text that looks like markup; what a browser makes of the page."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

from shortrun.cli import options as options_of
from shortrun.cli.commands import run
from shortrun.cli.flags import taken_from
from shortrun.disk import file_sha256
from shortrun.errors import UserError
from shortrun.report.blocks import Code, Figure, Items, Paragraph, Report, RunCard, Section, Table
from shortrun.report.content import report_of
from shortrun.report.html import MOST_BYTES, bundle, html, write_html
from shortrun.report.myst import escaped, write_myst
from shortrun.report.pdf import document, drawings, write_pdf
from shortrun.report.plain import shown, spec
from shortrun.report.study_section import effect, study_summary
from shortrun.report.subjects import Subjects
from shortrun.study.scale import Scale
from shortrun.study.study_file import load_study
from shortrun.study.table import ResultRow, StudyResult
from shortrun.train.fit import train
from shortrun.view.reading import Guess
from shortrun.view.reading_charts import next_chart
from shortrun.view.sweep import SearchCost, SweepReport, TrialRow
from tests.conftest import ROOT, scores_of, tiny_recipe

HOSTILE = [
    "<script>alert(1)</script>", "</script><b>", "a | b", "# no heading", "- no item", "1. no number", "`code`", "``` fence", "$x$",
    "*bold* _it_", "[a](javascript:alert(1))", "{{ 7 * 7 }}", "#panic()", "\\", '"', "[#strong[x]]", "]]>", "&amp;", "@ref", "<eos>",
    ":::{note}", "(target)=", "% comment", "+++", "=====", "\u202eright to left", "\x00\x1b[31m", "日本語 λ 🚀",
]  # fmt: skip


def row(change: str, loss: float | None, place: Path, **more: Any) -> ResultRow:
    values: dict[str, Any] = {
        "change": change, "reason": "", "reference": None, "loss": loss, "sd": 0.001, "losses": {1: loss or 0.0}, "seeds": 1, "asked": 1,
        "difference": None, "pairs": 0, "interval": None, "p": None, "tie": None, "official_loss": loss, "coverage": 0.9,
        "parameters": 1000, "tokens": 1000, "passes": 10, "flops": 1e9, "seconds": 60.0, "runs": [str(place)], "failures": {},
    }  # fmt: skip
    return ResultRow(**(values | more))


@pytest.fixture(scope="module")
def study(whole: Callable[[str], Path]) -> StudyResult:
    change = row(
        "no stream", 2.0, whole("shuffled"), reason="Because <b>.", reference="base", difference=-0.1, pairs=3,
        interval=(-0.2, -0.05), p=0.25, tie=False,
    )  # fmt: skip
    rows = [row("base", 2.1, whole("stream")), change]
    return StudyResult("mine", "A study.", "ladder", "own", "whole", "validation", [1], 1.0, 0.01, "2026-01-01", rows)


@pytest.fixture(scope="module")
def made(study: StudyResult) -> Report:
    return report_of(Subjects(studies=(study,), final=True), ["report", "mine", "--final"])


def hostile(text: str) -> Report:
    """A report whose every text is the same."""
    blocks = (
        Paragraph(text), Items(((text, text),)), Table((text, "b"), ((text, "1.5"),), text), Code(text),
        RunCard("a run", ((text, text),), text), Figure("a-figure", text, svg="<svg xmlns='http://www.w3.org/2000/svg' width=\"9\" height=\"9\"/>"),
    )  # fmt: skip
    return Report(text, text, "2026-01-01", (Section("One " + text, blocks),))


def typst_of(report: Report) -> str:
    return document(report, drawings(report))


class Elements(HTMLParser):
    """The names of a page's elements, and its text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs), attrs

    def handle_data(self, data: str) -> None:
        if self.names[-1:] not in (["script"], ["style"]):
            self.text += data


def test_a_report_on_a_study_tells_effects_and_reasons(made: Report) -> None:
    titles = [section.title for section in made.sections]
    assert titles[:3] == ["Study: mine", "Curves", "Results"]
    assert {"Predictions", "Token frequencies", "Tokenizer", "Samples", "How to repeat it"} <= set(titles)
    page = Elements(html(made))
    assert (
        "Because <b>. Loss 2.0000 ± 0.0010 over 1 seed; -0.1000 (95 % interval -0.2000 to -0.0500), better than base."
        in page.text
    )
    assert len({figure.name for figure in made.figures}) == len(made.figures) >= 8
    assert json.loads(json.dumps(made.as_dict()))["data"]["studies"][0]["rows"][1]["difference"] == -0.1


def test_a_study_that_is_not_final_shows_nothing_of_the_validation_documents(study: StudyResult) -> None:
    made = report_of(Subjects(studies=(replace(study, split="tuning", final=None),)), ["report", "mine"])
    told = html(made) + json.dumps(made.as_dict())
    for place in (row.runs[0] for row in study.rows):
        for key in ("loss", "official_loss", "bits_per_byte"):
            assert f"{scores_of(Path(place))[key]:.4f}" not in told
    assert "Nothing here is of the validation documents" in told


def test_a_second_report_leaves_nothing_of_the_first_and_touches_no_other_folder(made: Report, tmp_path: Path) -> None:
    write_myst(made, tmp_path / "site")
    (tmp_path / "site" / "mine.txt").write_text("a person's own")
    short = replace(made, sections=made.sections[:1])
    write_myst(short, tmp_path / "site")
    assert {path.name for path in (tmp_path / "site").glob("*.md")} == {"index.md", "study-mine.md"}
    assert (tmp_path / "site" / "mine.txt").exists()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "conf.py").write_text("a person's own")
    with pytest.raises(UserError, match="holds no report"):
        write_myst(short, tmp_path / "own")


def test_no_two_figures_or_anchors_have_one_name(study: StudyResult) -> None:
    twice = report_of(Subjects(studies=(study, replace(study, study="mine!"))), ["report", "mine", "mine!"])
    assert len({figure.name for figure in twice.figures}) == len(twice.figures)
    assert len(set(twice.section_names)) == len(twice.section_names)


def test_one_seed_is_never_said_to_help(study: StudyResult) -> None:
    base, change = study.rows
    alone = replace(study, rows=[base, replace(change, pairs=1)])
    assert "1 of 1 change helped beyond their noise." in study_summary(study)
    assert "helped" not in study_summary(alone)
    assert "which says nothing about other seeds" in study_summary(alone)
    assert "with this seed better than base, which says nothing about other seeds." in effect(alone.rows[1])


def test_the_first_row_has_no_reason_and_every_seed_is_repeated(
    study: StudyResult, whole: Callable[[str], Path]
) -> None:
    base = replace(study.rows[0], reason=study.about, runs=[str(whole("stream")), "runs/second"])
    made = report_of(Subjects(studies=(replace(study, rows=[base]),), final=True), ["report", "mine", "--final"])
    (items,) = (block for block in made.sections[0].blocks if isinstance(block, Items))
    assert study.about not in items.items[0][1]
    (card,) = (block for section in made.sections for block in section.blocks if isinstance(block, RunCard))
    assert "shortrun train runs/second/recipe.toml --out NEW" in card.command
    assert "shortrun study run mine" in [
        block.text for section in made.sections for block in section.blocks if isinstance(block, Code)
    ]


def test_a_damaged_run_is_told_as_far_as_it_can_be_read(
    stopped: Path, titles_file: Path, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    path = Path(shutil.copytree(whole("shuffled"), tmp_path / "run"))
    newest = max((path / "checkpoints").iterdir())
    (newest / "model.safetensors").write_bytes(b"")
    log = path / "metrics.jsonl"
    broken = json.loads(log.read_text().splitlines()[-1])
    assert broken["event"] == "validation_step"
    log.write_text(log.read_text() + json.dumps({**broken, "document_loss": math.nan}) + "\n")
    titles_file.unlink()
    made = report_of(Subjects(runs=(stopped, path)), ["report", "stopped", "run"])
    page = Elements(html(made)).text
    json.dumps(made.as_dict(), allow_nan=False)
    for sentence in (
        "stopped is not finished: it has taken 3 of", "The documents of stopped can't be read any more",
        "left out, because no event can be read in it: line", "The model of run is that of step", newest.name,
    ):  # fmt: skip
        assert sentence in page
    assert {"Predictions", "Samples", "How to repeat it"} <= {section.title for section in made.sections}


def test_a_run_of_other_documents_is_not_judged_on_them(whole: Callable[[str], Path], tmp_path: Path) -> None:
    train(tiny_recipe(None), tmp_path / "synthetic", max_steps=1)
    made = report_of(Subjects(runs=(tmp_path / "synthetic", whole("stream"))), ["report"])
    assert (
        "synthetic is not looked into here, because its validation documents are not those of stream."
        in Elements(html(made)).text
    )
    (frequencies,) = (figure for figure in made.figures if figure.name == "frequencies")
    assert frequencies.runs == ("stream",)


def test_each_reader_has_its_own_green_bar() -> None:
    likeliest = [Guess(1, "a", 0.5), Guess(2, "b", 0.3)]
    chart = next_chart({"one": likeliest, "other": likeliest}, {"one": Guess(1, "a", 0.5), "other": Guess(9, "c", 0.1)})
    came = [[(each["token"], each["came"]) for each in panel["data"]["values"]] for panel in spec(chart)["hconcat"]]
    assert came == [[("a", True), ("b", False)], [("a", False), ("b", False), ("c", True)]]


def test_a_page_never_grows_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    import altair as alt

    points = [{"x": at % 2, "y": at % 3, "told": "a" * 400} for at in range(1_000)]
    data: Any = alt.InlineData
    chart = spec(alt.Chart(data(values=points)).mark_point().encode(x="x:Q", y="y:Q"))
    small = spec(alt.Chart(data(values=points[:3])).mark_point().encode(x="x:Q", y="y:Q"))
    blocks = (Figure("large", "many points", chart), Figure("small", "three points", small))
    report = Report("Large", "", "today", (Section("One", blocks),))
    limit = len(bundle().encode()) + 250_000
    monkeypatch.setattr("shortrun.report.html.MOST_BYTES", limit)
    page = html(report)
    assert len(page.encode()) <= limit
    assert "data:image/png;base64," in page
    assert 'data-chart="small"' in page
    assert 'data-chart="large"' not in page
    with pytest.raises(UserError, match="too much for a phone"):
        html(replace(report, summary="a" * limit))


def test_a_command_with_spaces_is_quoted(study: StudyResult) -> None:
    made = report_of(Subjects(studies=(study,)), ["report", "mine", "--out", "my runs", "--html", "a page.html"])
    assert "shortrun report mine --out 'my runs'" in Elements(html(made)).text


def test_all_forms_of_a_report(made: Report, tmp_path: Path) -> None:
    write_html(made, tmp_path / "page.html")
    write_pdf(made, tmp_path / "pages.pdf")
    write_myst(made, tmp_path / "site")
    assert 500_000 < (tmp_path / "page.html").stat().st_size < MOST_BYTES
    assert (tmp_path / "pages.pdf").read_bytes().startswith(b"%PDF-")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(tmp_path / "site"), str(tmp_path / "built")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    study = (tmp_path / "built" / "study-mine.html").read_text(encoding="utf-8")
    assert 'href="how-to-repeat-it.html#site-run-base"' in study
    assert "shortrun report mine" in Elements(study).text
    pages = (path.read_text(encoding="utf-8") for path in (tmp_path / "built").glob("*.html"))
    assert sum(page.count("<figure") for page in pages) == len(made.figures)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_never_markup(text: str) -> None:
    page = Elements(html(hostile(text)))
    harmless = Elements(html(hostile("text")))
    assert page.names == harmless.names
    assert page.text.count(shown(text)) >= 8
    assert typst_of(hostile(text)).count("\n\n") == typst_of(hostile("text")).count("\n\n")


def test_typst_and_sphinx_find_no_markup_in_text(tmp_path: Path) -> None:
    report = hostile("text")
    sections = tuple(
        Section(f"Part {number}", hostile(text).sections[0].blocks[:4]) for number, text in enumerate(HOSTILE)
    )
    report = Report("All", "of them", "today", sections)
    write_pdf(report, tmp_path / "pages.pdf")
    write_myst(report, tmp_path / "site")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "text", str(tmp_path / "site"), str(tmp_path / "built")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    for number, text in enumerate(HOSTILE):
        told = (tmp_path / "built" / f"part-{number}.txt").read_text(encoding="utf-8").replace("\\", "")
        if text.isprintable():
            assert text.replace("\\", "").replace("*", "") in told.replace("*", ""), text


@given(st.text(min_size=1, max_size=60))
@settings(max_examples=40, deadline=None)
def test_any_text_keeps_the_page_whole(text: str) -> None:
    assert Elements(html(hostile(text))).names == Elements(html(hostile("text"))).names


def test_a_page_asks_nothing_of_the_network(made: Report) -> None:
    page = html(made)
    head = page[: page.index("</head>")]
    assert "default-src 'none'" in head
    assert not any(f'{attribute}="http' in page for attribute in ("src", "href"))


def test_a_sweep_is_a_section(whole: Callable[[str], Path]) -> None:
    trials = tuple(
        TrialRow(n, "COMPLETE" if n else "PRUNED", 2.0 + n, 3, {"optim.lr": 10.0**-n, "batches.block_size": 64}, str(whole("stream")), 9, 1.0, None)
        for n in range(4)
    )  # fmt: skip
    sweep = SweepReport(
        "hunt", "A hunt.", "own", "whole", 4, "tpe", 1, "median", "5.0",
        {"optim.lr": "1e-4 to 1", "batches.block_size": "64"}, trials[1:] + trials[:1], SearchCost(3, 1, 0, 36, 0.01),
    )  # fmt: skip
    made = report_of(Subjects(sweeps=(sweep,)), ["report", "hunt"])
    assert made.sections[0].title == "Sweep: hunt"
    page = Elements(html(made))
    assert "Search cost: 3 trials (1 pruned), 36 forward-backward passes" in page.text
    chart = made.figures[0].chart
    assert chart
    assert len(chart["vconcat"][1]["hconcat"]) == 2


def test_what_is_not_measured_is_said() -> None:
    missing = row("x", None, Path(), sd=None, seeds=0)
    assert effect(missing) == "Not run yet."
    assert "no gradient" in effect(row("x", None, Path(), failures={1: "no gradient"}))
    one = row("x", 1.0, Path(), sd=None, reference="y", difference=0.1, pairs=1, interval=(-0.1, 0.3), tie=True)
    assert (
        effect(one) == "Loss 1.0000; +0.1000 (95 % interval -0.1000 to +0.3000, one seed), with this seed a tie with y."
    )


def test_the_command_writes_what_was_asked_for(
    whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = str(whole("stream")), str(whole("shuffled"))
    assert run(["report", one, other, "--json", "all.json"]) == 0
    assert capsys.readouterr().out == "wrote all.json\n"
    found = json.loads(Path("all.json").read_text(encoding="utf-8"))
    assert set(found["data"]["runs"]) == {"stream", "shuffled"}
    assert any(section["title"] == "stream and shuffled" for section in found["sections"])
    assert run(["report", one]) == 0
    assert capsys.readouterr().out == "wrote stream.html\n"


def test_mistakes_are_sentences(
    whole: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "warmup-cosin"]) == 2
    assert "did you mean 'warmup-cosine'" in capsys.readouterr().err
    assert run(["report", str(whole("stream")), "--html", str(tmp_path / "no" / "page.html")]) == 2
    assert "can't be written: there is no folder" in capsys.readouterr().err
    assert run(["report", str(whole("stream").parent)]) == 2
    told = capsys.readouterr().err
    assert "runs in it: " in told
    assert str(whole("stream")) in told
    assert run(["report", f"{whole('stream')}s"]) == 2
    assert f"is no run folder, study or sweep: did you mean {whole('stream')}?" in capsys.readouterr().err
    assert run(["report", str(tmp_path / "ladders")]) == 2
    assert str(whole("stream").parent) not in capsys.readouterr().err, "a name that is far from it"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.md").write_text("keep me", encoding="utf-8")
    with pytest.raises(UserError, match="holds no report"):
        write_myst(hostile("text"), tmp_path / "mine")


def test_a_missing_extra_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for library, write in (("typst", write_pdf), ("jinja2", write_html)):
        with monkeypatch.context() as gone:
            gone.setitem(sys.modules, library, None)
            with pytest.raises(UserError, match=r"pip install 'shortrun\[report\]'"):
                write(hostile("text"), tmp_path / "report")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tests.browser import chromium

    with chromium() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (360, "dark")])
def test_a_browser_draws_the_page_from_disk(
    made: Report, tmp_path: Path, browser: Any, width: int, scheme: str
) -> None:
    write_html(made, tmp_path / "page.html")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "page.html").as_uri())
    charts = sum(figure.chart is not None for figure in made.figures)
    page.wait_for_function("count => document.querySelectorAll('.chart svg').length === count", arg=charts)
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 28)")
    label = page.evaluate("document.querySelector('.chart .role-axis-label text').getAttribute('fill')")
    assert label == ("#1c2126" if scheme == "light" else "#e4e8ec")
    page.close()


def test_the_documentation_s_report_is_what_its_command_made() -> None:
    folder = ROOT / "docs" / "reports" / "adamw-then-rope"
    made = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"report.json"}
    assert there == set(made["files"])
    for name, digest in made["files"].items():
        assert file_sha256(folder / name) == digest, f"{name} was changed by hand: the command in index.md makes it"
    assert sum((folder / name).stat().st_size for name in there) < 1_500_000
    assert made["made by"] in (folder / "index.md").read_text(encoding="utf-8")
    rest, overrides, mistakes = taken_from(shlex.split(made["made by"])[2:], {"scale": Scale})
    options = tyro.cli(options_of.Report, args=rest)
    assert options.myst == folder.relative_to(ROOT)
    page = (folder / f"study-{options.subjects[0]}.md").read_text(encoding="utf-8")
    for row in load_study(options.subjects[0], overrides, mistakes).rows:
        assert f"**{escaped(row.change)}**: " in page
        if row.reference is not None:
            assert f"**{escaped(row.change)}**: {escaped(row.reason)} Loss " in page, "the study has changed since"
