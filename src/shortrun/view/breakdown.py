"""Where a run's loss lies: which places, words and titles cost the nats, so that the largest share is attacked first.

    found = breakdown(Path("runs/small"))
    found.groups["kind of word"], found.case_share, found.hardest

Every token of the split belongs to one row of each group, so a group's shares add up to 1 and its parts of the loss to the loss.

Shapes: N tokens of all documents, D documents, C targets at a time, V vocabulary.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shortrun.errors import UserError
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import Trained, load_trained
from shortrun.score.losses import EOS_CHARACTERS
from shortrun.score.predictions import predictions
from shortrun.text.corpus import Corpus
from shortrun.text.documents import Documents
from shortrun.tokens.encoded import EncodedDocuments, encoded_split

END = "the end"
SEEN = ((0, "never seen"), (9, "1 to 9 times"), (99, "10 to 99"), (999, "100 to 999"), (np.inf, "1,000 or more"))
PLACES = ((1, "1"), (2, "2"), (4, "3 and 4"), (8, "5 to 8"), (16, "9 to 16"), (np.inf, "17 and later"))
HARDEST = 10


@dataclass(frozen=True)
class Part:
    """Tokens of one kind, and what they cost."""

    name: str
    tokens: int
    nats: float
    share: float
    """Of the split's nats."""
    loss: float
    """What they add to the loss, in nats per character of the whole split."""

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens


@dataclass(frozen=True)
class HardTitle:
    """A document and its own loss."""

    text: str
    loss: float
    nats: float


@dataclass(frozen=True)
class Breakdown:
    """A model's nats on a split, divided up in several ways."""

    run: str
    step: int
    split: str
    documents: int
    loss: float
    groups: dict[str, tuple[Part, ...]]
    case_nats: float
    """Nats that only decide between upper and lower case: -log p of a token among all that differ from it in case alone."""
    case_share: float
    hardest: tuple[HardTitle, ...]
    """The documents of the highest loss in nats per character, highest first."""
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        told = asdict(self)
        told["groups"] = {
            name: [{**asdict(part), "nats_per_token": part.nats_per_token} for part in parts]
            for name, parts in self.groups.items()
        }
        return told


def breakdown(run: Path, split: str = "validation", hardest: int = HARDEST) -> Breakdown:
    """Divides up the loss of a run's newest checkpoint on one of its splits.

    Raises UserError for a run that can't be read, and for a split that it lacks.
    """
    trained = load_trained(run)
    corpus = RunFolder.open(run).corpus()
    documents = corpus.split(split)
    if not len(documents):
        raise UserError(f"{run} has no {split} documents; its recipe says how many there are")
    encoded = encoded_split(corpus, split, trained.tokenizer)
    nats_N, case_N = _nats(trained, encoded)
    nats, characters = float(nats_N.sum()), int(documents.lengths_D().sum()) + EOS_CHARACTERS * len(documents)
    labels = _labels(trained, corpus, documents, encoded)
    begins_D = encoded.ends_D - encoded.lengths_D
    nats_D = np.add.reduceat(nats_N, begins_D)
    loss_D = nats_D / (documents.lengths_D() + EOS_CHARACTERS)
    return Breakdown(
        run=str(run),
        step=trained.step,
        split=split,
        documents=len(documents),
        loss=nats / characters,
        groups={name: _parts(names, label_N, nats_N, characters) for name, (names, label_N) in labels.items()},
        case_nats=float(case_N.sum()),
        case_share=float(case_N.sum()) / nats,
        hardest=tuple(
            HardTitle(documents[at], float(loss_D[at]), float(nats_D[at]))
            for at in np.argsort(-loss_D, kind="stable")[:hardest].tolist()
        ),
        notes=trained.notes,
    )


def _nats(trained: Trained, encoded: EncodedDocuments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """-log p of each token, and the part of it that only decides between upper and lower case."""
    nats_N, case_N = np.zeros(len(encoded.ids_N)), np.zeros(len(encoded.ids_N))
    folded_V = _folded(trained)
    with trained.computing():
        for at_C, targets_C, p_CV, nats_C in predictions(trained.model, encoded):
            group_V = folded_V.to(p_CV.device)
            mass_CV = torch.zeros_like(p_CV).index_add_(1, group_V, p_CV)
            mass_C = mass_CV.gather(1, group_V[targets_C][:, None])[:, 0]
            nats_N[at_C] = nats_C.double().cpu()
            case_N[at_C] = (nats_C + mass_C.log()).double().clamp(min=0).cpu()
    return nats_N, case_N


def _folded(trained: Trained) -> torch.Tensor:
    """int64 (V,): one number for all tokens that differ in case alone."""
    tokenizer = trained.tokenizer
    numbers: dict[tuple[bool, bytes], int] = {}
    special = {tokenizer.eos, tokenizer.pad, tokenizer.unk}

    def number(token: int) -> int:
        spelled = tokenizer.bytes_of(token)
        lower = spelled.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")
        key = (True, str(token).encode()) if token in special or tokenizer.is_fallback(token) else (False, lower)
        return numbers.setdefault(key, len(numbers))

    return torch.tensor([number(token) for token in range(tokenizer.vocab_size)])


_Labels = tuple[Sequence[str], NDArray[np.int64]]
"""The names of a group's parts, and of each token the number of its part."""


def _labels(trained: Trained, corpus: Corpus, documents: Documents, encoded: EncodedDocuments) -> dict[str, _Labels]:
    tokenizer, training = trained.tokenizer, corpus.split("train")
    begins_D = encoded.ends_D - encoded.lengths_D
    place_N = np.arange(len(encoded.ids_N)) - np.repeat(begins_D, encoded.lengths_D) + 1
    counts_V = np.bincount(encoded_split(corpus, "train", tokenizer).ids_N, minlength=tokenizer.vocab_size)
    words = Counter(itertools.chain.from_iterable(document.split() for document in training))
    known = set(training)
    kinds, seen, parts = [], [], []
    for begin, end, document in zip(begins_D.tolist(), encoded.ends_D.tolist(), documents, strict=True):
        for word, first in _words(document, tokenizer.texts_of(encoded.ids_N[begin : end - 1].tolist())):
            kinds.append(kind(word))
            seen.append(words[word] if word else 0)
            parts.append("first piece" if first else "later pieces")
        kinds.append(END)
        seen.append(-1)
        parts.append(END)
    is_end_N = encoded.ids_N == encoded.eos
    repeated_D = np.array([int(document in known) for document in documents])
    return {
        "place in the document": _with_end(_binned(place_N, PLACES), is_end_N),
        "the token in training": _with_end(_binned(counts_V[encoded.ids_N], SEEN), is_end_N),
        "its word in training": _with_end(_binned(np.array(seen), SEEN), is_end_N),
        "kind of word": _named(kinds),
        "piece of the word": _named(parts),
        "the document": (("not in training", "also in training"), np.repeat(repeated_D, encoded.lengths_D)),
    }


def kind(word: str) -> str:
    """What a word between spaces looks like."""
    letters = "".join(filter(str.isalpha, word))
    if any(map(str.isdigit, word)):
        return "with a digit"
    if not letters:
        return "punctuation"
    if letters.islower():
        return "lower case"
    if len(letters) > 1 and letters.isupper():
        return "all capitals"
    if letters[0].isupper() and (letters[1:].islower() or len(letters) == 1):
        return "capitalised"
    return "other letters" if letters.lower() == letters.upper() else "mixed case"


def _words(document: str, texts: Iterable[str]) -> list[tuple[str, bool]]:
    """Of each token, the word that its first visible character lies in, and whether it begins that word."""
    spans = [(found.start(), found.end()) for found in re.finditer(r"\S+", document)]
    words, at, found = iter(spans), 0, []
    begin, end = next(words, (len(document), len(document)))
    for text in texts:
        first = at + len(text) - len(text.lstrip())
        at += len(text)
        while first >= end and end < len(document):
            begin, end = next(words, (len(document), len(document)))
        found.append((document[begin:end], first <= begin))
    return found


def _binned(number_N: NDArray[Any], bins: Sequence[tuple[float, str]]) -> _Labels:
    label_N = np.searchsorted(np.array([most for most, _ in bins]), number_N)
    return [name for _, name in bins], label_N.astype(np.int64)


def _with_end(labels: _Labels, is_end_N: NDArray[np.bool_]) -> _Labels:
    names, label_N = labels
    return [*names, END], np.where(is_end_N, len(names), label_N)


def _named(name_N: Sequence[str]) -> _Labels:
    names, label_N = np.unique(np.array(name_N), return_inverse=True)
    return names.tolist(), label_N.astype(np.int64)


def _parts(
    names: Sequence[str], label_N: NDArray[np.int64], nats_N: NDArray[np.float64], characters: int
) -> tuple[Part, ...]:
    tokens_P = np.bincount(label_N, minlength=len(names))
    nats_P = np.bincount(label_N, weights=nats_N, minlength=len(names))
    return tuple(
        Part(name, int(tokens), float(nats), float(nats / nats_N.sum()), float(nats / characters))
        for name, tokens, nats in zip(names, tokens_P, nats_P, strict=True)
        if tokens
    )
