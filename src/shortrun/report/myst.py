"""A report as a folder of MyST Markdown that `sphinx-build` makes a site of, with myst-nb, without a network.

sphinx-build -b html FOLDER FOLDER/_build
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from shortrun.disk import read_json, write_atomically, write_json
from shortrun.errors import UserError
from shortrun.report.blocks import Block, Code, Figure, Items, Paragraph, Report, RunCard, Section, Table
from shortrun.report.names import anchor
from shortrun.report.plain import shown
from shortrun.report.static import figure_svg
from shortrun.view.text import literal_cell, markdown_table

CONF = '''"""Made by `shortrun report --myst`: sphinx-build -b html . _build"""

project = {title}
extensions = ["myst_nb"]
nb_execution_mode = "off"
html_theme = "alabaster"
html_show_copyright = False
exclude_patterns = ["_build"]
'''


MADE = "report.json"
"""Which files a report has written, with their sha256; a folder without it holds something else."""


def write_myst(report: Report, folder: Path) -> None:
    """Writes the folder: conf.py, index.md, a page for each section, figures/, and report.json, which lists them.

    A report that was there before is replaced; files that no report has written stay. Raises UserError where the folder holds
    something else.
    """
    before = _made_before(folder)
    prefix = anchor(folder.resolve().name)
    pages = [page(section, report, prefix) for section in report.sections]
    index = [
        f"# {escaped(report.title)}", escaped(report.summary), escaped(report.date), "Made by", _code(report.command),
        "\n".join(["```{toctree}", ":maxdepth: 1", "", *report.section_names, "```"]),
    ]  # fmt: skip
    written = {f"{name}.md": f"{text}\n" for name, text in zip(report.section_names, pages, strict=True)}
    written |= {
        "index.md": "\n\n".join(index) + "\n",
        "conf.py": CONF.format(title=json.dumps(shown(report.title), ensure_ascii=False)),
    }
    written |= {f"figures/{figure.name}.svg": figure_svg(figure) for figure in report.figures}
    contents = {name: text.encode() for name, text in written.items()}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    for name in before - contents.keys():
        (folder / name).unlink(missing_ok=True)
    files = {name: sha256(content).hexdigest() for name, content in sorted(contents.items())}
    write_json(folder / MADE, {"made by": report.command, "files": files})


def _made_before(folder: Path) -> set[str]:
    """The files that an earlier report has written into the folder."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return set()
    made = folder / MADE
    if not made.is_file():
        raise UserError(f"{folder} already exists and holds no report: choose another --myst")
    found = read_json(made).get("files", {})
    # a list that names a place outside is no report's
    return {name for name in found if (folder / name).resolve().is_relative_to(folder.resolve())}


def page(section: Section, report: Report, prefix: str) -> str:
    """One section as a page. Its labels begin with `prefix`, because a site has each label once, and may hold several reports."""
    blocks = (part for block in section.blocks for part in _block(block, report, prefix))
    return "\n\n".join([f"# {escaped(section.title)}", *blocks])


def escaped(text: str) -> str:
    """Text on one line in which Markdown and MyST find no markup, at its beginning neither."""
    told = literal_cell(" ".join(text.split()))
    return re.sub(r"^(\d*)([-+=:%(.)@])", r"\1\\\2", told)


def _block(block: Block, report: Report, prefix: str) -> Iterator[str]:
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
        yield f"({prefix}-{report.run_names[block.name]})=\n## {escaped(block.name)}"
        yield "\n".join(f"- {escaped(name)}: {escaped(fact)}" for name, fact in block.facts)
        yield _code(block.command)
    else:
        yield _figure(block, report, prefix)


def _code(text: str) -> str:
    """Lines that keep their spaces."""
    return _fenced("text", shown(text))


def _fenced(kind: str, content: str) -> str:
    """A block between marks that nothing in it can be taken for. Colons would need an extension of MyST."""
    longest = max(map(len, re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{content}\n{fence}"


def _figure(figure: Figure, report: Report, prefix: str) -> str:
    """The figure, links to the runs that it comes from, and the command that draws it again."""
    runs = ", ".join(
        f"[{escaped(run)}](#{prefix}-{report.run_names[run]})" if run in report.run_names else escaped(run)
        for run in figure.runs
    )
    parts = [
        escaped(figure.caption),
        f"Drawn from {runs}." if runs else "",
        _inline_code(figure.command) if figure.command else "",
    ]
    told = "\n\n".join(filter(None, parts))
    label = f"{prefix}-figure-{figure.name}"
    return _fenced(f"{{figure}} figures/{figure.name}.svg", f":name: {label}\n:width: 100%\n\n{told}")


def _inline_code(text: str) -> str:
    """One line of code between as many marks as it needs."""
    line = " ".join(shown(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"
