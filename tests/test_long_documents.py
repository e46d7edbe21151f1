"""Long documents pass through: read, tokenized, trained on and scored whole, newlines and all.

A row of these runs holds 16 tokens; most of the documents are longer, some of them a hundred times.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F

from shortrun.model.language_model import LanguageModel
from shortrun.model.make import make_model
from shortrun.recipe import Recipe
from shortrun.runs.checkpoints import load_weights, newest_checkpoint
from shortrun.runs.folder import RunFolder
from shortrun.score.evaluate import document_nats
from shortrun.text.corpus import load_corpus
from shortrun.tokens.batch import Batch
from shortrun.tokens.batches import Batches, make_batches
from shortrun.tokens.rows import IGNORE
from shortrun.train import assembly
from shortrun.train.fit import fit
from shortrun.train.prepare import prepare
from tests.conftest import tiny_recipe

BLOCK, EPOCHS = 16, 3


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """40 documents of one line to 300, with what code and prose have in them."""
    rng = random.Random(5)
    words = "def return the  model\tlearns 日本語 für <eos> x = 1 C++ 🚀 # -- and so on".split(" ")
    made = []
    for number in range(38):
        lines = [" ".join(rng.choices(words, k=rng.randint(0, 9))) for _ in range(1 + number % 5)]
        made.append("\n".join([f"document {number}", *lines, "end"]))
    windows = "\r\n".join(f"line {number}" for number in range(40))
    # one long document is trained on, one is scored
    made[3:3] = ["\n\n".join(f"paragraph {number} of a long one: {rng.choice(words)}" for number in range(150))]
    return [*made, f"{windows}\n\n\n{' '.join(rng.choices(words, k=900))}\nend"]


@pytest.fixture
def recipe(texts: list[str], tmp_path: Path, request: pytest.FixtureRequest) -> Recipe:
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    kind: str = getattr(request, "param", "bpe")
    return tiny_recipe(
        path,
        data={"column": "text", "num_titles": "all", "shuffle": False},
        tokenizer={"kind": kind, "vocab_size": 300},
        batches={"mode": "shuffled", "block_size": BLOCK, "batch_size": 8},
        train={"epochs": EPOCHS},
    )


def test_their_lines_are_kept_and_are_part_of_what_they_are(recipe: Recipe, texts: list[str]) -> None:
    corpus = load_corpus(recipe.data)
    assert corpus.documents == texts
    assert sum(text.count("\n") for text in corpus.split("validation")) > 40
    assert corpus.manifest["cleaning"] == {}
    joined = "\n".join(text.replace("\n", "\0") for text in texts)
    assert corpus.sha256 == hashlib.sha256(joined.encode()).hexdigest()
    (record,) = corpus.manifest["files"]
    assert record["rows"] == len(texts) == 40
    for name, part in (("train", texts[:36]), ("validation", texts[36:])):
        counts = corpus.manifest["splits"][name]
        assert counts["documents"] == len(part)
        assert counts["characters"] == sum(len(text) for text in part)
        assert counts["bytes"] == sum(len(text.encode()) for text in part)


@pytest.mark.parametrize("recipe", ["bpe", "unigram", "character"], indirect=True)
def test_their_ids_give_them_back(recipe: Recipe, texts: list[str]) -> None:
    prepared = prepare(recipe)
    for encoded, expected in ((prepared.train, texts[:36]), (prepared.validation.encoded, texts[36:])):
        begins = encoded.ends_D - encoded.lengths_D
        found = [
            prepared.tokenizer.decode(encoded.ids_N[begin : end - 1].tolist())
            for begin, end in zip(begins, encoded.ends_D, strict=True)
        ]
        assert found == expected
        assert (encoded.ids_N[encoded.ends_D - 1] == prepared.tokenizer.eos).all()
        assert int(encoded.lengths_D.max()) > 50 * BLOCK


@torch.no_grad()
def nats_in_a_loop(model: LanguageModel, ids: list[int], eos: int) -> float:
    """-log p of one document, window by window and target by target, in float64."""
    inputs, targets = [eos, *ids], [*ids, eos]
    total, scored, start = 0.0, 0, 0
    while scored < len(targets):
        stop = min(start + BLOCK, len(targets))
        logits_TV = model(torch.tensor([inputs[start:stop]]))[0].double()
        for place in range(scored, stop):
            total += float(F.cross_entropy(logits_TV[place - start], torch.tensor(targets[place])))
        scored, start = stop, start + BLOCK // 2
    return total


def test_their_nats_are_those_of_a_plain_loop(recipe: Recipe) -> None:
    prepared = prepare(recipe)
    torch.manual_seed(0)
    model = make_model(recipe, prepared.tokenizer.vocab_size, prepared.tokenizer.eos).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)  # predictions that vary a lot
    documents = prepared.validation.encoded
    expected = [
        nats_in_a_loop(model, prepared.tokenizer.encode(text), prepared.tokenizer.eos)
        for text in prepared.validation.documents
    ]
    for tokens_at_once in (1, 100, 10**6):
        nats_D = document_nats(model, documents, tokens_at_once=tokens_at_once)
        assert nats_D == pytest.approx(expected, rel=1e-10)


Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Inputs, and targets of which those that don't count are IGNORE."""


class Recorded:
    """Batches, and the rows of each step that was asked for."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self.by_step = batches, dict[int, list[Row]]()

    @property
    def rows(self) -> list[Row]:
        """Those of all steps, in their order."""
        return [row for _, rows in sorted(self.by_step.items()) for row in rows]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def at(self, step: int) -> Batch:
        batch = self.batches.at(step)
        self.by_step[step] = []
        for rows in batch.micro_batches(100):
            lengths = rows.lengths_B.tolist()
            sides = [[tuple(row.tolist()) for row in torch.split(side, lengths)] for side in (rows.x_N, rows.y_N)]
            self.by_step[step] += zip(*sides, strict=True)
        return batch


def assert_end_to_end(rows: list[Row], encoded: list[tuple[int, ...]], eos: int) -> None:
    """All documents stand one behind the other, in some order for each epoch."""
    an_epoch = sum(len(ids) + 1 for ids in encoded)
    targets = [token for _, y in rows for token in y if token != IGNORE]
    assert len(targets) == EPOCHS * an_epoch
    for epoch in range(EPOCHS):
        taken = targets[epoch * an_epoch : (epoch + 1) * an_epoch]
        ends = [place for place, token in enumerate(taken) if token == eos]
        documents = [tuple(taken[begin + 1 : end]) for begin, end in zip([-1, *ends], ends, strict=False)]
        assert ends[-1] == an_epoch - 1
        assert Counter(documents) == Counter(encoded)


def assert_windows(rows: list[Row], encoded: list[tuple[int, ...]], eos: int) -> None:
    """Each document stands alone in the windows in which it is scored, once for each epoch."""
    windows: Counter[Row] = Counter()
    for ids in encoded:
        inputs, targets = (eos, *ids), (*ids, eos)
        scored, start = 0, 0
        while scored < len(targets):
            stop = min(start + BLOCK, len(targets))
            y = tuple(IGNORE if place < scored else targets[place] for place in range(start, stop))
            windows[inputs[start:stop], y] += EPOCHS
            scored, start = stop, start + BLOCK // 2
    counted = [(x, y) for x, y in rows if set(y) != {IGNORE}]  # without the rows that only fill up
    assert Counter(counted) == windows


@pytest.mark.parametrize("mode", ["shuffled", "documents"])
def test_training_takes_every_target_as_often_as_there_are_epochs(
    mode: Literal["shuffled", "documents"],
    recipe: Recipe,
    texts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And its scores are those of a plain loop over the weights that it saved."""
    recipe = recipe.model_copy(update={"batches": recipe.batches.model_copy(update={"mode": mode})})
    made: list[Recorded] = []

    def recorded(*arguments: Any) -> Recorded:
        made.append(Recorded(make_batches(*arguments)))
        return made[-1]

    monkeypatch.setattr(assembly, "make_batches", recorded)
    prepared = prepare(recipe)
    result = fit(prepared, recipe, tmp_path / "run")
    tokenizer, eos = prepared.tokenizer, prepared.tokenizer.eos

    encoded = [tuple(tokenizer.encode(text)) for text in texts[:36]]
    (batches,) = made
    assert result.budget.tokens == EPOCHS * sum(len(ids) + 1 for ids in encoded)
    (assert_windows if mode == "documents" else assert_end_to_end)(batches.rows, encoded, eos)

    folder = RunFolder.open(tmp_path / "run")
    checkpoint, damaged = newest_checkpoint(folder)
    assert checkpoint
    assert not damaged
    state = torch.load(checkpoint.path / "state.pt", weights_only=True)
    assert state["documents_seen"].tolist() == [EPOCHS] * 36
    model = make_model(recipe, tokenizer.vocab_size, eos).eval()
    load_weights(model, checkpoint)
    model.double()
    expected = [nats_in_a_loop(model, tokenizer.encode(text), eos) for text in texts[36:]]
    assert folder.nats().nats_D == pytest.approx(expected, rel=1e-5)
    assert result.evaluation.nats_D.tolist() == folder.nats().nats_D.tolist()
    assert result.evaluation.loss.characters == sum(len(text) + 5 for text in texts[36:])
    assert result.evaluation.loss.loss == pytest.approx(sum(expected) / result.evaluation.loss.characters, rel=1e-5)
