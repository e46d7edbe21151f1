"""The baseline, exactly: an independent run of Mainrun's own script is reproduced from its initial weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shortrun.model.device import make_repeatable
from shortrun.model.gpt import GPT
from shortrun.optim.optimizers import make_optimizer
from shortrun.optim.schedules import lr_scale
from shortrun.recipe import Recipe, ScheduleConfig
from shortrun.recipe_file import load_recipe
from shortrun.score.evaluate import ScoringSet
from shortrun.text.corpus import load_corpus
from shortrun.tokens.batches import StreamBatches, TokenizedTitles, make_batches
from shortrun.tokens.bpe import train_bpe
from shortrun.tokens.kinds import load_tokenizer
from shortrun.train.objective import Objective
from shortrun.train.step import TrainingStep


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden" / "mainrun-baseline"


@pytest.fixture(scope="module")
def recipe(golden: Path) -> Recipe:
    """The shipped baseline at the reference's size."""
    hyper = json.loads((golden / "curve.json").read_text())["hyperparameters"]
    return load_recipe(
        "baseline",
        {
            "data": {"path": [str(golden / "titles.txt")], "num_titles": 2000, "shuffle": False},
            "tokenizer": {"vocab_size": hyper["vocab_size"]},
            "batches": {key: hyper[key] for key in ("block_size", "batch_size")},
            "model": {key: hyper[key] for key in ("n_layer", "n_head", "d_model", "dropout")},
        },
    )


def test_our_tokenizer_training_gives_the_same_tokenizer(golden: Path, recipe: Recipe) -> None:
    corpus = load_corpus(recipe.data)
    everything = [*corpus.train.titles, *corpus.validation.titles]
    ours, theirs = train_bpe(everything, recipe.tokenizer), load_tokenizer(golden / "tokenizer.json")
    assert ours.encode_joined(everything) == theirs.encode_joined(everything)


def test_the_whole_curve(golden: Path, recipe: Recipe) -> None:
    """Training loss within 2e-6 nats per token at every step, official loss within 2e-7 per character."""
    curve = json.loads((golden / "curve.json").read_text())
    make_repeatable(1)
    corpus = load_corpus(recipe.data)
    tokenizer = train_bpe([*corpus.train.titles, *corpus.validation.titles], recipe.tokenizer)
    batches = make_batches(
        tokenizer.encode_many(corpus.train.titles), tokenizer.eos, tokenizer.vocab_size, recipe.batches, 7, 1337
    )
    validation = ScoringSet(tokenizer, corpus.validation.titles)
    model = GPT(recipe.model, tokenizer.vocab_size, recipe.batches.block_size, tokenizer.eos)
    model.load_state_dict(load_file(golden / "initial_weights.safetensors"))
    take = TrainingStep(Objective(model, recipe.train), model, make_optimizer(model, recipe.optim), recipe)
    assert model.count_parameters() == curve["parameters"]
    assert batches.tokens_per_epoch == curve["train_tokens"]
    assert (batches.steps_per_epoch, batches.total_steps) == (curve["batches_per_epoch"], curve["max_steps"])
    assert (len(validation.joined_ids), validation.characters) == (curve["val_tokens"], curve["val_chars"])

    expected_validation = dict(curve["validation_loss"])
    for step, expected in enumerate(curve["training_loss"], start=1):
        share = lr_scale(step, batches.total_steps, recipe.schedule, recipe.optim.lr)
        result = take(batches.at(step), share, (1337, step))
        assert result.loss == pytest.approx(expected, abs=2e-6), step
        if step in expected_validation:
            official = validation.official_loss(model, block_size=32, batch_size=8)
            assert official.loss == pytest.approx(expected_validation.pop(step), abs=2e-7), step
            assert official.targets_scored == curve["val_targets_scored"]
    assert not expected_validation, "evaluations of the reference that were not compared"


def test_the_schedule_is_torchs_cosine_annealing() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=6e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(1, 51):
        assert 6e-3 * lr_scale(step, 50, ScheduleConfig(), 6e-3) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_the_baseline_at_full_size_has_mainruns_parameters() -> None:
    model = GPT(load_recipe("baseline").model, vocab_size=16_000, block_size=128, eos=1)
    assert model.count_parameters() == 27_172_864


def test_the_baselines_epochs_and_steps() -> None:
    """1,102,455 training tokens make 134 batches an epoch and 938 steps."""
    recipe = load_recipe("baseline")
    titles = TokenizedTitles([[0] * 1_102_454], eos=1, vocab_size=16_000)
    batches = StreamBatches(titles, recipe.batches, recipe.train.epochs)
    assert (batches.steps_per_epoch, batches.total_steps) == (134, 938)


def test_the_standard_task_with_the_baselines_tokenizer(shared: Path) -> None:
    """HN-100k: 1,133,101 training and 126,186 validation tokens, 548,888 characters, coverage 0.974."""
    recipe = load_recipe("baseline", {"data": {"path": [str(shared / "data" / "hn-titles.parquet")]}})
    corpus = load_corpus(recipe.data)
    assert corpus.manifest["sha256"] == "cb97c94d17cfc7b1bdf7c627770c647748a9a0b3460dc949af77ed6ec4f39c2a"
    tokenizer = train_bpe([*corpus.train.titles, *corpus.validation.titles], recipe.tokenizer)
    train = TokenizedTitles(tokenizer.encode_many(corpus.train.titles), tokenizer.eos, tokenizer.vocab_size)
    validation = ScoringSet(tokenizer, corpus.validation.titles)
    assert (len(train.ids_N), len(validation.joined_ids)) == (1_133_101, 126_186)
    assert validation.characters == 548_888
    tiny = Recipe.model_validate({"model": {"n_layer": 1, "n_head": 1, "d_model": 2}})
    official = validation.official_loss(
        GPT(tiny.model, tokenizer.vocab_size, 128, tokenizer.eos), block_size=128, batch_size=64
    )
    assert official.coverage == pytest.approx(0.974, abs=5e-4)
