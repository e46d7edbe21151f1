"""A tokenizer as plain data, by which `alone/tokenizer.js` gives the same ids."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from shortrun.errors import UserError
from shortrun.tokens.bpe import BPE, GPT2_WORDS
from shortrun.tokens.factored import Factored
from shortrun.tokens.pieces import Pieces
from shortrun.tokens.tokenizer import Tokenizer

UNKNOWN = 10.0
"""By how much sentencepiece scores a character that has no piece below its worst piece (`kUnkPenalty`)."""
ESCAPED = re.compile(r"\\([sSpP]|.)", re.DOTALL)
"""What follows a backslash in a pattern."""
SIGNS = frozenset("^$\\.*+?()[]{}|/")
"""What JavaScript lets a backslash stand before; Python puts one before more."""


def tokenizer_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """JSON-ready; raises UserError for a tokenizer of which the page would make something else.

    Bytes are strings: each character stands for the byte of its number.
    """
    common = {
        "tokens": [tokenizer.bytes_of(token).decode("latin-1") for token in range(tokenizer.vocab_size)],
        "eos": tokenizer.eos,
        "pad": tokenizer.pad,
        "unk": tokenizer.unk,
    }
    if isinstance(tokenizer, Factored):
        raise UserError("A page can't hold tokenizer.case = \"factored\", because its script can't put the case back")
    if isinstance(tokenizer, BPE):
        return {"kind": "bpe", **common, **_bpe(tokenizer)}
    if isinstance(tokenizer, Pieces):
        return {"kind": "pieces", **common, **_pieces(tokenizer)}
    raise UserError(f"A page can't hold a {type(tokenizer).__name__}: it knows byte-level BPE, Unigram and characters")


def _bpe(tokenizer: BPE) -> dict[str, Any]:
    tree = json.loads(tokenizer.serialised)
    model, normalizer = tree["model"], tree["normalizer"] or {}
    words, prefix = _words(tree["pre_tokenizer"] or {})
    plain = not any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
    known = normalizer in ({}, {"type": "Prepend", "prepend": " "})
    if not (words and plain and known and model["type"] == "BPE" and not model.get("byte_fallback")):
        raise UserError(
            "A page can't hold this BPE: its tokenizer.json has parts that shortrun's own tokenizers have not"
        )
    vocabulary: dict[str, int] = model["vocab"]
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    return {
        "merges": [vocabulary[part] for pair in pairs for part in pair],
        "words": words,
        "whole": bool(model.get("ignore_merges")),
        "prefix": prefix or bool(normalizer),
        "specials": sorted({token["id"] for token in tree["added_tokens"]}),
    }


def _words(pre_tokenizer: dict[str, Any]) -> tuple[str | None, bool]:
    """The pattern of words, None for one that isn't ours, and whether a space is put before each document."""
    kind = pre_tokenizer.get("type")
    if kind == "ByteLevel" and pre_tokenizer.get("use_regex", True):
        return _in_javascript(GPT2_WORDS.replace("PIECES", "")), bool(pre_tokenizer["add_prefix_space"])
    steps = pre_tokenizer.get("pretokenizers", [])
    if kind == "Sequence" and [step["type"] for step in steps] == ["Split", "ByteLevel"]:
        split, byte_level = steps
        cuts = split["behavior"] == "Isolated" and not split["invert"] and "Regex" in split["pattern"]
        if cuts and not byte_level["use_regex"] and not byte_level["add_prefix_space"]:
            return _in_javascript(split["pattern"]["Regex"]), False
    return None, False


def _in_javascript(pattern: str) -> str:
    """The pattern as JavaScript reads it: spaces are those of Unicode, and signs that mean nothing stand without backslash."""

    def one(match: re.Match[str]) -> str:
        sign = match[1]
        if sign in "sS":
            return rf"\{'p' if sign == 's' else 'P'}{{White_Space}}"
        return match[0] if sign in "pP" or sign in SIGNS else sign

    return ESCAPED.sub(one, pattern)


def _pieces(tokenizer: Pieces) -> dict[str, Any]:
    entries = tokenizer.entries()
    scores = [np.float32(score) for _, score, _ in entries]
    wholes = [token for token, (_, score, usable) in enumerate(entries) if usable and score == 0]
    normal = [score for token, score in enumerate(scores) if entries[token][2] and token not in set(wholes)]
    return {
        "model": json.loads(tokenizer.serialised)["kind"],
        "others": [token for token, (_, _, usable) in enumerate(entries) if not usable],
        "scores": [float(str(score)) for score in scores],  # as few digits as make the same float32
        "wholes": wholes,
        "unknown": float(min(normal) - np.float32(UNKNOWN)),
        "bytes": [token for token in range(tokenizer.vocab_size) if tokenizer.is_fallback(token)],
    }
