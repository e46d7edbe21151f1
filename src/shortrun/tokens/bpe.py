"""Byte-level BPE: a title to token ids and back, exactly.

A title is encoded on its own; its end is the id `eos`, never text, so a title that contains the characters "<eos>" keeps
them. Only `encode_joined`, which the official loss needs, encodes text in which "<eos>" is the end mark, as the original
does. The baseline's pre-tokenizer puts a space before each title; `decode` takes exactly that one away again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from shortrun import recipe
from shortrun.errors import UserError

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"


class Tokenizer:
    """A trained byte-level BPE. Build one with `train_bpe` or `load_tokenizer`."""

    def __init__(self, serialised: str) -> None:
        self._json = serialised
        self._titles = HFTokenizer.from_str(serialised)
        self._titles.encode_special_tokens = True  # special tokens' text inside a title stays text
        self._joined = HFTokenizer.from_str(serialised)
        self.vocab_size: int = self._titles.get_vocab_size()
        self.pad, self.eos, self.unk = (self._special(token) for token in (PAD, EOS, UNK))

    def _special(self, token: str) -> int:
        token_id = self._titles.token_to_id(token)
        if token_id is None:
            raise UserError(f"The tokenizer has no {token} token; shortrun needs {PAD}, {EOS} and {UNK}")
        return int(token_id)

    @property
    def sha256(self) -> str:
        """Fingerprint of the tokenizer's file."""
        return hashlib.sha256(self._json.encode()).hexdigest()

    def encode(self, title: str) -> list[int]:
        """Ids of one title, without its end."""
        return self.encode_many([title])[0]

    def encode_many(self, titles: Iterable[str]) -> list[list[int]]:
        """Ids of each title, without its end; many at once are encoded in parallel."""
        # A title that begins with a space would be left as it is; doubling the space keeps the one that is the title's.
        marked = [" " + title if title.startswith(" ") else title for title in titles]
        return [encoding.ids for encoding in self._titles.encode_batch_fast(marked)]

    def encode_joined(self, titles: Iterable[str]) -> list[int]:
        """Ids of the titles joined by "<eos>" and ending in one, as Mainrun encodes a split: one stream."""
        return list(self._joined.encode("".join(title + EOS for title in titles)).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of one title's ids: `decode(encode(title)) == title` for every title the gate lets through."""
        return str(self._titles.decode(list(ids), skip_special_tokens=False)).removeprefix(" ")

    def require_lossless(self, titles: Sequence[str]) -> None:
        """Raises UserError, showing a title, unless each title comes back from its ids unchanged and without <unk>."""
        for title, ids in zip(titles, self.encode_many(titles), strict=True):
            back = self.decode(ids)
            if back != title or self.unk in ids:
                raise UserError(
                    "The tokenizer does not give back every title, so a loss would not be comparable and none is "
                    f"computed.\n  title:   {title!r}\n  decoded: {back!r}\n"
                    '(the baseline\'s tokenizer knows only the bytes it was fitted on; tokenizer.byte_alphabet = "all" '
                    "knows all 256)"
                )

    def save(self, path: Path) -> None:
        """Writes the tokenizer in the format of the `tokenizers` library."""
        path.write_text(self._json, encoding="utf-8")


def train_bpe(titles: Iterable[str], settings: recipe.Tokenizer) -> Tokenizer:
    """Learns byte-level BPE merges from titles, as Mainrun's baseline does; the same titles give the same file."""
    bpe = HFTokenizer(models.BPE(unk_token=UNK))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=[PAD, EOS, UNK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if settings.byte_alphabet == "all" else [],
        show_progress=False,
    )
    bpe.train_from_iterator(titles, trainer)
    return Tokenizer(bpe.to_str(pretty=True))


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer file written by `save` (or by the `tokenizers` library, with the same special tokens)."""
    try:
        return Tokenizer(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no tokenizer file {path}") from None
    except UserError:
        raise
    except Exception as error:  # the library raises plain Exception for every kind of malformed file
        raise UserError(f"{path} is not a tokenizer file: {error}") from None
