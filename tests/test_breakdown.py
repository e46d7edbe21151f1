"""Where a loss lies: every way to divide it up adds up to it, and each token lies in the part that it belongs to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.errors import UserError
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import load_trained
from shortrun.tokens.encoded import encoded_split
from shortrun.view.breakdown import END, Breakdown, _words, breakdown, kind
from shortrun.view.reading import read_each
from tests.conftest import run_command, scores_of


@pytest.fixture(scope="module")
def run(whole: Callable[[str], Path]) -> Path:
    return whole("shuffled")


@pytest.fixture(scope="module")
def found(run: Path) -> Breakdown:
    return breakdown(run)


def test_every_division_adds_up_to_the_loss_and_the_tokens(run: Path, found: Breakdown) -> None:
    assert found.loss == pytest.approx(scores_of(run)["loss"], abs=1e-6)
    tokens = len(encoded_split(RunFolder.open(run).corpus(), "validation", load_trained(run).tokenizer).ids_N)
    for parts in found.groups.values():
        assert sum(part.tokens for part in parts) == tokens
        assert sum(part.loss for part in parts) == pytest.approx(found.loss)
        assert sum(part.share for part in parts) == pytest.approx(1)
    ends = {part.tokens for name, parts in found.groups.items() for part in parts if part.name == END}
    assert ends == {found.documents}


def test_parts_hold_what_reading_each_title_gives(run: Path, found: Breakdown) -> None:
    readings = read_each(load_trained(run), list(RunFolder.open(run).corpus().split("validation")))
    first = next(part for part in found.groups["place in the document"] if part.name == "1")
    assert first.nats == pytest.approx(sum(reading.tokens[0].surprisal for reading in readings), rel=1e-5)
    end = next(part for part in found.groups["kind of word"] if part.name == END)
    assert end.nats == pytest.approx(sum(reading.tokens[-1].surprisal for reading in readings), rel=1e-5)
    worst = max(readings, key=lambda reading: reading.loss)
    assert found.hardest[0].text == worst.text
    assert found.hardest[0].loss == pytest.approx(worst.loss, rel=1e-5)


def test_case_is_what_is_left_between_tokens_that_differ_in_case_alone(run: Path, found: Breakdown) -> None:
    trained = load_trained(run)
    documents = list(RunFolder.open(run).corpus().split("validation"))
    nats = 0.0
    for reading in read_each(trained, documents, top=trained.tokenizer.vocab_size):
        for token in reading.tokens:
            twins = [guess for guess in token.guesses if guess.token.lower() == token.token.lower()]
            nats += token.surprisal + math.log(math.fsum(guess.probability for guess in twins))
    assert found.case_nats == pytest.approx(nats, rel=1e-3)
    assert 0 < found.case_share < 1


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("Apple's", "capitalised"), ("I", "capitalised"), ("iPhone", "mixed case"), ("NASA", "all capitals"),
        ("für", "lower case"), ("GPT-4", "with a digit"), ("–", "punctuation"), ("日本語", "other letters"),
    ],
)  # fmt: skip
def test_kinds_of_words(word: str, told: str) -> None:
    assert kind(word) == told


@given(st.lists(st.text(alphabet="ab C\t", min_size=1, max_size=4), max_size=8))
def test_a_token_lies_in_the_word_of_its_first_visible_character(texts: list[str]) -> None:
    document = "".join(texts)
    at = 0
    for text, (word, first) in zip(texts, _words(document, texts), strict=True):
        visible = at + len(text) - len(text.lstrip())
        if text.strip():
            begin = max((place + 1 for place in range(visible) if document[place].isspace()), default=0)
            assert document[begin:].split()[0] == word
            assert first == (begin == visible)
        at += len(text)


def test_the_command_says_it_and_its_json_has_it(run: Path) -> None:
    done = run_command("breakdown", run)
    assert "by kind of word" in done.stdout
    assert "upper or lower case alone" in done.stdout
    told = json.loads(run_command("breakdown", run, "--json", "--hardest", "3").stdout)
    assert len(told["hardest"]) == 3
    assert np.isclose(told["loss"], scores_of(run)["loss"], atol=1e-6)
    with pytest.raises(UserError, match="no split 'tuning'"):
        breakdown(run, "tuning")
