"""Main text from a page of HTML, by a library: without menus, links to other pages and legal notices.

docs/corpora.md has the token F1 and the pages per second of each (benchmarks/extraction.py).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from shortrun.errors import missing_extra
from shortrun.pipeline.steps import Rejected
from shortrun.pipeline.text import Text

Extract = Callable[[str | bytes], str]


class Extraction:
    """The first step of a page, from what its file holds to text."""

    name = "extraction"

    def __init__(self, library: str) -> None:
        self._extract = extractor(library)
        self.about = f"main text of HTML pages by {library} {version(library)}"

    def __call__(self, content: str | bytes) -> Text | Rejected:
        try:
            text = self._extract(content).strip()
        except Exception as error:  # a parser may stumble over a page in any way
            return Rejected(f"not extracted: {type(error).__name__}", str(error)[:200])
        return Text(text) if text else Rejected("no main text")


def extractor(library: str) -> Extract:
    """The function of a library; raises UserError where it is not installed."""
    try:
        return EXTRACTORS[library]()
    except ImportError:
        extra = "corpus" if library == "resiliparse" else "extraction"
        raise missing_extra(f'extraction.library = "{library}"', extra) from None


def _resiliparse() -> Extract:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import detect_encoding
    from resiliparse.parse.html import HTMLTree

    def extract(content: str | bytes) -> str:
        if isinstance(content, str):
            tree = HTMLTree.parse(content)
        else:
            tree = HTMLTree.parse_from_bytes(content, detect_encoding(content) or "utf-8")
        return str(extract_plain_text(tree, main_content=True, alt_texts=False))

    return extract


def _trafilatura() -> Extract:
    import trafilatura

    return lambda content: trafilatura.extract(content) or ""


def _justext() -> Extract:
    import justext

    english = justext.get_stoplist("English")

    def extract(content: str | bytes) -> str:
        paragraphs = justext.justext(content, english)
        return "\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)

    return extract


EXTRACTORS: dict[str, Callable[[], Extract]] = {
    "resiliparse": _resiliparse,
    "trafilatura": _trafilatura,
    "justext": _justext,
}
