"""The playground in a real browser: what is typed is read, taken, sampled, compared and browsed, by keyboard too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import load_trained
from shortrun.view.reading import read
from tests.browser import chromium
from tests.serving import Served, serving

pytestmark = pytest.mark.slow
TEXT = "Show HN: a model"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def served(whole: Callable[[str], Path]) -> Iterator[Served]:
    with serving(whole("stream"), whole("shuffled")) as found:
        yield found


@contextmanager
def opened(browser: Any, served: Served, **settings: Any) -> Iterator[Any]:
    """A page that has its first predictions. Afterwards: it has said nothing on the console, and asked nobody else."""
    page = browser.new_page(**{"viewport": {"width": 1100, "height": 900}, **settings})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.url)
    page.locator(".guesses button").first.wait_for()
    page.locator("#documents li").first.wait_for()
    yield page
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(served.url)] == []


def guesses(page: Any, run: int = 0) -> list[str]:
    """Their names, as they are read out."""
    return [each.replace("␣", "") for each in page.locator(".guesses").nth(run).locator(".token").all_text_contents()]


def typed(page: Any, text: str) -> None:
    """Types a text and waits until it has been read."""
    page.locator("#text").fill(text)
    spans = page.locator("#difference-spans li > span")
    for _ in range(600):
        if "".join(spans.all_text_contents()) == f"{text}end":
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{text!r} has not been read: {spans.all_text_contents()}")


def test_typing_shows_what_the_model_expects(browser: Any, served: Served, whole: Callable[[str], Path]) -> None:
    reading = read(load_trained(whole("stream")), TEXT)
    with opened(browser, served) as page:
        typed(page, TEXT)
        assert guesses(page) == [
            "end" if guess.token == "<eos>" else guess.token.strip() or "space" for guess in reading.next
        ]
        told = page.locator(".reading").first.locator("header").text_content()
        assert f"{reading.nats:.2f} nats, {reading.loss:.3f} per character" in told
        levels = (
            page.locator(".tokens").first.locator("button").evaluate_all("all => all.map((each) => each.className[1])")
        )
        assert levels == [str(sum(token.surprisal >= limit for limit in (1, 3, 6, 9))) for token in reading.tokens]
        widths = (
            page.locator(".guesses").first.locator(".bar").evaluate_all("all => all.map((each) => each.clientWidth)")
        )
        assert widths == sorted(widths, reverse=True)
        assert widths[0] > 50
        page.get_by_role("status").filter(has_text="nats. Next: ").wait_for()
        hovered = page.locator(".tokens").first.locator("button").nth(1)
        hovered.hover()
        assert guesses(page) == [
            "end" if guess.token == "<eos>" else guess.token.strip() or "space" for guess in reading.tokens[1].guesses
        ]
        number = reading.tokens[1].rank
        assert f"It came as number {number:,} with" in page.locator(".place").first.text_content()


def test_a_prediction_is_taken_by_a_click(browser: Any, served: Served) -> None:
    (reading,) = served.post("/api/read", {"text": TEXT, "readers": [{"run": 0}]}).told["readings"]
    with opened(browser, served) as page:
        typed(page, TEXT)
        can = next(guess for guess in reading["tokens"][-1]["guesses"] if guess["text"] is not None)
        page.locator(".guesses").first.locator("button:not([aria-disabled='true'])").first.click()
        assert page.locator("#text").input_value() == TEXT + can["text"]


def test_keys_walk_and_take(browser: Any, served: Served) -> None:
    """From the headline up to its tokens, two to the left, down to what had been expected there, and back."""
    (reading,) = served.post("/api/read", {"text": TEXT, "readers": [{"run": 0}]}).told["readings"]
    at = len(reading["tokens"]) - 3
    before = "".join(token["text"] for token in reading["tokens"][:at])
    guesses = reading["tokens"][at]["guesses"]
    number = next(number for number, guess in enumerate(guesses) if number and guess["text"] is not None)
    focused = "document.activeElement"
    with opened(browser, served) as page:
        typed(page, TEXT)
        page.locator("#text").focus()
        page.keyboard.press("ArrowUp")
        assert page.evaluate(f"{focused}.textContent") == "end"
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(f"[...{focused}.parentElement.children].indexOf({focused})") == at
        assert page.evaluate(f"{focused}.getAttribute('aria-label')").endswith(f"rank {reading['tokens'][at]['rank']}")
        assert page.locator(".place h4").first.text_content().startswith("Instead of ")
        for _ in range(number + 1):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.locator("#text").input_value() == before + guesses[number]["text"]
        assert page.evaluate(f"{focused}.parentElement.className") == "guesses", "so that Enter can take the next one"
        page.keyboard.press("Escape")
        assert page.evaluate(f"{focused}.id") == "text"


def test_two_runs_are_compared(browser: Any, served: Served, whole: Callable[[str], Path]) -> None:
    with opened(browser, served) as page:
        typed(page, TEXT)
        first, second = (read(load_trained(whole(mode)), TEXT).nats for mode in ("stream", "shuffled"))
        told = page.locator("#difference-sum").text_content()
        assert f"is better by {abs(first - second):.2f} nats" in told
        assert told.startswith("A" if first < second else "B")
        parts = page.locator("#difference-spans li > span").all_text_contents()
        assert "".join(parts) == f"{TEXT}end"


def test_checkpoints_are_a_slider(browser: Any, served: Served) -> None:
    steps = served.get("/api/runs").told["runs"][0]["steps"]
    with opened(browser, served) as page:
        typed(page, TEXT)
        newest = page.locator(".reading .sum").first.text_content()
        page.get_by_text("This headline over training").first.click()
        rows = page.locator(".reading").first.locator("tbody tr")
        rows.nth(len(steps) - 1).locator("td").nth(1).wait_for()
        assert [int(each.replace(",", "")) for each in rows.locator("th").all_text_contents()] == steps
        losses = rows.locator("td.right").all_text_contents()
        assert losses[-1] in newest
        page.get_by_role("slider").first.focus()
        page.keyboard.press("Home")
        page.locator(".reading .sum").first.filter(has_text=losses[0]).wait_for()
        assert page.locator("output").first.text_content().startswith(f"step {steps[0]:,}")
        assert losses[0] != losses[-1]


def test_titles_are_sampled_and_browsed(browser: Any, served: Served, whole: Callable[[str], Path]) -> None:
    with opened(browser, served) as page:
        page.get_by_label("Begin with").fill("Show")
        page.get_by_label("Titles", exact=True).fill("4")
        page.get_by_label("Seed").fill("3")
        page.get_by_role("button", name="Sample").click()
        page.get_by_text("4 of 4", exact=True).wait_for()
        expected = load_trained(whole("stream")).sample(prefix="Show", count=4, temperature=1.0, seed=3)
        assert page.locator("#samples button").all_text_contents() == expected
        assert page.locator("#sample-command code").text_content().endswith("--prefix='Show' --n 4 --seed 3")
        page.locator("#samples button").first.click()
        assert page.locator("#text").input_value() == expected[0]

        documents = RunFolder.open(whole("stream")).corpus().split("validation")
        page.get_by_label("Containing").fill("rust")
        matching = sum("rust" in text.lower() for text in documents)
        page.get_by_text(f"{matching} of {len(documents)} titles contain “rust”").wait_for()
        hardest = [float(each) for each in page.locator("#documents .number").all_text_contents()]
        assert hardest == sorted(hardest, reverse=True)
        chosen = page.locator("#documents button").first
        title = chosen.text_content()
        assert "rust" in title.lower()
        chosen.click()
        assert page.locator("#text").input_value() == title
        page.get_by_label("Containing").fill("no title holds this")
        page.get_by_text(f"0 of {len(documents)} titles").wait_for()


def test_what_looks_like_markup_is_text(browser: Any, served: Served) -> None:
    text = "<img src=x onerror=alert(1)> <b>bold</b> λ 🚀"
    with opened(browser, served) as page:
        typed(page, text)
        assert page.locator("main img, main b").count() == 0


def test_a_server_that_is_gone_is_said(browser: Any, whole: Callable[[str], Path]) -> None:
    with serving(whole("stream")) as found:
        page = browser.new_page()
        page.goto(found.url)
        page.locator(".guesses button").first.wait_for()
        assert page.locator("#difference").is_hidden()
    page.locator("#text").fill("a")
    page.get_by_role("alert").filter(has_text="The server can't be reached").wait_for()
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (360, "dark")])
def test_it_is_accessible_and_fits(browser: Any, served: Served, width: int, scheme: str) -> None:
    """axe-core finds nothing, whatever its severity; nothing is wider than the screen; charts have the page's colours."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    with opened(browser, served, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        typed(page, TEXT)
        page.get_by_text("This headline over training").first.click()
        page.get_by_role("button", name="Sample").click()
        page.get_by_text("5 of 5").wait_for()
        page.locator("#curves").scroll_into_view_if_needed()
        page.locator(".chart svg").nth(1).wait_for(timeout=60_000)
        found = axe.Axe().run(page).response["violations"]
        assert [(each["id"], each["impact"], [node["target"] for node in each["nodes"]][:3]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        label = page.evaluate("document.querySelector('.chart .role-axis-label text').getAttribute('fill')")
        assert label == ("#1c2126" if scheme == "light" else "#e4e8ec")
