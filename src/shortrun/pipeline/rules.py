"""The limits of the quality rules, each with the source of its number."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from shortrun.recipe import Section

Rule = Literal["gopher", "repetition", "c4", "fineweb", "links"]


class Gopher(Section):
    """Rules of Gopher (MassiveText), Rae et al. 2021, arXiv 2112.11446, appendix A.1.1."""

    min_words: int = Field(50, ge=0)
    """Least words."""
    max_words: int = Field(100_000, ge=1)
    """Most words."""
    min_mean_word: float = Field(3.0, ge=0)
    """Least characters of a word, on average."""
    max_mean_word: float = Field(10.0, gt=0)
    """Most characters of a word, on average."""
    symbols: float = Field(0.1, ge=0)
    """Most hashes, or ellipses, for each word."""
    bullets: float = Field(0.9, ge=0, le=1)
    """Largest share of lines that begin with a bullet."""
    ellipses: float = Field(0.3, ge=0, le=1)
    """Largest share of lines that end with an ellipsis."""
    letters: float = Field(0.8, ge=0, le=1)
    """Least share of words that have a letter."""
    stop_words: int = Field(2, ge=0)
    """How many of the, be, to, of, and, that, have, with must occur; 0 for other languages than English."""


class Repetition(Section):
    """Gopher's limits on repetition, Rae et al. 2021, arXiv 2112.11446, table A1: shares that may not be exceeded."""

    lines: float = Field(0.3, ge=0, le=1)
    """Lines that stood before."""
    paragraphs: float = Field(0.3, ge=0, le=1)
    """Paragraphs that stood before."""
    line_characters: float = Field(0.2, ge=0, le=1)
    """Characters in such lines."""
    paragraph_characters: float = Field(0.2, ge=0, le=1)
    """Characters in such paragraphs."""
    top: tuple[float, ...] = (0.2, 0.18, 0.16)
    """Characters in the most frequent run of 2, 3 and 4 words."""
    repeated: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.1)
    """Characters in runs of 5, 6, 7, 8, 9 and 10 words that stood before."""

    @model_validator(mode="after")
    def _can_work(self) -> Repetition:
        if len(self.top) > 3 or len(self.repeated) > 6:
            raise ValueError("top has at most 3 values (runs of 2 to 4 words), repeated at most 6 (5 to 10 words)")
        return self


class C4(Section):
    """Rules of C4, Raffel et al. 2020, JMLR 21 (140), section 2.2. Its list of bad words is left out, as FineWeb did."""

    terminal_punctuation: bool = False
    """Take out lines that do not end in . ! ? or a quotation mark. FineWeb left this out: it costs 30 % of the text."""
    min_words_of_a_line: int = Field(3, ge=0)
    """Take out lines of fewer words; blank ones stay. The published code has 3, the paper 5."""
    min_sentences: int = Field(5, ge=0)
    """Least sentences. The published code has 5, the paper 3."""
    policies: bool = True
    """Take out lines about cookies, privacy, terms of use, and those that ask for JavaScript."""
    braces: bool = True
    """Reject documents with a curly bracket, which are code."""
    lorem_ipsum: bool = True
    """Reject documents with "lorem ipsum"."""


class FineWeb(Section):
    """FineWeb's own rules, Penedo et al. 2024, arXiv 2406.17557, section 3.6."""

    punctuation: float = Field(0.12, ge=0, le=1)
    """Least share of lines that end in punctuation."""
    repeated_lines: float = Field(0.1, ge=0, le=1)
    """Largest share of characters in lines that stood before; the paper has 0.1, its published code 0.01."""
    short_lines: float = Field(0.67, ge=0, le=1)
    """Largest share of lines with fewer than 30 characters."""


class Links(Section):
    """Rules on links and boilerplate of NVIDIA's NeMo Curator (its UrlsFilter and BoilerPlateStringFilter)."""

    links: float = Field(0.2, ge=0, le=1)
    """Largest share of characters in web addresses."""
    boilerplate: float = Field(0.4, ge=0, le=1)
    """Largest share of paragraphs with the words of a legal notice."""


class Quality(Section):
    """Rules that reject or shorten documents. None runs unless it is named."""

    rules: tuple[Rule, ...] = ()
    """Which ones; they run in the order repetition, gopher, c4, fineweb, links, which is FineWeb's."""
    repetition: Repetition = Repetition()
    gopher: Gopher = Gopher()
    c4: C4 = C4()
    fineweb: FineWeb = FineWeb()
    links: Links = Links()

    @model_validator(mode="after")
    def _can_work(self) -> Quality:
        useless = self.model_fields_set - {"rules"} - set(self.rules)
        if useless:
            name = min(useless)
            raise ValueError(f'[quality.{name}] does nothing here: quality.rules does not name "{name}"')
        return self
