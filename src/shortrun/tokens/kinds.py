"""The kinds of tokenizer: training (or fetching) the one a recipe names, and reading any of them back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from shortrun import recipe
from shortrun.errors import UserError
from shortrun.tokens.bpe import BPE, gpt2, train_bpe
from shortrun.tokens.pieces import Pieces, train_pieces
from shortrun.tokens.tokenizer import Tokenizer


def make_tokenizer(titles: Iterable[str], settings: recipe.Tokenizer) -> Tokenizer:
    """The tokenizer a recipe names: learned from titles, or GPT-2's own."""
    match settings.kind:
        case "bpe":
            return train_bpe(titles, settings)
        case "unigram" | "character":
            return train_pieces(titles, settings)
        case "gpt2":
            return gpt2(settings)


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer file: one written by `save`, or a BPE of the `tokenizers` library with our special tokens."""
    try:
        text = path.read_text(encoding="utf-8")
        return Pieces(text) if "kind" in json.loads(text) else BPE(text)
    except FileNotFoundError:
        raise UserError(f"There is no tokenizer file {path}") from None
    except UserError:
        raise
    except Exception as error:  # both libraries raise plain exceptions for every kind of malformed file
        raise UserError(f"{path} is not a tokenizer file: {error}") from None
