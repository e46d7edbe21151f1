"""Times the page of `shortrun page` in Chromium: opening, its check, and readings while titles are typed letter by letter.

python benchmarks/page.py FILE.html      prints one JSON object; load is the machine's load average at the end
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

TITLES = 12
"""Of those that the page lists first."""
TYPE = """async (title) => {
  const text = document.getElementById("text"), times = [];
  const tokens = document.querySelector(".tokens");
  for (let end = 1; end <= title.length; end++) {
    const begun = performance.now();
    const shown = new Promise((resolve) => {
      const observer = new MutationObserver(() => {
        if ([...tokens.children].map((each) => each.textContent).join("") !== title.slice(0, end) + "end") return;
        observer.disconnect();
        resolve();
      });
      observer.observe(tokens, { childList: true, subtree: true, characterData: true });
    });
    text.value = title.slice(0, end);
    text.dispatchEvent(new Event("input"));
    await Promise.race([shown, new Promise((resolve) => setTimeout(resolve, 5000))]);
    times.push(performance.now() - begun);
  }
  return times;
}"""
"""Milliseconds from each letter to the tokens and bars that it changes."""


def measured(page: Page, file: Path) -> dict[str, Any]:
    begun = time.perf_counter()
    page.goto(file.resolve().as_uri())
    page.locator(".guesses button").first.wait_for(timeout=120_000)
    first = time.perf_counter() - begun
    page.locator("#check").filter(has_text="Checked").wait_for(timeout=120_000)
    checked = time.perf_counter() - begun
    titles = [title for title in page.locator("#documents button").all_text_contents() if title.isascii()][:TITLES]
    times = sorted(each for title in titles for each in page.evaluate(TYPE, title))
    return {
        "file": file.name,
        "megabytes": round(file.stat().st_size / 1e6, 1),
        "first_bars_s": round(first, 2),
        "checked_s": round(checked, 2),
        "letters": len(times),
        "median_ms": round(statistics.median(times), 1),
        "within_95_ms": round(times[int(len(times) * 0.95)], 1),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        print(json.dumps(measured(browser.new_page(), Path(sys.argv[1]))))
        browser.close()


if __name__ == "__main__":
    main()
