"""A corpus file: which inputs, which steps, where the corpus goes, as TOML.

    about = "Wikipedia and WebText"
    root = "../shared/data/web"        where relative paths of inputs begin

    [[input]]
    path = ["wikipedia.parquet"]       files, globs and folders
    column = "text"

    [quality]
    rules = ["gopher", "repetition"]

Steps run in the order of the sections here. A section that is left out has its defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from shortrun.errors import UserError, counted, did_you_mean
from shortrun.pipeline.rules import Quality
from shortrun.recipe import Section
from shortrun.recipe_file import named_file, sentences, toml_files, toml_of

SHIPPED = Path(__file__).parents[1] / "corpora"


class Input(Section):
    """Where documents come from."""

    name: str = ""
    """What the input is called in the manifest; left out, the first path's name."""
    path: tuple[str, ...] = ()
    """Files, globs ("texts/**/*.txt") and folders, which are searched to the bottom."""
    hub: str | None = None
    """A hub data set, by the `datasets` library, instead of paths."""
    config: str | None = None
    """hub: the configuration of the data set."""
    hub_split: str = "train"
    """hub: which of its splits."""
    revision: str | None = None
    """hub: a commit to pin."""
    column: str = "text"
    """The column that holds the documents, where the file has columns."""
    kind: Literal["text", "html"] = "text"
    """What a document is; .html and .htm files are HTML anyway."""
    document: Literal["file", "line"] = "file"
    """Of .txt and .md files: whether a file is a document, or each line of it."""
    encoding: str = "utf-8"
    """How text files are encoded."""
    split: Literal["auto", "train", "validation"] = "auto"
    """Which split its documents go to; auto draws it. What is like a document of a validation input leaves training."""

    @model_validator(mode="after")
    def _can_work(self) -> Input:
        if bool(self.path) == bool(self.hub):
            raise ValueError("an input has either path or hub")
        try:
            line_break = "\n".encode(self.encoding)
        except (LookupError, UnicodeError):  # "zip" is one for Python, too, but not of text
            raise ValueError(f'encoding = "{self.encoding}" is no encoding that Python knows; try "latin-1"') from None
        if line_break != b"\n":
            raise ValueError(
                f'encoding = "{self.encoding}" can\'t be cut at line breaks; convert such files to UTF-8 first'
            )
        return self

    @property
    def title(self) -> str:
        return self.name or (Path(self.hub).name if self.hub else Path(self.path[0]).stem or self.path[0])


class Extraction(Section):
    """Main text from HTML."""

    library: Literal["resiliparse", "trafilatura", "justext"] = "resiliparse"
    """Which library takes it out of a page (docs/corpora.md compares them)."""


class Repair(Section):
    """Repair of Unicode, and what a document may not contain."""

    ftfy: bool = True
    """Undo text that was decoded wrongly ("â€œ" for a quotation mark), by ftfy, without changing what is right."""
    control_characters: bool = True
    """Take out control characters besides line breaks and tabs, and one invisible character, the byte order mark."""


class Language(Section):
    """A filter by language."""

    keep: tuple[str, ...] = ()
    """ISO 639-1 codes to keep, such as ["en"]; empty keeps all. Needs the extra shortrun[language]."""
    least: float = Field(0.65, ge=0, le=1)
    """The probability that a document must have (0.65 is FineWeb's for English, with another classifier)."""


class Duplicates(Section):
    """Documents that stand in the corpus more than once."""

    exact: bool = True
    """Keep the first of equal documents."""
    near: Literal["drop", "group", "off"] = "drop"
    """drop: keep the first of documents that are nearly equal; group: keep all, in one split; off: don't look."""
    bands: PositiveInt = 14
    """MinHash: two documents are near where all hashes of one of this many bands agree ..."""
    rows: PositiveInt = 8
    """... of this many hashes. 14 of 8 finds 0.75 alike with 77 %, 0.8 with 92 % (FineWeb's numbers)."""
    words: PositiveInt = 5
    """Words in a row that make one of the pieces that are compared."""
    seed: int = Field(1, ge=0, lt=2**63)
    """Seed of the hashes."""


class Split(Section):
    """What is only ever scored."""

    validation: float = Field(0.05, ge=0, lt=1)
    """Share of the groups of near-duplicates that validates. Each is drawn by its first document's hash, so that a corpus
    that grows keeps its split."""
    seed: int = Field(1337, ge=0, lt=2**63)
    """Seed of that draw."""


class Output(Section):
    """How the corpus is written."""

    shard_bytes: int = Field(64_000_000, ge=1_000)
    """UTF-8 bytes of text in a shard."""
    unit_bytes: int = Field(16_000_000, ge=1_000)
    """Bytes of input that are one piece of work. Interrupted work loses at most the pieces in hand."""
    max_document_bytes: int = Field(8_000_000, ge=1_000, le=256_000_000)
    """A record that is longer is left out and named: this bounds the memory."""


class CorpusFile(Section):
    """What a corpus file holds."""

    about: str = ""
    root: str = "."
    """The folder that relative paths of inputs begin at (also --root); a relative one begins at the current folder."""
    out: str | None = None
    """The folder to make (also --out); left out, corpora/<name of the file>."""
    input: tuple[Input, ...] = Field(min_length=1)
    extraction: Extraction = Extraction()
    repair: Repair = Repair()
    language: Language = Language()
    quality: Quality = Quality()
    duplicates: Duplicates = Duplicates()
    split: Split = Split()
    output: Output = Output()

    @model_validator(mode="after")
    def _can_work(self) -> CorpusFile:
        names = [each.title for each in self.input]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f'two inputs are called "{twice[0]}": give each a name of its own')
        if all(each.split == "validation" for each in self.input):
            raise ValueError('every input has split = "validation", so that there is nothing to train on')
        return self

    def decides(self) -> dict[str, Any]:
        """All that decides the documents, JSON-ready: neither where files lie nor where the corpus goes."""
        values = self.model_dump(mode="json", exclude={"root", "out", "about"})
        rules = self.quality.rules
        values["quality"] = {key: value for key, value in values["quality"].items() if key == "rules" or key in rules}
        return values


def shipped_corpora() -> dict[str, Path]:
    """Name and file of each corpus file that comes with the package."""
    return toml_files(SHIPPED)


def load_corpus_file(name: str, flags: Mapping[str, Any] | None = None) -> tuple[str, CorpusFile]:
    """The name and the content of a corpus file, given by its shipped name or as a path, under some flags.

    Raises UserError with all that is wrong.
    """
    path = named_file(name, shipped_corpora())
    if path is None:
        raise UserError(
            f"There is no corpus file '{name}': {did_you_mean(Path(name).stem, shipped_corpora())} (or give a .toml file)"
        )
    values = {
        **toml_of(path, "corpus file"),
        **{key: value for key, value in (flags or {}).items() if value is not None},
    }
    try:
        return path.stem, CorpusFile.model_validate(values)
    except ValidationError as error:
        problems = list(dict.fromkeys(sentences(error, CorpusFile)))
    number = "One thing is" if len(problems) == 1 else f"{counted(len(problems), 'thing')} are"
    raise UserError("\n  ".join([f"{number} wrong with the corpus file {path}:", *problems]))
