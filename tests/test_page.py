"""`shortrun page` in a real browser: one file, opened from disk without a network, gives what Python gives."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shortrun.errors import UserError
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import Trained, load_trained
from shortrun.serve import page_model as limits
from shortrun.serve.page import CHECKED, UNREADABLE, Titles, page_content, spread, write_page
from shortrun.serve.page_html import joined, page_html
from shortrun.serve.page_model import page_model
from shortrun.serve.page_tokenizer import tokenizer_facts
from shortrun.tokens.bpe import BPE
from shortrun.view.reading import read
from tests.browser import chromium
from tests.conftest import EVERY_MODEL, gpt2_files, run_command
from tests.test_export import BPE as SMALL_BPE
from tests.test_export import LLAMA, untrained
from tests.test_two_members import TwoMembers

WHOLE = ["C++", "GPT-4", "https://", "für Zürich", "日本"]
TEXT = "Show HN: a model"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
TEXTS = (
    "", " ", "  two  spaces ", "\u2581 a mark \u2581\u2581", "e\u0301 and é", "日本語 🚀👩\u200d💻", HOSTILE, "<pad><eos><unk>",
    "next\u0085line and\u00a0none\ufeff", "don't we'll I'm", "C++C++ (C++) C GPT-40 GPT-4 https://x für Zürich 日本日", ". . . ........",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "१२३ ½ ٣", "Ünïcödé — “quotes” …", "\U0001d518\U0001d52b", "NEWLINE\tTAB",
)  # fmt: skip
"""What tokenizers could cut otherwise, and a few that outgrow a block."""
PAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "GPT-2": ({}, SMALL_BPE),
    "squared ReLU, no biases, other head, scaled embeddings, LayerScale": (
        {"mlp": "relu2", "bias": False, "tied_head": False, "scale_embeddings": True, "layer_scale": 0.3},
        {"kind": "bpe", "vocab_size": 400, "whole_pieces": WHOLE},
    ),
    "factorised embeddings that are the head": (
        {"embedding_width": 4, "scale_embeddings": True},
        {"kind": "unigram", "vocab_size": 400},
    ),
    "Llama": (LLAMA, {"kind": "unigram", "vocab_size": 400, "whole_pieces": WHOLE}),
    "every switch": (EVERY_MODEL, {"kind": "character", "vocab_size": 280}),
    "side by side, gated": (
        {"block": "parallel", "output_gate": True, "norm": "rmsnorm"},
        {"kind": "character", "vocab_size": 300, "whole_pieces": WHOLE},
    ),
    "normalised queries and keys, rotated": (
        {"qk_norm": True, "mlp": "swiglu", "positions": "rotary", "layer_scale": 0.5},
        {"kind": "bpe", "vocab_size": 259},
    ),
    "factorised embeddings, other head": (
        {"embedding_width": 5, "tied_head": False, "qk_norm": True, "n_head": 4},
        {"kind": "gpt2", "vocab_size": 50_257},
    ),
}
"""Models and tokenizers, each value of a switch and each kind at least once."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def file(whole: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run, written by the command."""
    path = tmp_path_factory.mktemp("page") / "run.html"
    done = run_command("page", whole("stream"), path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] == path.stat().st_size
    return path


@contextmanager
def opened(browser: Any, path: Path, **settings: Any) -> Iterator[Any]:
    """A page that has checked itself, without a network. It has said nothing on the console and asked nobody for anything."""
    context = browser.new_context(offline=True, **{"viewport": {"width": 1100, "height": 900}, **settings})
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.locator(".guesses button").first.wait_for()
    page.locator("#check").filter(has_text="against Python").filter(has_not_text="Checking").wait_for()
    yield page
    context.close()
    assert said == []
    assert [url for url in asked if url != path.as_uri() and not url.startswith("blob:")] == []


def typed(page: Any, text: str) -> None:
    """Types a text and waits until it has been read."""
    page.locator("#text").fill(text)
    page.wait_for_function(
        "text => [...document.querySelectorAll('.tokens button')].map((each) => each.textContent).join('') === text",
        arg=f"{text}end",
    )


def legible(text: str) -> str:
    """With one mark for bytes that are no text: sentencepiece puts one for each, and browsers for each part of a character."""
    return re.sub("\ufffd+", "\ufffd", text)


def guesses(page: Any) -> list[str]:
    return [each.replace("␣", "") for each in page.locator(".guesses .token").all_text_contents()]


def html_of(trained: Trained, texts: tuple[str, ...], change: Callable[[dict[str, Any]], None] = lambda _: None) -> str:
    """A page of a model that has no run folder, with its documents unscored."""
    documents = [
        {"number": number, "text": text, "nats": None, "characters": None, "loss": None}
        for number, text in enumerate(texts)
    ]
    facts, weights, _ = page_content(trained, Titles(documents, "", texts))
    run = {
        "name": "<b>tiny</b>",
        "step": 1,
        "steps": [1],
        "of_steps": None,
        "complete": True,
        "loss": None,
        "alone": True,
    }
    run |= {"parameters": trained.model.count_parameters(), "vocab_size": 1, "block_size": trained.model.block_size}
    change(facts)
    return page_html({**facts, "run": run, "sections": []}, weights, "<b>tiny</b>")


def in_float16(trained: Trained) -> Trained:
    """The same with the weights that a page holds, so that what is left of a difference is JavaScript's."""
    return replace(trained, model=page_model(trained).rounded)


@pytest.mark.slow
@pytest.mark.parametrize("shape", PAGES)
def test_javascript_gives_what_python_gives(browser: Any, titles: list[str], tmp_path: Path, shape: str) -> None:
    """Ids and losses of titles of many scripts, some longer than the block; and the likeliest tokens, sampled past it."""
    model, tokenizer = PAGES[shape]
    if tokenizer["kind"] == "gpt2":
        tokenizer = {**tokenizer, "path": gpt2_files()}
    trained = in_float16(untrained(titles, model, tokenizer))
    texts = (*TEXTS, *titles[:20])
    ids = [trained.tokenizer.encode(text) for text in texts]
    assert max(map(len, ids)) > trained.model.block_size
    path = tmp_path / "tiny.html"
    path.write_text(html_of(trained, texts), encoding="utf-8")
    with opened(browser, path) as page:
        told = page.locator("#check").text_content()
        assert f"of {len(texts)} titles all have the same ids" in told
        assert float(re.search(r"differ by (\S+) nats", told).group(1)) < 1e-5  # type: ignore[union-attr]
        page.get_by_label("Titles", exact=True).fill("1")
        page.get_by_label("Temperature").fill("0")
        page.get_by_label("Begin with").fill("Rust")
        page.get_by_role("button", name="Sample").click()
        page.get_by_text("1 of 1", exact=True).wait_for()
        (expected,) = trained.sample(prefix="Rust", count=1, temperature=0, seed=0)
        assert legible(page.locator("#samples button").text_content()) == legible(expected)


@pytest.mark.slow
def test_what_differs_is_said_and_what_looks_like_markup_is_text(
    browser: Any, titles: list[str], tmp_path: Path
) -> None:
    def damage(facts: dict[str, Any]) -> None:
        facts["parity"]["titles"][0]["loss"] += 0.02
        facts["parity"]["titles"][1]["ids"].append(7)

    path = tmp_path / "damaged.html"
    path.write_text(html_of(untrained(titles, {}), (HOSTILE, "Rust"), damage), encoding="utf-8")
    with opened(browser, path) as page:
        told = page.locator("#check.trouble").text_content()
        assert told.startswith("Don't trust this page: checked against Python, of 2 titles 1 have other ids")
        assert "differ by 0.02 nats" in told
        assert page.locator("#documents button").first.text_content() == HOSTILE
        assert page.locator(".reading h3").text_content() == "<b>tiny</b>"
        assert page.title().startswith("<b>tiny</b>")
        page.locator("#documents button").first.click()
        page.locator(".tokens button").nth(20).wait_for()
        assert page.locator("main img, main b, main script").count() == 0


@pytest.mark.slow
def test_the_page_is_the_playground(browser: Any, file: Path, whole: Callable[[str], Path]) -> None:
    """Reading, walking, taking, sampling and browsing, as with the server; what needs more than one file is hidden."""
    trained = load_trained(whole("stream"))
    reading = read(trained, TEXT)
    with opened(browser, file) as page:
        assert f"of {CHECKED} titles all have the same ids" in page.locator("#check.check").text_content()
        typed(page, TEXT)
        names = ["end" if guess.token == "<eos>" else guess.token.strip() or "space" for guess in reading.next]
        assert guesses(page) == names
        assert f"{reading.loss:.3f} per character" in page.locator(".reading header").text_content()
        assert page.locator(".checkpoint, #difference, [data-two]").evaluate_all(
            "all => all.every((each) => each.hidden)"
        )

        page.locator("#text").focus()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowLeft")
        assert page.locator(".place h4").text_content().startswith("Instead of ")
        pressed = page.locator(".tokens [aria-pressed='true']").get_attribute("aria-label")
        assert pressed.endswith(f"rank {reading.tokens[-2].rank}")
        page.keyboard.press("Escape")
        page.locator(".guesses button:not([aria-disabled='true'])").first.click()
        taken = page.locator("#text").input_value()
        assert taken.startswith(TEXT)
        assert len(taken) > len(TEXT)

        def sampled(seed: int) -> list[str]:
            page.get_by_label("Seed").fill(str(seed))
            page.locator("#sample-said").evaluate("element => { element.textContent = ''; }")
            page.get_by_role("button", name="Sample").click()
            page.get_by_text("5 of 5", exact=True).wait_for()
            return list(page.locator("#samples button").all_text_contents())

        first = sampled(3)
        assert sampled(4) != first
        assert sampled(3) == first
        assert page.locator("#sample-command").is_hidden()
        assert page.locator("#sample-alone").is_visible()

        documents = RunFolder.open(whole("stream")).corpus().split("validation")
        page.get_by_label("Containing").fill("rust")
        matching = sum("rust" in text.lower() for text in documents)
        page.get_by_text(f"{matching} of {len(documents)} titles contain “rust”").wait_for()
        hardest = [float(each) for each in page.locator("#documents .number").all_text_contents()]
        assert hardest == sorted(hardest, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (360, "dark")])
def test_it_is_accessible_and_draws_its_curves(browser: Any, file: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    with opened(browser, file, viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True) as page:
        typed(page, TEXT)
        page.locator("#curves").scroll_into_view_if_needed()
        page.locator(".chart svg").nth(1).wait_for(timeout=60_000)
        found = axe.Axe().run(page).response["violations"]
        assert [(each["id"], each["impact"]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_file_names_no_place_and_allows_none(file: Path, whole: Callable[[str], Path]) -> None:
    html = file.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html).group(1)  # type: ignore[union-attr]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not set(re.findall(r"[\w-]+:|'unsafe[^']*'|\*", policy)) - {"data:", "blob:"}
    outside = re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", outside)
    assert str(whole("stream").parent) not in html


@pytest.mark.parametrize("entry", ["main", "worker"])
def test_modules_are_joined_behind_those_they_import(entry: str) -> None:
    script = joined(entry)
    made = re.findall(r"^const \$(\w+) = \(", script, re.MULTILINE)
    assert made[-1] == entry
    for used in re.finditer(r" = \$(\w+);", script):
        assert script.index(f"const ${used[1]} = (") < used.start()


def test_a_page_keeps_both_ends_of_the_titles() -> None:
    order_D = np.random.default_rng(1).permutation(1000)
    found = spread(order_D, 90)
    assert len(found) == len(set(found.tolist())) == 90
    assert found[:30].tolist() == order_D[:30].tolist()
    assert found[-30:].tolist() == order_D[-30:].tolist()
    places = {number: place for place, number in enumerate(order_D.tolist())}
    assert sorted(found.tolist(), key=lambda number: places[number]) == found.tolist()
    assert spread(order_D, 1000).tolist() == order_D.tolist()


def test_what_a_page_can_not_hold_is_said(titles: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trained, none = untrained(titles, {}), Titles([], "", ())
    recipe, tokenizer = trained.recipe, trained.tokenizer
    two = TwoMembers(recipe.model, tokenizer.vocab_size, recipe.batches.block_size, tokenizer.eos)
    with pytest.raises(UserError, match=r"holds one GPT, and this model is another \(TwoMembers\)"):
        page_content(replace(trained, model=two), none)
    large = copy.deepcopy(trained.model)
    with torch.no_grad():
        large.token_emb.weight[0, 0] = 1e5  # type: ignore[union-attr, operator]
    with pytest.raises(UserError, match=r"token_emb\.weight has a weight that float16 can't hold"):
        page_content(replace(trained, model=large), none)
    coarse = copy.deepcopy(trained.model)
    with torch.no_grad():
        coarse.token_emb.weight.mul_(3000)  # type: ignore[union-attr, operator]
    with pytest.raises(UserError, match="with weights in float16 a title's loss moves by"):
        page_content(replace(trained, model=coarse), Titles([], "", tuple(titles[:5])))
    tree = json.loads(tokenizer.serialised)
    with pytest.raises(UserError, match="can't hold this BPE"):
        tokenizer_facts(BPE(json.dumps({**tree, "normalizer": {"type": "Lowercase"}})))
    monkeypatch.setattr(limits, "MOST_PARAMETERS", 1000)
    with pytest.raises(UserError, match="at most 0M"):
        page_content(trained, none)


def test_a_run_without_its_documents_is_checked_by_what_its_model_writes(
    whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole("stream"), run)
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    manifest["data"]["sha256"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    made = write_page(run, tmp_path / "page.html")
    assert made.titles == 0
    assert made.notes[-1].startswith("The page has no titles to browse: The data is not what this run was trained on")
    found = re.search(r'id="facts">([^<]+)<', made.path.read_text(encoding="utf-8"))
    assert found is not None
    facts = json.loads(gzip.decompress(base64.b64decode(found[1])))
    assert facts["titles"] == {"documents": [], "note": UNREADABLE}
    assert len(facts["parity"]["titles"]) > CHECKED / 2
    assert "no titles to browse" not in json.dumps(facts), "whose sentence may name folders of this machine"


def test_a_page_is_written_where_it_can_be(whole: Callable[[str], Path], tmp_path: Path) -> None:
    run = whole("stream")
    for place, expected in {
        tmp_path / "page.txt": "is no .html file",
        tmp_path / "none" / "page.html": "there is no folder",
        run / "page.html": "is inside the run",
    }.items():
        done = run_command("page", run, place)
        assert done.returncode == 2
        assert expected in done.stderr
        assert not place.exists()
    assert run_command("page", tmp_path, tmp_path / "page.html").returncode == 2
