"""Exported models, read back by the libraries that others use. None of our model code takes part.

To scoring each is one more `LanguageModel`, so that the same windows and the same cross-entropy give its loss.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shortrun.errors import ShortrunError
from shortrun.export.fast_tokenizer import encode_fast, read_fast_tokenizer
from shortrun.export.formats import GRAPH
from shortrun.model.language_model import Cache, LanguageModel


class Exported(LanguageModel):
    """A model that was handed on, with its tokenizer."""

    def __init__(self, facts: dict[str, Any]) -> None:
        """facts: `model` of export.json."""
        super().__init__()
        self.block_size, self.vocab_size, self.eos = facts["block_size"], facts["vocab_size"], facts["eos"]
        self.banned: list[int] = facts["never_written"]

    @abstractmethod
    def encode(self, documents: Sequence[str]) -> list[list[int]]:
        """Ids of each document, without its ends."""

    @abstractmethod
    def greedy(self, prefix: list[int], count: int) -> list[int]:
        """The likeliest `count` tokens after `eos + prefix`, one by one; fewer where the document ends, its end the last."""

    def new_cache(self) -> Cache:
        raise NotImplementedError

    def flops_per_token(self, row_length: float) -> float:
        raise NotImplementedError


class OfTransformers(Exported):
    """Through AutoModelForCausalLM and AutoTokenizer."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        super().__init__(facts)
        import transformers

        bars, where = transformers.utils.logging.is_progress_bar_enabled(), str(folder.absolute())
        transformers.utils.logging.disable_progress_bar()
        # neither code of the folder's own nor weights that are pickled
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self._model = transformers.AutoModelForCausalLM.from_pretrained(where, use_safetensors=True, **safe).float()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(where, **safe)
        if bars:
            transformers.utils.logging.enable_progress_bar()

    def encode(self, documents: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(list(documents), add_special_tokens=False)["input_ids"]
        return found

    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:
        assert cache is None
        logits_BTV: Tensor = self._model(input_ids=x_BT, use_cache=False).logits
        return logits_BTV

    def greedy(self, prefix: list[int], count: int) -> list[int]:
        x_1T = torch.tensor([[self.eos, *prefix]])
        found = self._model.generate(
            input_ids=x_1T, attention_mask=torch.ones_like(x_1T), do_sample=False, max_length=x_1T.shape[1] + count
        )
        ids: list[int] = found[0, x_1T.shape[1] :].tolist()
        return ids


class OfOnnxruntime(Exported):
    """Through onnxruntime and the `tokenizers` library."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        super().__init__(facts)
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(folder / GRAPH), providers=["CPUExecutionProvider"])
        self._tokenizer = read_fast_tokenizer(folder)

    def encode(self, documents: Sequence[str]) -> list[list[int]]:
        return encode_fast(self._tokenizer, documents)

    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:
        assert cache is None
        (logits_BTV,) = self._session.run(["logits"], {"ids": x_BT.numpy()})
        return torch.from_numpy(logits_BTV)

    def greedy(self, prefix: list[int], count: int) -> list[int]:
        ids = [self.eos, *prefix]
        for _ in range(count):
            logits_V = self(torch.tensor([ids]))[0, -1]
            logits_V[self.banned] = -torch.inf
            ids.append(int(logits_V.argmax()))
            if ids[-1] == self.eos:
                break
        return ids[1 + len(prefix) :]


READERS: dict[str, type[OfTransformers] | type[OfOnnxruntime]] = {"hf": OfTransformers, "onnx": OfOnnxruntime}


def read_exported(folder: Path, format: str, facts: dict[str, Any]) -> Exported:
    """Raises ShortrunError, with the library's own words, where it can't read the model."""
    try:
        return READERS[format](folder, facts).eval()
    except Exception as error:  # each library raises its own for every kind of malformed file
        raise ShortrunError(f"{folder} can't be read as an export: {type(error).__name__}: {error}") from None
