"""A text is read as it is scored: the surprisals of its tokens are its nats, whatever the model, the text and its length."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shortrun.errors import UserError
from shortrun.model.gpt import GPT
from shortrun.recipe import ModelConfig, Recipe
from shortrun.recipe_file import to_toml
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import Trained, load_checkpoints, load_trained
from shortrun.score.evaluate import ScoringSet, document_nats
from shortrun.score.predictions import predictions
from shortrun.text.documents import Documents
from shortrun.tokens.encoded import EncodedDocuments, encoded_split
from shortrun.tokens.kinds import make_tokenizer
from shortrun.tokens.tokenizer import Tokenizer
from shortrun.view.diagnosis import diagnose
from shortrun.view.reading import read, read_each
from tests.conftest import run_command, tiny_recipe
from tests.test_scores import BLOCK, EOS, VOCAB, Headless, a_model, some_documents

LONG = "Show HN: a long one, 日本語 and all. " * 30
HOSTILE = ["", "<eos>", "a <eos> b", "[red]x[/red] [bold]", "\x1b[31mred\x08\x07", "\u2581", " leading", "für 🚀", "\n"]


@pytest.fixture(scope="module", params=["shuffled", "documents"])
def run(request: pytest.FixtureRequest, whole: Callable[[str], Path]) -> Path:
    return whole(request.param)


@pytest.fixture(scope="module")
def trained(run: Path) -> Trained:
    return load_trained(run)


def test_surprisals_add_up_to_what_scoring_gives(trained: Trained) -> None:
    texts = ["Show HN: small models für Zürich", LONG, *HOSTILE]
    scored = ScoringSet.of(Documents.of(texts), trained.tokenizer).evaluate(trained.model, trained.recipe.batches)
    readings = read_each(trained, texts)
    assert len(readings[1].tokens) > 20 * trained.model.block_size
    for text, reading, nats in zip(texts, readings, scored.nats_D, strict=True):
        assert reading.nats == pytest.approx(nats, abs=1e-5)
        assert reading.loss == pytest.approx(nats / (len(text) + 5), abs=1e-5)
        assert "".join(token.text for token in reading.tokens) == reading.text == text
        assert [token.id for token in reading.tokens] == [*trained.tokenizer.encode(text), trained.tokenizer.eos]
        assert read(trained, text).nats == pytest.approx(nats, abs=1e-5)


def test_it_agrees_with_the_nats_in_the_run_folder(run: Path, trained: Trained) -> None:
    folder = RunFolder.open(run)
    readings = read_each(trained, folder.corpus().split("validation"))
    nats = folder.nats()
    assert [reading.nats for reading in readings] == pytest.approx(nats.nats_D.tolist(), abs=1e-5)
    total = sum(reading.nats for reading in readings) / sum(reading.characters for reading in readings)
    assert total == pytest.approx(nats.loss, abs=1e-6)


def test_guesses_are_those_before_the_token_was_seen(trained: Trained) -> None:
    """The model itself, asked with each beginning of a text, says the same."""
    reading = read(trained, "Ask why Rust is", top=trained.model.vocab_size)
    ids = [trained.tokenizer.eos, *(token.id for token in reading.tokens[:-1])]
    assert len(ids) <= trained.model.block_size
    for place, token in enumerate(reading.tokens):
        with torch.no_grad():
            p_V = trained.model(torch.tensor([ids[: place + 1]]))[0, -1].double().softmax(dim=-1)
        assert sum(guess.probability for guess in token.guesses) == pytest.approx(1, abs=1e-5)
        assert [guess.probability for guess in token.guesses] == pytest.approx(
            p_V[[g.id for g in token.guesses]].tolist(), rel=1e-4
        )
        assert token.guesses[token.rank - 1].id == token.id
        assert token.probability == pytest.approx(token.guesses[token.rank - 1].probability, rel=1e-5)
        assert [guess.probability for guess in token.guesses] == sorted(
            (g.probability for g in token.guesses), reverse=True
        )
    assert reading.next == reading.tokens[-1].guesses
    assert {guess.token for guess in reading.next} >= {"<eos>", "<pad>"}


def test_what_comes_later_in_a_long_text_changes_nothing(trained: Trained) -> None:
    """A prediction in the middle is that of the text that ends there."""
    ids = trained.tokenizer.encode(LONG)
    whole = read(trained, LONG)
    for place in (1, 15, 16, 17, 40, 100):
        beginning = trained.tokenizer.decode(ids[:place])
        if trained.tokenizer.encode(beginning) != ids[:place]:
            continue
        found = read(trained, beginning).next
        assert [guess.id for guess in found] == [guess.id for guess in whole.tokens[place].guesses]
        assert [g.probability for g in found] == pytest.approx(
            [g.probability for g in whole.guesses_at(place)], rel=1e-4
        )


def test_every_checkpoint_reads(run: Path) -> None:
    models = load_checkpoints(run, every=True)
    readings = [read(model, "Show HN") for model in models]
    assert len(readings) > 1
    assert [reading.step for reading in readings] == [model.step for model in models]
    assert len({reading.nats for reading in readings}) == len(readings)


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize("tokens_at_once", [1, 30, 10**6])
def test_predictions_are_of_every_target_once(headless: bool, tokens_at_once: int) -> None:
    """By a model with a linear head and by one without, and however many windows go through it at once."""
    gpt = a_model()
    model = Headless(gpt) if headless else gpt
    encoded = some_documents(20, longest=6 * BLOCK)
    documents = EncodedDocuments.of(encoded, EOS)
    nats_N = np.full(len(documents.ids_N), np.nan)
    model.train()
    for at_C, targets_C, p_CV, nats_C in predictions(model, documents, tokens_at_once=tokens_at_once):
        assert np.isnan(nats_N[at_C]).all()
        nats_N[at_C] = nats_C
        assert targets_C.tolist() == documents.ids_N[at_C].tolist()
        assert p_CV.shape == (len(at_C), VOCAB)
        assert torch.allclose(-p_CV.gather(1, targets_C[:, None])[:, 0].log(), nats_C)
        assert not p_CV.requires_grad
    assert model.training
    expected = document_nats(gpt, documents)
    found = np.add.reduceat(nats_N, documents.ends_D - documents.lengths_D)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-10)


@settings(deadline=None, max_examples=30)
@given(text=st.text(max_size=60))
@pytest.mark.parametrize("kind", ["bpe", "unigram", "character"])
def test_any_text_is_read_whole(kind: str, text: str, titles: list[str]) -> None:
    model = untrained(kind, titles)
    reading = read(model, text, top=2)
    assert "".join(token.text for token in reading.tokens) == text
    nats = document_nats(model.model, EncodedDocuments.of([model.tokenizer.encode(text)], model.tokenizer.eos))
    assert reading.nats == pytest.approx(nats[0], abs=1e-5)
    assert reading.tokens[-1].token == "<eos>"


MADE: dict[str, Trained] = {}


def untrained(kind: str, titles: list[str]) -> Trained:
    """A model of random weights whose predictions vary a lot, made once for each kind of tokenizer."""
    if kind not in MADE:
        recipe = tiny_recipe(None, tokenizer={"kind": kind, "vocab_size": 320})
        MADE[kind] = with_tokenizer(recipe, make_tokenizer(titles, recipe.tokenizer))
    return MADE[kind]


def with_tokenizer(recipe: Recipe, tokenizer: Tokenizer) -> Trained:
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=1, n_head=2, d_model=16), tokenizer.vocab_size, 16, tokenizer.eos)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return Trained(recipe, tokenizer, model.eval(), 0)


def test_a_text_that_does_not_come_back_is_refused() -> None:
    recipe = tiny_recipe(None, tokenizer={"vocab_size": 60, "byte_alphabet": "seen"})
    lossy = with_tokenizer(recipe, make_tokenizer(["only these letters"] * 9, recipe.tokenizer))
    assert read(lossy, "these").nats > 0
    with pytest.raises(UserError, match="does not give back every document"):
        read(lossy, "日本")


# the command


def told(*args: str | Path) -> dict[str, Any]:
    done = run_command("predict", *args, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(*args: str | Path) -> str:
    done = run_command("predict", *args)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_predict_prints_what_the_library_says(run: Path, trained: Trained) -> None:
    found = told(run, "Show HN: Rust", "--top", "4")
    reading = read(trained, "Show HN: Rust", top=4)
    assert found["loss"] == pytest.approx(reading.loss)
    assert found["nats"] == pytest.approx(sum(token["surprisal"] for token in found["tokens"]))
    assert "".join(token["text"] for token in found["tokens"]) == "Show HN: Rust"
    assert [guess["token"] for guess in found["next"]] == [guess.token for guess in reading.next]
    assert [len(token["guesses"]) for token in found["tokens"]] == [4] * len(reading.tokens)
    assert "diagnosis" not in found
    shown = run_command("predict", run, "Show HN: Rust", "--top", "4").stdout
    assert f"{reading.loss:.4f} nats per character" in shown
    assert "what comes next" in shown
    assert "surprisal in nats: 0 to 1  1 to 3" in shown


def test_a_validation_document_shows_what_really_came(run: Path, trained: Trained) -> None:
    documents = RunFolder.open(run).corpus().split("validation")
    number, reading = next(
        (number, reading)
        for number, reading in enumerate(read_each(trained, documents))
        if len(reading.tokens) > trained.model.block_size
    )
    for at in (0, 5, len(reading.tokens) - 1):
        found = told(run, "--val", str(number), "--at", str(at))
        assert found["text"] == reading.text
        assert len(found["tokens"]) == at
        actual = reading.tokens[at]
        assert found["actual"]["token"] == actual.token
        assert found["actual"]["rank"] == actual.rank
        assert found["actual"]["probability"] == pytest.approx(actual.probability, rel=1e-4)
        assert [guess["id"] for guess in found["next"]] == [guess.id for guess in actual.guesses]
        assert (
            f"number {actual.rank:,} with" in run_command("predict", run, "--val", str(number), "--at", str(at)).stdout
        )
    last = len(reading.tokens) - 1
    assert f"has {last} tokens, so the end comes at {last}" in refused(run, "--val", str(number), "--at", str(last + 1))
    assert f"--val {len(documents)}: there are {len(documents)} valid" in refused(run, "--val", str(len(documents)))
    assert told(run, "--val", str(number))["actual"] is None


@pytest.mark.parametrize("text", [*HOSTILE, LONG])
def test_hostile_texts_are_shown_as_they_are(text: str, whole: Callable[[str], Path]) -> None:
    done = run_command("predict", whole("shuffled"), text)
    assert done.returncode == 0, done.stderr
    assert not [letter for letter in done.stdout if not (letter.isprintable() or letter == "\n")]
    assert told(whole("shuffled"), text)["text"] == text
    if "[red]" in text:
        assert "[red]x[/red] [bold]<eos>" in done.stdout
    if text == LONG:
        assert "the last 100 of" in done.stdout


def test_mistakes_of_predict_are_sentences(run: Path) -> None:
    assert "--top 0 must be at least 1" in refused(run, "--top", "0")
    assert "--at -1 must be at least 0" in refused(run, "x", "--at", "-1")
    assert "give one of them" in refused(run, "x", "--val", "0")
    assert "not valid UTF-8" in refused(run, "\udcff")
    assert "is not a run" in refused("/nowhere", "x")
    assert "did you mean 'svg'?" in refused("/nowhere", "x", "--chart", "a.svgg"), "before the run is read"
    assert "there is no folder /no" in refused("/nowhere", "x", "--chart", "/no/a.svg")


def test_predict_draws(whole: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("altair")
    run = whole("shuffled")
    for number, words in enumerate([["a \x08 'q\" \\ <eos>"], ["--val", "0", "--at", "0"]]):
        told(run, *words, "--chart", tmp_path / f"{number}.svg")
        svg = (tmp_path / f"{number}.svg").read_text(encoding="utf-8")
        assert "what comes next" in svg
        assert ("surprisal" in svg) == (number != 1)
        assert "\x08" not in svg


# has it learnt more than frequencies?


class Frequencies(GPT):
    """Predicts the same whatever it reads: given logits."""

    def __init__(self, logits_V: torch.Tensor, eos: int) -> None:
        super().__init__(ModelConfig(n_layer=1, n_head=1, d_model=8), len(logits_V), 16, eos)
        self.logits_V = logits_V

    @property
    def head_VD(self) -> torch.Tensor:
        return self.logits_V[:, None]

    def hidden(self, rows: Any) -> torch.Tensor:
        return torch.ones(len(rows.x_N), 1)


def test_a_model_of_frequencies_is_told_apart(whole: Callable[[str], Path]) -> None:
    run = whole("shuffled")
    folder, trained = RunFolder.open(run), load_trained(run)
    corpus = folder.corpus()
    counts = np.bincount(
        encoded_split(corpus, "train", trained.tokenizer).ids_N, minlength=trained.tokenizer.vocab_size
    )
    eos = trained.tokenizer.eos
    only = Trained(trained.recipe, trained.tokenizer, Frequencies(torch.tensor(counts + 1.0).log().float(), eos), 1)
    found = diagnose(only, corpus)
    assert found.gain == pytest.approx(0, abs=1e-6)
    assert found.distance == pytest.approx(0, abs=1e-5)
    assert found.average_distance == pytest.approx(0, abs=1e-5)
    assert found.top_is_end == float(counts.argmax() == eos)
    assert found.verdict.endswith(
        "has learnt no more than how frequent each token is: its loss is that of frequencies alone."
    )
    for nats, told in (
        (1.04, "no more than how frequent each token is: its loss is 4.0% above that of frequencies alone"),
        (0.96, "little more than how frequent each token is: its loss is 4.0% below that of frequencies alone"),
    ):
        assert told in replace(found, nats_per_token=nats * found.frequency_nats_per_token).verdict

    always_end = torch.zeros(len(counts))
    always_end[eos] = 9.0
    worse = diagnose(Trained(trained.recipe, trained.tokenizer, Frequencies(always_end, eos), 1), corpus)
    assert worse.top_is_end == 1
    assert worse.gain < 0
    assert "has not learnt how frequent" in worse.verdict


def test_its_numbers_are_those_of_the_run(run: Path, trained: Trained) -> None:
    folder = RunFolder.open(run)
    found = diagnose(trained, folder.corpus())
    scores = folder.scores()
    assert scores is not None
    assert (found.documents, found.tokens) == (scores["documents"], scores["targets"])
    assert found.nats_per_token == pytest.approx(scores["nats"] / scores["targets"], rel=1e-5)
    assert found.ends == pytest.approx(scores["documents"] / scores["targets"])
    train = encoded_split(folder.corpus(), "train", trained.tokenizer).ids_N.tolist()
    validation = encoded_split(folder.corpus(), "validation", trained.tokenizer).ids_N.tolist()
    size = trained.tokenizer.vocab_size
    expected = -sum(math.log((train.count(token) + 1) / (len(train) + size)) for token in validation) / len(validation)
    assert found.frequency_nats_per_token == pytest.approx(expected, rel=1e-6)
    assert 0 < found.average_distance < found.distance + 1e-6 < 1, "an average is no farther than what it is of"
    few = diagnose(trained, folder.corpus(), tokens=40)
    assert few.tokens <= 40 < found.tokens
    assert few.validation_documents == found.documents > few.documents
    assert diagnose(trained, folder.corpus(), tokens=1).documents == 1


def test_a_diagnosis_is_left_out_where_the_data_is_gone(tmp_path: Path, titles: list[str]) -> None:
    file, recipe = tmp_path / "titles.txt", tmp_path / "tiny.toml"
    file.write_text("\n".join(titles) + "\n", encoding="utf-8")
    recipe.write_text(to_toml(tiny_recipe(file, train={"epochs": 1})))
    run = tmp_path / "run"
    assert run_command("train", recipe, "--out", run, "--max-steps", "2").returncode == 0
    found = told(run, "Show", "--diagnose")["diagnosis"]
    assert found["verdict"] in run_command("predict", run, "Show", "--diagnose").stdout
    assert found["documents"] == 40
    file.unlink()
    done = run_command("predict", run, "Show", "--diagnose", "--json")
    assert done.returncode == 0
    assert "No diagnosis" in done.stderr
    assert json.loads(done.stdout)["diagnosis"] is None
    assert "There is no file" in refused(run, "--val", "0")
