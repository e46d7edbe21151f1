"""The playground as one HTML file: its style, its modules as one script, a worker and packed data, all inside."""

from __future__ import annotations

import re
from base64 import b64encode
from gzip import compress
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from shortrun.report.html import bundle, in_script

ALONE, STATIC = Path(__file__).with_name("alone"), Path(__file__).with_name("static")
"""The page's own modules, and the server's, which the page shares; one of the same name is the page's."""
IMPORT = re.compile(
    r'^import (?:\{ (?P<names>[^}]+) \}|\* as (?P<all>\w+)) from "\./(?P<module>\w+)\.js";$', re.MULTILINE
)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|const|class) (?P<name>\w+))", re.MULTILINE)


def page_html(facts: dict[str, Any], weights: bytes, title: str) -> str:
    """The page. facts: JSON-ready, what `alone/source.js` answers from. weights: gzip of the model's numbers."""
    script, library, style = joined("main"), bundle(), _read(STATIC / "app.css")
    icon = b64encode(_read(STATIC / "icon.svg").encode()).decode()
    policy = (
        f"default-src 'none'; script-src {_hash(library)} {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "worker-src blob:; base-uri 'none'; form-action 'none'"
    )
    blocks = {
        "worker": ("text/plain", joined("worker")),
        "facts": ("application/gzip", _packed(in_script(facts).encode())),
        "weights": ("application/gzip", b64encode(weights).decode()),
    }
    data = "\n".join(f'<script type="{kind}" id="{name}">{text}</script>' for name, (kind, text) in blocks.items())
    html = _read(STATIC / "index.html")
    for line, instead in {
        '<meta charset="utf-8">\n': f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
        "<title>shortrun playground</title>": f"<title>{escape(title)}: shortrun playground</title>",
        'href="static/icon.svg"': f'href="data:image/svg+xml;base64,{icon}"',
        '<link rel="stylesheet" href="static/app.css">': f"<style>{style}</style>",
        '<script type="module" src="static/main.js"></script>\n': "",
        "</body>": f"{data}\n<script>{library}</script>\n<script>{script}</script>\n</body>",
    }.items():
        assert html.count(line) == 1, f"index.html has not exactly one {line!r}"
        html = html.replace(line, instead)
    return html


def joined(entry: str) -> str:
    """A module and all that it imports as one script, each as a function of its own: a browser loads no modules from disk."""
    order: dict[str, str] = {}
    _join(entry, order, ())
    found = '(() => {\n"use strict";\n' + "".join(order.values()) + "})();\n"
    assert "</script" not in found
    return found


def _join(name: str, order: dict[str, str], path: tuple[str, ...]) -> None:
    """Adds a module behind those that it imports."""
    assert name not in path, f"{name}.js imports itself by way of {', '.join(path)}"
    if name in order:
        return
    text = _read(ALONE / f"{name}.js" if (ALONE / f"{name}.js").exists() else STATIC / f"{name}.js")
    for match in IMPORT.finditer(text):
        _join(match["module"], order, (*path, name))
    exports = [match["name"] for match in EXPORT.finditer(text)]
    body = EXPORT.sub("", IMPORT.sub(_bound, text))
    left = re.search(r"^(?:import|export)\b.*", body, re.MULTILINE)
    assert left is None, f"{name}.js: {left and left[0]!r} can't be joined"
    order[name] = f"const ${name} = (() => {{\n{body}return {{ {', '.join(exports)} }};\n}})();\n"


def _bound(match: re.Match[str]) -> str:
    module = f"${match['module']}"
    return f"const {match['all']} = {module};" if match["all"] else f"const {{ {match['names']} }} = {module};"


def _packed(data: bytes) -> str:
    return b64encode(compress(data, mtime=0)).decode()


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
