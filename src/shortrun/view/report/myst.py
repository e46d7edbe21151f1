"""A report as a folder of MyST Markdown that `sphinx-build` makes a site of, with myst-nb, without a network.

sphinx-build -b html FOLDER FOLDER/_build
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from shortrun.disk import write_atomically
from shortrun.errors import UserError
from shortrun.view.report.blocks import Block, Code, Figure, Items, Paragraph, Report, Section, Table
from shortrun.view.report.html import anchor
from shortrun.view.report.static import figure_svg

CONF = '''"""Made by `shortrun report --myst`: sphinx-build -b html . _build"""

project = {title!r}
extensions = ["myst_nb"]
nb_execution_mode = "off"
html_theme = "alabaster"
html_show_copyright = False
exclude_patterns = ["_build"]
'''
SPECIAL = set("\\`*_{}[]<>()#+-.!|~$&:\"'=%@^/")


def write_myst(report: Report, folder: Path) -> None:
    """Writes the folder: conf.py, index.md, a page for each section, figures/.

    Raises UserError where the folder holds something that no report wrote.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "conf.py").exists())):
        raise UserError(f"{folder} already exists and holds no report: choose another --myst")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for figure in report.figures:
        write_atomically(folder / "figures" / f"{figure.name}.svg", figure_svg(figure).encode())
    names = [anchor(section.title) for section in report.sections]
    for name, section in zip(names, report.sections, strict=True):
        write_atomically(folder / f"{name}.md", (page(section, folder) + "\n").encode())
    index = [
        f"# {escaped(report.title)}", escaped(report.summary), escaped(report.date),
        "\n".join(["```{toctree}", *names, "```"]),
    ]  # fmt: skip
    write_atomically(folder / "index.md", ("\n\n".join(index) + "\n").encode())
    write_atomically(folder / "conf.py", CONF.format(title=report.title).encode())


def page(section: Section, folder: Path) -> str:
    """One section as a page. folder: where the page will lie, from which links to runs begin."""
    return "\n\n".join([f"# {escaped(section.title)}", *(part for block in section.blocks for part in _block(block, folder))])


def markdown_table(headings: tuple[str, ...], rows: tuple[tuple[str, ...], ...], right: tuple[bool, ...]) -> str:
    """A table of Markdown, its cells escaped."""
    ruler = ["---:" if one else "---" for one in right]
    lines = [list(map(escaped, headings)), ruler, *(list(map(escaped, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Text in which Markdown and MyST find no markup, on one line."""
    told = " ".join(text.split())
    return "".join(f"\\{c}" if c in SPECIAL else c for c in told)


def _block(block: Block, folder: Path) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield escaped(block.text)
    elif isinstance(block, Items):
        yield "\n".join(f"- **{escaped(head)}**" + (f": {escaped(text)}" if text else "") for head, text in block.items)
    elif isinstance(block, Code):
        fence = "`" * max(3, 1 + max((len(part) for part in _ticks(block.text)), default=0))
        yield f"{fence}text\n{block.text}\n{fence}"
    elif isinstance(block, Table):
        if block.caption:
            yield f"*{escaped(block.caption)}*"
        yield markdown_table(block.headings, block.rows, block.right)
    else:
        yield _figure(block, folder)


def _figure(figure: Figure, folder: Path) -> str:
    """The figure, the runs that it comes from as links, and the command that draws it again."""
    lines = [f":::{{figure}} figures/{figure.name}.svg", f":name: {figure.name}", ":width: 100%", "", escaped(figure.caption)]
    told = [f"[{escaped(run)}]({_link(run, folder)})" for run in figure.runs]
    below = []
    if told:
        below.append(("Runs: " if len(told) > 1 else "Run: ") + ", ".join(told))
    if figure.command:
        below.append(f"Command: `{figure.command}`")
    lines += ["", *("\n\n".join(below).splitlines())] if below else []
    return "\n".join([*lines, ":::"])


def _link(run: str, folder: Path) -> str:
    """From a page to a run's folder."""
    return Path(os.path.relpath(run, folder)).as_posix()


def _ticks(text: str) -> Iterator[str]:
    run = ""
    for c in text + " ":
        if c == "`":
            run += c
        elif run:
            yield run
            run = ""
