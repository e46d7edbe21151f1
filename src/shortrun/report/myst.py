"""A report as a folder of MyST Markdown that `sphinx-build` makes a site of, with myst-nb, without a network.

sphinx-build -b html FOLDER FOLDER/_build
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from shortrun.disk import write_atomically
from shortrun.errors import UserError
from shortrun.report.blocks import Block, Code, Figure, Items, Paragraph, Report, RunCard, Section, Table
from shortrun.report.names import anchor
from shortrun.report.static import figure_svg
from shortrun.view.text import literal_cell, markdown_table

CONF = '''"""Made by `shortrun report --myst`: sphinx-build -b html . _build"""

project = {title!r}
extensions = ["myst_nb"]
nb_execution_mode = "off"
html_theme = "alabaster"
html_show_copyright = False
exclude_patterns = ["_build"]
'''


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
        write_atomically(folder / f"{name}.md", (page(section) + "\n").encode())
    index = [
        f"# {escaped(report.title)}", escaped(report.summary), escaped(report.date),
        "\n".join(["```{toctree}", *names, "```"]),
    ]  # fmt: skip
    write_atomically(folder / "index.md", ("\n\n".join(index) + "\n").encode())
    write_atomically(folder / "conf.py", CONF.format(title=report.title).encode())


def page(section: Section) -> str:
    """One section as a page."""
    return "\n\n".join([f"# {escaped(section.title)}", *(part for block in section.blocks for part in _block(block))])


def escaped(text: str) -> str:
    """Text on one line in which Markdown and MyST find no markup, at its beginning neither."""
    told = literal_cell(" ".join(text.split()))
    return re.sub(r"^(\d*)([-+=:%(.)@])", r"\1\\\2", told)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield escaped(block.text)
    elif isinstance(block, Items):
        yield "\n".join(f"- **{escaped(head)}**" + (f": {escaped(text)}" if text else "") for head, text in block.items)
    elif isinstance(block, Code):
        yield _code(block.text)
    elif isinstance(block, Table):
        if block.caption:
            yield f"*{escaped(block.caption)}*"
        rows = ([*map(escaped, row)] for row in block.rows)
        yield markdown_table([*map(escaped, block.headings)], rows, block.right)
    elif isinstance(block, RunCard):
        yield f"({block.anchor})=\n## {escaped(block.name)}"
        yield "\n".join(f"- {name}: {escaped(fact)}" for name, fact in block.facts)
        yield _code(block.command)
    else:
        yield _figure(block)


def _code(text: str) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _figure(figure: Figure) -> str:
    """The figure, links to the runs that it comes from, and the command that draws it again."""
    runs = ", ".join(f"[{escaped(run)}](#{anchor('run', run)})" for run in figure.runs)
    parts = [
        escaped(figure.caption),
        f"Drawn from {runs}." if runs else "",
        f"`{figure.command}`" if figure.command else "",
    ]
    told = "\n\n".join(filter(None, parts))
    return f":::{{figure}} figures/{figure.name}.svg\n:name: {figure.name}\n:width: 100%\n\n{told}\n:::"
