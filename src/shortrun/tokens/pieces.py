"""sentencepiece's tokenizers, lossless: a Unigram language model over pieces (Kudo 2018, arXiv 1804.10959), or characters.

No normalisation, no dummy prefix, spaces kept, unknown characters as bytes. sentencepiece trains the same model each
time, which the `tokenizers` library's Unigram does not.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Sequence

import sentencepiece

from shortrun.errors import UserError
from shortrun.recipe import TokenizerConfig
from shortrun.tokens.tokenizer import EOS, PAD, UNK, Tokenizer

SPACE = "\u2581"
"""sentencepiece's own mark for a space. In a document, where it is rare, it is encoded by its bytes so that it comes back."""


class Pieces(Tokenizer):
    """A sentencepiece model, serialised as {"kind": its kind in the recipe, "model": base64}."""

    def __init__(self, serialised: str) -> None:
        super().__init__(serialised)
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        self.vocab_size = self._pieces.vocab_size()
        self.pad, self.eos, self.unk = self._pieces.pad_id(), self._pieces.eos_id(), self._pieces.unk_id()
        self._space_mark = [self._pieces.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]

    def encode_many(self, documents: Sequence[str]) -> list[list[int]]:
        encoded: list[list[int]] = self._pieces.encode(list(documents))
        for index, text in enumerate(documents):
            if SPACE in text:
                first, *others = (self._pieces.encode(part) for part in text.split(SPACE))
                encoded[index] = first + [token for part in others for token in (*self._space_mark, *part)]
        return encoded

    def bytes_of(self, token: int) -> bytes:
        piece = self._pieces.id_to_piece(token)
        if self._pieces.is_byte(token):
            return bytes([int(piece[3:-1], 16)])
        return str(piece).replace(SPACE, " ").encode()

    def is_fallback(self, token: int) -> bool:
        return bool(self._pieces.is_byte(token))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._pieces.decode(list(ids)))

    @classmethod
    def of_model(cls, model: bytes, kind: str) -> Pieces:
        """From a sentencepiece model and its kind in the recipe."""
        return cls(json.dumps({"kind": kind, "model": base64.b64encode(model).decode()}))

    @property
    def model(self) -> bytes:
        """The sentencepiece model, as its library writes it into a file."""
        return base64.b64decode(json.loads(self.serialised)["model"])

    def entries(self) -> list[tuple[str, float, bool]]:
        """Each entry with its log-probability, 0 in whole pieces, and whether a text can be spelled with it."""
        one = self._pieces
        return [
            (one.id_to_piece(n), one.get_score(n), not (one.is_control(n) or one.is_unknown(n) or one.is_byte(n)))
            for n in range(self.vocab_size)
        ]


def train_pieces(documents: Iterable[str], settings: TokenizerConfig) -> Pieces:
    """Learns a Unigram or character model from documents; the same documents give the same file.

    Whole pieces are whole wherever they stand, with and without a space before.
    """
    whole = [prefix + piece.replace(" ", SPACE) for piece in settings.whole_pieces for prefix in (SPACE, "")]
    if settings.kind == "character":
        whole.append(SPACE)  # however small the vocabulary: in bytes, the mark would not come back as a space
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(documents),
            model_writer=model,
            model_type="char" if settings.kind == "character" else "unigram",
            vocab_size=settings.vocab_size,
            hard_vocab_limit=False,  # a small corpus yields fewer pieces
            user_defined_symbols=whole,
            normalization_rule_name="identity",
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            max_sentence_length=2**30,  # longer ones would be left out without a word
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            pad_piece=PAD,
            eos_piece=EOS,
            unk_piece=UNK,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
            raise UserError(
                f"tokenizer.vocab_size = {settings.vocab_size} is too small for the characters of these documents: "
                f"use at least {needed[1]}"
            ) from None
        raise UserError(f"sentencepiece can't train on these documents: {error}") from None
    return Pieces.of_model(model.getvalue(), settings.kind)
