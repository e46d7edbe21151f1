"""Takes the pictures that README and docs show, into docs/images/: what commands print in a terminal of their own, as SVG, and
the playground in Chromium, as PNG.

    python docs/screenshots.py RUN OTHER      RUN and OTHER are two finished runs, such as a quickstart with and without a change
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).resolve().parent / "images"
WIDTH = 104
HEADLINE = "Show HN: A simple database for small teams"
READ = """(text) => [...document.querySelectorAll(".tokens")].every(
  (each) => [...each.children].map((token) => token.textContent).join("") === text + "end")"""
"""Whether all readings that are shown are of that text."""
COMMANDS = {
    "predict": 'shortrun predict {run} "Show HN: a small language"',
    "show": "shortrun show {run}",
    "compare": "shortrun compare {run} {other} --show 2",
}
"""By the picture's name; {run} and {other} are the runs, shown by their last names."""


def printed(command: list[str]) -> str:
    """What a command prints in a terminal of WIDTH columns, with its colours."""
    os.environ |= {"COLUMNS": str(WIDTH), "LINES": "200", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    content = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says so that the other side has closed
            break
        if not piece:
            break
        content += piece
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{shlex.join(command)} failed:\n{content.decode(errors='replace')}")
    return content.decode(errors="replace").replace("\r\n", "\n")


def svg(title: str, ansi: str) -> str:
    """The text as a picture of a terminal."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(ansi.rstrip()))
    return console.export_svg(title=title)


def take_playground(run: Path, other: Path) -> None:
    """playground.png: two runs, by the server. page.png: one run as a file, opened from disk, with samples and titles."""
    from playwright.sync_api import sync_playwright

    shortrun = [sys.executable, "-m", "shortrun"]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        server = subprocess.Popen(
            [*shortrun, "serve", str(run), str(other), "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            read(browser, url, 1010).screenshot(path=IMAGES / "playground.png")
        finally:
            server.terminate()
            server.wait()
        file = Path(folder) / "page.html"
        subprocess.run([*shortrun, "page", str(run), str(file)], check=True)
        page = read(browser, file.as_uri(), 1180)
        page.locator("#check").filter(has_text="Checked").wait_for()
        page.get_by_role("button", name="Sample").click()
        page.get_by_text("5 of 5").wait_for()
        page.screenshot(path=IMAGES / "page.png")
        browser.close()


def read(browser: Any, url: str, height: int) -> Any:
    """The playground there, which has read a headline."""
    page = browser.new_page(viewport={"width": 1000, "height": height}, reduced_motion="reduce")
    page.goto(url)
    page.locator("#text").fill(HEADLINE)
    page.wait_for_function(READ, arg=HEADLINE)
    page.locator("#documents li").first.wait_for()
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path)
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    for name, command in COMMANDS.items():
        words = shlex.split(command)
        places = {"run": str(options.run), "other": str(options.other)}
        called = [sys.executable, "-m", *(word.format(**places) for word in words)]
        (IMAGES / f"{name}.svg").write_text(svg(command.format(**places), printed(called)), encoding="utf-8")
        print(f"wrote {IMAGES / name}.svg")
    take_playground(options.run, options.other)


if __name__ == "__main__":
    main()
