"""The kinds of tokenizer: training the one a recipe names, and reading any of them back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from shortrun import recipe
from shortrun.errors import UserError
from shortrun.tokens.bpe import BPE, train_bpe
from shortrun.tokens.tokenizer import Tokenizer
from shortrun.tokens.unigram import Unigram, train_unigram


def train_tokenizer(titles: Iterable[str], settings: recipe.Tokenizer) -> Tokenizer:
    """The tokenizer a recipe names, learned from titles."""
    return train_unigram(titles, settings) if settings.kind == "unigram" else train_bpe(titles, settings)


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer file: one written by `save`, or a BPE of the `tokenizers` library with our special tokens."""
    try:
        text = path.read_text(encoding="utf-8")
        return Unigram(text) if json.loads(text).get("kind") == "unigram" else BPE(text)
    except FileNotFoundError:
        raise UserError(f"There is no tokenizer file {path}") from None
    except UserError:
        raise
    except Exception as error:  # both libraries raise plain exceptions for every kind of malformed file
        raise UserError(f"{path} is not a tokenizer file: {error}") from None
