"""What an exported model has to give again: ids, logits and losses of some documents, and how it goes on from prefixes.

parity.json   each document with its ids and nats; prefixes with what the model writes after them
parity.npz    place_P, positions of the documents' rows, and logits_PV, the logits there

Shapes: D documents, N positions of all rows, P places, T positions of a row, V vocabulary.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shortrun.disk import read_json, write_atomically, write_json
from shortrun.errors import UserError
from shortrun.export.formats import never_written
from shortrun.limits import Shape, require_shape
from shortrun.model.generate import generate
from shortrun.model.language_model import LanguageModel
from shortrun.runs.arrays import read_arrays
from shortrun.runs.trained import Trained
from shortrun.score.evaluate import document_nats
from shortrun.score.losses import EOS_CHARACTERS
from shortrun.text.documents import Documents
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.windows import rows_of, windows_of

DOCUMENTS, PREFIXES, NEW_TOKENS = 20, 5, 32
"""How many documents are compared, how many prefixes are gone on from, and how far."""
LOGITS = 2**22
"""How many logits the file holds at most, 16 MiB, but for those of each row's last position, which are always there."""
MOST_BYTES = 2**30
"""Of the arrays when they are read: they are compressed, and a stranger's may unfold into anything."""
SHAPE: Shape = {
    "titles": [{"text": str, "ids": [int], "nats": float}],
    "greedy": [{"prefix": str, "ids": [int]}],
}
"""What the JSON file must hold."""
CLEAR = 1e-3
"""Where the two likeliest tokens are closer than this, rounding may choose either, and the comparison ends."""
JSON, ARRAYS = "parity.json", "parity.npz"


@dataclass(frozen=True)
class Continuation:
    """What the likeliest tokens after a prefix are."""

    prefix: str
    ids: list[int]
    """Of the tokens that follow it; the document's end is the last where it was reached."""


@dataclass(frozen=True)
class Parity:
    """What the run's own model gives."""

    texts: tuple[str, ...]
    ids: tuple[list[int], ...]
    """Of each document, without its ends."""
    nats_D: NDArray[np.float64]
    place_P: NDArray[np.int64]
    logits_PV: NDArray[np.float32]
    continuations: tuple[Continuation, ...]

    @property
    def loss(self) -> float:
        """Nats per character of these documents."""
        return loss_of(self.texts, self.nats_D)

    def save(self, folder: Path) -> None:
        """Writes both files."""
        titles = zip(self.texts, self.ids, self.nats_D.tolist(), strict=True)
        content: dict[str, Any] = {
            "loss": self.loss,
            "titles": [{"text": text, "ids": ids, "nats": nats} for text, ids, nats in titles],
            "greedy": [{"prefix": one.prefix, "ids": one.ids} for one in self.continuations],
        }
        write_json(folder / JSON, content)
        arrays = io.BytesIO()
        np.savez_compressed(arrays, place_P=self.place_P, logits_PV=self.logits_PV)
        write_atomically(folder / ARRAYS, arrays.getvalue())

    @classmethod
    def read(cls, folder: Path) -> Parity:
        """What `save` wrote; raises UserError where it is not that."""
        content = read_json(folder / JSON)
        require_shape(content, SHAPE, folder / JSON)
        titles, greedy = content["titles"], content["greedy"]
        try:
            arrays = read_arrays(folder / ARRAYS, {"place_P": "i", "logits_PV": "f"}, MOST_BYTES)
            places, logits = arrays["place_P"], arrays["logits_PV"]
            if places.ndim != 1 or not len(places) or logits.ndim != 2 or len(logits) != len(places):
                raise ValueError(f"it holds {places.shape} places and {logits.shape} logits")
            ids = [token for one in (*titles, *greedy) for token in one["ids"]]
            if not titles or not all(0 <= token < logits.shape[1] for token in ids):
                raise ValueError(f"{JSON} holds ids that have no logit")
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"The parity files of {folder} can't be read: {error}") from None
        return cls(
            texts=tuple(title["text"] for title in titles),
            ids=tuple(title["ids"] for title in titles),
            nats_D=np.array([title["nats"] for title in titles]),
            place_P=places,
            logits_PV=logits,
            continuations=tuple(Continuation(one["prefix"], one["ids"]) for one in greedy),
        )


def parity_of(trained: Trained, documents: Documents) -> Parity:
    """What a run's model gives for the first documents."""
    texts = tuple(documents[:DOCUMENTS])
    ids = tuple(trained.tokenizer.encode_losslessly(texts))
    encoded = EncodedDocuments.of(ids, trained.tokenizer.eos)
    lengths_W = windows_of(encoded.lengths_D, trained.model.block_size).lengths_W
    place_P = _places(lengths_W, trained.model.vocab_size)
    return Parity(
        texts=texts,
        ids=ids,
        nats_D=document_nats(trained.model, encoded),
        place_P=place_P,
        logits_PV=logits_at(trained.model, encoded, place_P),
        continuations=_continuations(trained, texts),
    )


def loss_of(texts: tuple[str, ...] | Documents, nats_D: NDArray[np.float64]) -> float:
    """Nats per character of some documents, as `score/losses.py` defines it."""
    return float(nats_D.sum() / sum(len(text) + EOS_CHARACTERS for text in texts))


@torch.no_grad()
def logits_at(model: LanguageModel, encoded: EncodedDocuments, place_P: NDArray[np.int64]) -> NDArray[np.float32]:
    """The logits_PV at some positions of the documents' rows, which go through the model one by one, in order."""
    windows = windows_of(encoded.lengths_D, model.block_size)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    found, first = [], 0
    for window in range(len(windows)):
        x_T = rows_of(encoded, windows, np.array([window])).x_N
        here = place_P[(first <= place_P) & (place_P < first + len(x_T))] - first
        logits_TV: Tensor = model(x_T[None].to(device))[0]
        found.append(logits_TV[torch.from_numpy(here)].float().cpu().numpy())
        first += len(x_T)
    return np.concatenate(found)


def _places(lengths_W: NDArray[np.int64], vocab_size: int) -> NDArray[np.int64]:
    """Every position, or as many as LOGITS has room for, and each row's last among them."""
    positions = int(lengths_W.sum())
    spread = np.linspace(0, positions - 1, min(positions, max(LOGITS // vocab_size, 1))).astype(np.int64)
    return np.union1d(spread, np.cumsum(lengths_W) - 1)


def _continuations(trained: Trained, texts: tuple[str, ...]) -> tuple[Continuation, ...]:
    """After nothing, and after the first halves of some documents."""
    found = []
    for prefix in ["", *(text[: len(text) // 2] for text in texts[: PREFIXES - 1])]:
        ids = trained.tokenizer.encode(prefix)
        if 1 + len(ids) < trained.model.block_size:
            clear = _clear(trained, ids, _greedy(trained, ids))
            found += [Continuation(prefix, clear)] if clear else []
    return tuple(found)


def _greedy(trained: Trained, prefix: list[int]) -> list[int]:
    """The likeliest tokens after a prefix, as many as the block has room for, the document's end among them."""
    most, eos = min(len(prefix) + NEW_TOKENS, trained.model.block_size - 1), trained.tokenizer.eos
    (document,) = generate(
        trained.model, prefix, count=1, eos=eos, banned=never_written(trained), temperature=0, seed=0, max_tokens=most
    )
    return document[len(prefix) :] + [eos] * (len(document) < most)


@torch.no_grad()
def _clear(trained: Trained, prefix: list[int], ids: list[int]) -> list[int]:
    """Those of the tokens before the first that another one comes close to."""
    device = next(trained.model.parameters()).device
    x_1T = torch.tensor([[trained.tokenizer.eos, *prefix, *ids]])[:, :-1]
    logits_TV = trained.model(x_1T.to(device))[0, len(prefix) :].float()
    logits_TV[:, never_written(trained)] = -torch.inf
    first_T, second_T = logits_TV.topk(2, dim=-1).values.unbind(-1)
    close = (first_T - second_T < CLEAR).nonzero()
    return ids[: int(close[0])] if len(close) else ids
