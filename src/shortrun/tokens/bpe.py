"""Byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909), by the `tokenizers` library, as Mainrun's baseline has it.

The baseline's pre-tokenizer puts a space before each title; `decode` takes exactly that one away again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from shortrun import recipe
from shortrun.errors import UserError
from shortrun.tokens.tokenizer import EOS, PAD, UNK, Tokenizer


class BPE(Tokenizer):
    """Byte-level BPE from the JSON of the `tokenizers` library."""

    def __init__(self, serialised: str) -> None:
        super().__init__(serialised)
        self._titles = HFTokenizer.from_str(serialised)
        self._titles.encode_special_tokens = True  # special tokens' text inside a title stays text
        self._joined = HFTokenizer.from_str(serialised)
        self.vocab_size = self._titles.get_vocab_size()
        self.pad, self.eos, self.unk = (self._special(token) for token in (PAD, EOS, UNK))

    def _special(self, token: str) -> int:
        token_id = self._titles.token_to_id(token)
        if token_id is None:
            raise UserError(f"The tokenizer has no {token} token; shortrun needs {PAD}, {EOS} and {UNK}")
        return int(token_id)

    def encode_many(self, titles: Iterable[str]) -> list[list[int]]:
        """Ids of each title, without its end; many at once are encoded in parallel."""
        # A title that begins with a space would be left as it is; doubling the space keeps the one that is the title's.
        marked = [" " + title if title.startswith(" ") else title for title in titles]
        return [encoding.ids for encoding in self._titles.encode_batch_fast(marked)]

    def encode_joined(self, titles: Iterable[str]) -> list[int]:
        """Ids of the titles joined by "<eos>" and ending in one, as Mainrun encodes a split: text "<eos>" is an end."""
        return list(self._joined.encode("".join(title + EOS for title in titles)).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._titles.decode(list(ids), skip_special_tokens=False)).removeprefix(" ")


def train_bpe(titles: Iterable[str], settings: recipe.Tokenizer) -> BPE:
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
    return BPE(bpe.to_str(pretty=True))
