"""Takes the pictures of the terminal that README and docs show: runs commands in a terminal of their own, writes what they
print as SVG into docs/images/.

    python docs/screenshots.py RUN OTHER      RUN and OTHER are two finished runs, such as a quickstart with and without a change
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).resolve().parent / "images"
WIDTH = 104
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


if __name__ == "__main__":
    main()
