"""`shortrun tokenizer`: what the tokenizer of a run, a file or a recipe does to documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from shortrun.cli.flags import Overrides, taken_from
from shortrun.cli.options import TokenizerOptions
from shortrun.cli.output import say, shortened, show, show_pairs
from shortrun.errors import ShortrunError, UserError, counted
from shortrun.recipe import Recipe
from shortrun.recipe_file import COMMAND_LINE, Layers, load_recipe, named_file, shipped_recipes
from shortrun.text.visible import shown_token, visible

if TYPE_CHECKING:
    from shortrun.text.corpus import Corpus
    from shortrun.tokens.tokenizer import Tokenizer
    from shortrun.view.tokenizer import TokenizerReport


@dataclass(frozen=True)
class Subject:
    """What is looked at."""

    tokenizer: Tokenizer
    recipe: Recipe | None
    """Whose kind of tokenizer other sizes are learned of; None for a file."""
    block_size: int
    corpus: Corpus | None


def tokenizer(argv: list[str]) -> None:
    rest, overrides, mistakes = taken_from(argv)
    options = tyro.cli(TokenizerOptions, prog="shortrun tokenizer", args=rest)
    if options.show < 0:
        raise UserError(f"--show {options.show} must be at least 0")
    from shortrun.view.charts import require_chart, save
    from shortrun.view.tokenizer import report_on

    require_chart(options.chart)
    subject = _subject(options.which, overrides, mistakes)
    report = report_on(subject.tokenizer, _splits(subject.corpus), subject.block_size)
    sizes = _compared(subject, options.sizes)
    if options.chart:
        from shortrun.view.tokenizer_charts import tokenizer_chart

        save(tokenizer_chart(report, [size.row() for size in sizes]), options.chart)
    if options.json:
        told = {"tokenizer": options.which, **report.as_dict(options.show), "sizes": [size.row() for size in sizes]}
        print(json.dumps(told))
        return
    show_tokenizer(options.which, report, options.show)
    if sizes:
        show_sizes([size.row() for size in sizes])


def _subject(which: str, overrides: Overrides, mistakes: Sequence[str]) -> Subject:
    path = Path(which)
    if path.is_dir() and (which not in shipped_recipes() or (path / "recipe.toml").is_file()):
        return _of_run(path, overrides, mistakes)
    if path.suffix == ".json":
        return _of_file(path, overrides, mistakes)
    if named_file(which, shipped_recipes()) is None and "/" in which and path.suffix != ".toml":
        raise UserError(f"{which} is no run folder, no tokenizer file and no recipe: there is nothing of that name")
    from shortrun.text.corpus import load_corpus
    from shortrun.tokens.kinds import tokenizer_for
    from shortrun.train.sizes import sized

    recipe, reasons = sized(load_recipe(which, overrides, mistakes))
    for reason in reasons:
        if reason.startswith(("tokenizer.", "batches.block_size")):
            say(reason)
    corpus = load_corpus(recipe.data)
    return Subject(tokenizer_for(corpus, recipe.tokenizer), recipe, recipe.batches.block_size, corpus)


def _of_run(path: Path, overrides: Overrides, mistakes: Sequence[str]) -> Subject:
    """A run's own tokenizer, on its own documents or, with --data.path, on others cut in the same way."""
    from shortrun.runs.folder import RunFolder
    from shortrun.text.corpus import load_corpus

    folder = RunFolder.open(path)
    _require_data_only(overrides, mistakes, "a run's tokenizer is made already")
    recipe, corpus = folder.recipe(), None
    if overrides:
        corpus = load_corpus(load_recipe(str(folder.recipe_file), overrides).data)
    else:
        try:
            corpus = folder.corpus()
        except ShortrunError as error:
            say(f"Only its vocabulary can be shown, because the run's documents are gone. {error}")
    return Subject(folder.tokenizer(), recipe, recipe.batches.block_size, corpus)


def _of_file(path: Path, overrides: Overrides, mistakes: Sequence[str]) -> Subject:
    """A tokenizer from its file, on all documents that --data.path names."""
    from shortrun.text.corpus import load_corpus
    from shortrun.tokens.kinds import load_tokenizer

    _require_data_only(overrides, mistakes, "a file's tokenizer is made already")
    found, block_size = load_tokenizer(path), Recipe().batches.block_size
    if not overrides:
        print("Only its vocabulary is shown; --data.path FILE shows what it does to documents.", file=sys.stderr)
        return Subject(found, None, block_size, None)
    data = {"num_titles": "all", **overrides["data"]} if "path" in overrides["data"] else overrides["data"]
    return Subject(found, None, block_size, load_corpus(load_recipe("baseline", {"data": data}).data))


def _require_data_only(overrides: Overrides, mistakes: Sequence[str], why: str) -> None:
    others = [f"--{section}.{name}" for section in overrides if section != "data" for name in overrides[section]]
    wrong = [*mistakes, *(f"command line: {flag} has no effect here, because {why}" for flag in others)]
    if wrong:
        raise UserError("\n".join(wrong))


def _splits(corpus: Corpus | None) -> dict[str, Any]:
    return {name: corpus.split(name) for name in ("train", "validation")} if corpus else {}


def _compared(subject: Subject, sizes: Sequence[int]) -> list[TokenizerReport]:
    """A tokenizer of each size, learned from the same documents, from the cache or made and put there."""
    if not sizes:
        return []
    if subject.recipe is None or subject.corpus is None:
        raise UserError(
            "--sizes learns tokenizers of a recipe's kind from its documents: give a RECIPE, or a RUN that has them"
        )
    from shortrun.tokens.kinds import tokenizer_for
    from shortrun.view.tokenizer import report_on

    layers = []
    for size in sorted(set(sizes)):
        layers.append(Layers())
        layers[-1].lay({"tokenizer": subject.recipe.tokenizer.model_dump(exclude_defaults=True)}, "the recipe")
        layers[-1].lay({"tokenizer": {"vocab_size": size}}, COMMAND_LINE)
    settings = [layer.recipe().tokenizer for layer in layers]  # all are checked before the first is learned
    return [
        report_on(tokenizer_for(subject.corpus, each), _splits(subject.corpus), subject.block_size) for each in settings
    ]


def show_tokenizer(name: str, report: TokenizerReport, count: int) -> None:
    found = report.as_dict(count)
    title = f"{name}: {found['vocab_size']:,} entries"
    if not report.uses:
        show_pairs(title, {"sha256": found["sha256"]})
    else:
        _show_splits(title, found)
    for kind, heading in (("most_frequent", "most frequent"), ("longest", "longest pieces")):
        pieces = found[kind]
        if pieces:
            _show_pieces(heading, pieces)
    if report.train:
        print(
            f"never used in training documents: {found['never_used']:,} of {found['pieces']:,} pieces "
            f"({found['never_used_share']:.1%}), and {counted(found['bytes_never_used'], 'single byte')}"
        )
        if found["never_used_examples"]:
            print("  " + "  ".join(shortened(shown_token(token), 40) for token in found["never_used_examples"]))


def _show_splits(title: str, found: Mapping[str, Any]) -> None:
    table = Table(title=Text(title), title_justify="left", box=SIMPLE)
    table.add_column("")
    splits = found["splits"].values()
    for name in found["splits"]:
        table.add_column(name, justify="right")
    block = found["block_size"]
    rows: dict[str, list[str]] = {
        "documents": [f"{split['documents']:,}" for split in splits],
        "given back exactly": [f"{split['given_back']:.2%}" for split in splits],
        "characters that a piece holds": [f"{split['characters_known']:.3%}" for split in splits],
        "different characters, of which a piece holds": [
            f"{split['distinct_characters']:,}, {split['distinct_characters_known']:,}" for split in splits
        ],
        "tokens, without ends": [f"{split['tokens']:,}" for split in splits],
        "unknown": [f"{split['unknown_rate']:.3%}" for split in splits],
        "spelled in bytes": [f"{split['byte_fallback_rate']:.3%}" for split in splits],
        "tokens per character": [f"{split['tokens_per_character']:.4f}" for split in splits],
        "tokens per word (fertility)": [f"{split['fertility']:.3f}" for split in splits],
        "length with its end: mean, median": [
            f"{split['length']['mean']:.2f}, {split['length']['median']:g}" for split in splits
        ],
        "length: 95th percentile, longest": [
            f"{split['length']['p95']:g}, {split['length']['max']:,}" for split in splits
        ],
        f"longer than the block of {block:,}": [f"{split['length']['longer_than_block']:.2%}" for split in splits],
    }
    for heading, cells in rows.items():
        table.add_row(heading, *cells)
    show(table)
    for name, split in found["splits"].items():
        for text in split["lost_examples"]:
            print(f"{name}, not given back: {shortened(visible(text))}")


def _show_pieces(heading: str, pieces: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title=heading, title_justify="left", box=SIMPLE)
    table.add_column("piece")
    table.add_column("in training documents", justify="right")
    table.add_column("share", justify="right")
    for piece in pieces:
        known = piece["count"] is not None
        numbers = (f"{piece['count']:,}", f"{piece['share']:.2%}") if known else ("-", "-")
        table.add_row(Text(shortened(shown_token(piece["token"]), 60)), *numbers)
    show(table)


def show_sizes(rows: Sequence[Mapping[str, Any]]) -> None:
    """A vocabulary a row."""
    table = Table(title="vocabulary sizes", title_justify="left", box=SIMPLE)
    for heading in ("entries", "mean length", "tokens per character", "tokens per word", "never used"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row['vocab_size']:,}",
            f"{row['mean_length']:.2f}",
            f"{row['tokens_per_character']:.4f}",
            f"{row['fertility']:.3f}",
            f"{row['never_used']:,} ({row['never_used_share']:.1%})",
        )
    show(table)
    print(
        "Lengths are of validation documents, with their ends; pieces never used are those that no training document has."
    )
