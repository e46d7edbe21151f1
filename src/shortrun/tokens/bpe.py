"""Byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909), by the `tokenizers` library: learned as Mainrun's baseline
learns it, or GPT-2's own vocabulary.

The baseline's pre-tokenizer puts a space before each document; `decode` takes exactly that one away again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HFTokenizer

from shortrun.errors import UserError
from shortrun.recipe import TokenizerConfig
from shortrun.tokens.tokenizer import EOS, PAD, UNK, Tokenizer

GPT2_EOS = "<|endoftext|>"
GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""What the two files of GPT-2's vocabulary are called: on the hub, and as OpenAI published them."""
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?(?:PIECES[^\s\p{L}\p{N}])+|\s+(?!\S)|\s+"
"""The pattern by which GPT-2's byte-level pre-tokenizer cuts text into words; PIECES is where a run of signs must end."""


def _bytes_by_letter() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for.

    Bytes that are printable stand for themselves, and the others are the letters from U+0100 on, in their order.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    themselves = {letter: ord(letter) for letter in letters if ord(letter) < 256}
    others = (byte for byte in range(256) if byte not in themselves.values())
    return themselves | dict(zip(letters[len(themselves) :], others, strict=True))


BYTES = _bytes_by_letter()


class BPE(Tokenizer):
    """Byte-level BPE from the JSON of the `tokenizers` library, with its <eos> or GPT-2's."""

    def __init__(self, serialised: str) -> None:
        super().__init__(serialised)
        self._bpe = HFTokenizer.from_str(serialised)
        self._bpe.encode_special_tokens = True  # special tokens' text inside a document stays text
        self._joined = HFTokenizer.from_str(serialised)
        self.vocab_size = self._bpe.get_vocab_size()
        self.pad, self.unk = self._bpe.token_to_id(PAD), self._bpe.token_to_id(UNK)
        ends = [self._bpe.token_to_id(token) for token in (EOS, GPT2_EOS)]
        self.eos = next((end for end in ends if end is not None), -1)
        if self.eos < 0:
            raise UserError(f"The tokenizer has no {EOS} token, which marks a document's end")
        settings = json.loads(serialised)
        # the baseline's way of putting a space before each document leaves one that has a space as it is: that one is doubled
        self._doubles = bool((settings["pre_tokenizer"] or {}).get("add_prefix_space"))
        self._prefixes = self._doubles or (settings["normalizer"] or {}).get("type") == "Prepend"

    def encode_many(self, documents: Sequence[str]) -> list[list[int]]:
        """Ids of each document, without its end; many at once are encoded in parallel."""
        if self._doubles:
            documents = [" " + text if text.startswith(" ") else text for text in documents]
        return [encoding.ids for encoding in self._bpe.encode_batch_fast(list(documents))]

    def _joined_ids(self, documents: Sequence[str]) -> list[int]:
        """Ids of the documents joined by "<eos>" and ending in one, as Mainrun encodes a split: text "<eos>" is an end."""
        if self._bpe.token_to_id(EOS) is None:
            return super()._joined_ids(documents)
        # "<eos>" cuts the text before anything else does, so one document at a time makes the same ids, and in parallel
        encodings = self._joined.encode_batch_fast([text + EOS for text in documents])
        return [token for encoding in encodings for token in encoding.ids]

    def bytes_of(self, token: int) -> bytes:
        spelled = self._bpe.id_to_token(token) or ""
        if token in (self.pad, self.eos, self.unk) or not BYTES.keys() >= set(spelled):
            return spelled.encode()
        return bytes(BYTES[letter] for letter in spelled)

    def texts_of(self, ids: Sequence[int]) -> list[str]:
        texts = super().texts_of(ids)
        if texts and self._prefixes:
            texts[0] = texts[0].removeprefix(" ")
        return texts

    def decode(self, ids: Sequence[int]) -> str:
        text = str(self._bpe.decode(list(ids), skip_special_tokens=False))
        return text.removeprefix(" ") if self._prefixes else text


def train_bpe(documents: Iterable[str], settings: TokenizerConfig) -> BPE:
    """Learns byte-level BPE merges from documents, as Mainrun's baseline does; the same documents give the same file.

    Whole pieces are cut out before the words are, each with the space before it, and are in the vocabulary both ways.
    """
    bpe = HFTokenizer(models.BPE(unk_token=UNK))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    wholes = [prefix + piece for piece in settings.whole_pieces for prefix in (" ", "")]
    if wholes:
        bpe.normalizer = normalizers.Prepend(" ")
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_whole_or_word(settings.whole_pieces)), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size - len(wholes),
        special_tokens=[PAD, EOS, UNK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if settings.byte_alphabet == "all" else [],
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    serialised = bpe.to_str(pretty=True)
    return BPE(_with_whole_pieces(serialised, wholes) if wholes else serialised)


def _whole_or_word(pieces: Sequence[str]) -> str:
    """A pattern for one of the pieces, the longest first, or else a word.

    A piece that begins or ends in a letter or digit is only found where no further one adjoins: "GPT-4", not "GPT-40". One
    that begins with another sign is found behind such signs too: ".NET" in "(.NET".
    """
    alternatives, inside = [], []
    for piece in sorted(pieces, key=len, reverse=True):
        before = r"(?<![\p{L}\p{N}])" if piece[0].isalnum() else ""
        after = r"(?![\p{L}\p{N}])" if piece[-1].isalnum() else ""
        alternatives.append(f" ?{before}{re.escape(piece)}{after}")
        inside += [] if before else [re.escape(piece) + after]
    return "|".join([*alternatives, GPT2_WORDS.replace("PIECES", f"(?!{'|'.join(inside)})" if inside else "")])


def _with_whole_pieces(serialised: str, wholes: Sequence[str]) -> str:
    """The tokenizer with each piece in its vocabulary, where `ignore_merges` finds a whole word before any merge."""
    tree = json.loads(serialised)
    tree["model"]["ignore_merges"] = True
    vocabulary: dict[str, int] = tree["model"]["vocab"]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for whole in wholes:
        spelled = "".join(word for word, _ in byte_level.pre_tokenize_str(whole))
        vocabulary.setdefault(spelled, len(vocabulary))
    return json.dumps(tree, ensure_ascii=False, indent=2)


def gpt2(settings: TokenizerConfig) -> BPE:
    """GPT-2's 50,257 entries (Radford et al. 2019), from a folder that holds its two files, or from the hub.

    Its <|endoftext|> is a document's end. Raises UserError where the files are not there or not GPT-2's.
    """
    if settings.path is None:
        bpe = _gpt2_of_the_hub()
    else:
        vocabulary, merges = _gpt2_files(Path(settings.path))
        try:
            bpe = HFTokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
        except Exception as error:  # the library raises plain exceptions for every kind of malformed file
            raise UserError(f"{vocabulary} and {merges} are not a vocabulary of GPT-2's kind: {error}") from None
        bpe.add_special_tokens([GPT2_EOS])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    if bpe.get_vocab_size() != settings.vocab_size:
        raise UserError(f"GPT-2's vocabulary has {settings.vocab_size:,} entries, this one {bpe.get_vocab_size():,}")
    return BPE(bpe.to_str(pretty=True))


def _gpt2_files(folder: Path) -> tuple[Path, Path]:
    for vocabulary, merges in GPT2_FILES:
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            return folder / vocabulary, folder / merges
    wanted = " nor ".join(" and ".join(pair) for pair in GPT2_FILES)
    raise UserError(f"tokenizer.path = {str(folder)!r} holds neither {wanted}")


def _gpt2_of_the_hub() -> HFTokenizer:
    try:
        return HFTokenizer.from_pretrained("openai-community/gpt2")
    except Exception as error:  # no network, no cache, no such repository: each raises its own
        raise UserError(
            "GPT-2's vocabulary could not be fetched from the hub; set tokenizer.path to a folder with its vocab.json and "
            f"merges.txt to do without ({type(error).__name__}: {error})"
        ) from None
