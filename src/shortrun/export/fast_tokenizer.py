"""A run's tokenizer as one of the `tokenizers` library alone, which transformers loads as a fast tokenizer.

Our classes do three things around their libraries that a file has to say by itself. A space is put before each document. The
text of a special token stays text. A document begins after one `<eos>`.

That space is not taken away again in decoding, because what a model goes on with is often decoded by itself, and would lose
the space before its first word.

Byte-level BPE is the library's own, so its ids are the same for every text. sentencepiece adds scores up in float32 and the
library in float64, so that two ways to cut a text that are equally likely, such as "ee" + "e" and "e" + "ee", may fall
differently. `differing` counts the documents to which that happens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as HFTokenizer

from shortrun.disk import write_json
from shortrun.errors import UserError
from shortrun.text.documents import Documents
from shortrun.tokens.bpe import BPE
from shortrun.tokens.factored import Factored
from shortrun.tokens.pieces import SPACE, Pieces
from shortrun.tokens.tokenizer import Tokenizer

NEVER = -1e4
"""Score of what no text is spelled with: far below that of the longest piece in characters."""
FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"


def fast_tokenizer(tokenizer: Tokenizer) -> HFTokenizer:
    """The same ids, by the `tokenizers` library; with special tokens, one `<eos>` before them.

    Set `encode_special_tokens` on what is read back from a file, because the file does not hold it.
    """
    if isinstance(tokenizer, BPE):
        fast = _bpe(tokenizer)
    else:
        assert isinstance(tokenizer, Pieces)
        fast = _pieces(tokenizer)
    eos = fast.id_to_token(tokenizer.eos)
    fast.post_processor = processors.TemplateProcessing(
        single=f"{eos} $A", pair=f"{eos} $A {eos} $B", special_tokens=[(eos, tokenizer.eos)]
    )
    fast.encode_special_tokens = True
    return fast


def require_fast(tokenizer: Tokenizer) -> None:
    """Raises UserError for a tokenizer that the library can't hold."""
    if isinstance(tokenizer, Factored):
        raise UserError(
            'tokenizer.case = "factored" can\'t be exported, because the `tokenizers` library, by which others read a '
            "tokenizer, can't put the case back"
        )


def write_fast_tokenizer(tokenizer: Tokenizer, folder: Path, block_size: int) -> None:
    """tokenizer.json and tokenizer_config.json, by which `AutoTokenizer.from_pretrained` makes it."""
    fast = fast_tokenizer(tokenizer)
    (folder / FILE).write_text(fast.to_str(pretty=True), encoding="utf-8")
    ids = {
        "bos_token": tokenizer.eos,
        "eos_token": tokenizer.eos,
        "pad_token": tokenizer.pad,
        "unk_token": tokenizer.unk,
    }
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: fast.id_to_token(token) for name, token in ids.items() if token is not None},
        "split_special_tokens": True,  # "<eos>" in a text is text
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": block_size,
        "padding_side": "left",
    }
    write_json(folder / CONFIG, config)


def read_fast_tokenizer(folder: Path) -> HFTokenizer:
    """What `write_fast_tokenizer` wrote, without transformers."""
    fast = HFTokenizer.from_file(str(folder / FILE))
    fast.encode_special_tokens = True
    return fast


def encode_fast(fast: HFTokenizer, documents: Sequence[str]) -> list[list[int]]:
    """Ids of each document, without its ends."""
    return [encoding.ids for encoding in fast.encode_batch(list(documents), add_special_tokens=False)]


def differing(tokenizer: Tokenizer, documents: Documents) -> list[str]:
    """The documents that get other ids from the fast tokenizer than from ours."""
    fast, found = fast_tokenizer(tokenizer), []
    for some in documents.pieces():
        ids = zip(tokenizer.encode_many(some), encode_fast(fast, some), strict=True)
        found += [document for document, (ours, theirs) in zip(some, ids, strict=True) if ours != theirs]
    return found


def begins_with_a_space(fast: HFTokenizer) -> bool:
    """Whether a document that is decoded has a space more at its beginning."""
    return fast.normalizer is not None


def _bpe(tokenizer: BPE) -> HFTokenizer:
    fast = HFTokenizer.from_str(tokenizer.serialised)
    settings = json.loads(tokenizer.serialised)
    if (settings["pre_tokenizer"] or {}).get("add_prefix_space"):  # which leaves a text that begins with a space alone
        fast.normalizer = normalizers.Prepend(" ")
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return fast


def _pieces(tokenizer: Pieces) -> HFTokenizer:
    """Spaces are spaces here, so that sentencepiece's mark for them is one more unknown character in a text.

    Unknown characters are cut out first, each by itself: what remains is spelled in known ones, and nothing but these. So the
    names of bytes and special tokens, which the library can't tell from pieces, are never found in a text.
    """
    entries = tokenizer.entries()
    vocabulary = [(piece.replace(SPACE, " "), score) if usable else (piece, NEVER) for piece, score, usable in entries]
    texts = [(piece, score) for (piece, score), (_, _, usable) in zip(vocabulary, entries, strict=True) if usable]
    known = {piece for piece, _ in texts if len(piece) == 1}
    wholes = sorted((piece for piece, score in texts if score == 0 and len(piece) > 1), key=len, reverse=True)
    pattern = "|".join([*map(_spelled, wholes), f"[^{_spelled(sorted(known))}]"])
    fast = HFTokenizer(models.Unigram(vocabulary, unk_id=tokenizer.unk, byte_fallback=True))
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    fast.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    specials = [token for token in (tokenizer.pad, tokenizer.eos, tokenizer.unk) if token is not None]
    fast.add_special_tokens([entries[token][0] for token in sorted(specials)])
    return fast


def _spelled(characters: Iterable[str]) -> str:
    """Characters by their numbers, so that none means anything to a pattern."""
    return "".join(f"\\x{{{ord(character):x}}}" for character in characters)
