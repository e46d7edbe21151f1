"""The baseline, exactly: an independent run of Mainrun's own script is reproduced from its initial weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shortrun.model.gpt import GPT
from shortrun.model.language_model import LanguageModel
from shortrun.model.make import make_model
from shortrun.optim.schedules import lr_scale
from shortrun.recipe import BatchesConfig, ModelConfig, Recipe, ScheduleConfig
from shortrun.recipe_file import load_recipe
from shortrun.runs.folder import RunFolder
from shortrun.score.evaluate import ScoringSet
from shortrun.text.corpus import load_corpus
from shortrun.tokens.batches import StreamBatches
from shortrun.tokens.encoded import EncodedDocuments, encoded_split
from shortrun.tokens.kinds import load_tokenizer, tokenizer_for
from shortrun.train import assembly
from shortrun.train.events import Evaluated, Event
from shortrun.train.fit import fit
from shortrun.train.prepare import prepare

pytestmark = pytest.mark.slow


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
            "train": {"device": "cpu", "threads": 1},
        },
    )


def test_our_tokenizer_training_gives_the_same_tokenizer(golden: Path, recipe: Recipe) -> None:
    corpus = load_corpus(recipe.data)
    ours, theirs = tokenizer_for(corpus, recipe.tokenizer), load_tokenizer(golden / "tokenizer.json")
    assert list(ours.encode_joined(corpus.documents)) == list(theirs.encode_joined(corpus.documents))
    assert ours.vocab_size == theirs.vocab_size


def test_the_whole_curve(golden: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `prepare` and `fit`, as every run goes: training loss within 2e-6 nats per token at each of the 1,057 steps,
    official loss within 2e-7 per character at each evaluation. The initial weights are the reference's."""
    curve = json.loads((golden / "curve.json").read_text())
    weights = load_file(golden / "initial_weights.safetensors")

    def with_the_references_weights(recipe: Recipe, vocab_size: int, eos: int) -> LanguageModel:
        model = make_model(recipe, vocab_size, eos)
        model.load_state_dict(weights)
        return model

    monkeypatch.setattr(assembly, "make_model", with_the_references_weights)
    prepared, events = prepare(recipe), list[Event]()
    assert (len(prepared.validation.stream), prepared.validation.characters) == (
        curve["val_tokens"],
        curve["val_chars"],
    )
    result = fit(prepared, recipe, tmp_path / "run", on_event=events.append)
    assert result.complete
    assert result.budget.parameters == curve["parameters"]

    metrics = list(RunFolder.open(tmp_path / "run").metrics())
    assert {name: metrics[0][name] for name in curve["hyperparameters"]} == curve["hyperparameters"]
    (data,) = (event for event in metrics if event["event"] == "dataset_info")
    assert (data["tokens_per_epoch"], data["batches_per_epoch"]) == (curve["train_tokens"], curve["batches_per_epoch"])
    steps = [event for event in metrics if event["event"] == "training_step"]
    assert [event["step"] for event in steps] == list(range(1, curve["max_steps"] + 1))
    assert [event["loss"] for event in steps] == pytest.approx(curve["training_loss"], abs=2e-6, rel=0)
    evaluations = [event for event in metrics if event["event"] == "validation_step"]
    assert [event["step"] for event in evaluations] == [step for step, _ in curve["validation_loss"]]
    expected = [loss for _, loss in curve["validation_loss"]]
    assert [event["official_loss"] for event in evaluations] == pytest.approx(expected, abs=2e-7, rel=0)
    scored = {event.validation.official.targets_scored for event in events if isinstance(event, Evaluated)}
    assert scored == {curve["val_targets_scored"]}


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
    documents = EncodedDocuments.of([[0] * 1_102_454], eos=1)
    batches = StreamBatches(documents, recipe.batches, recipe.train.epochs)
    assert (batches.steps_per_epoch, batches.total_steps) == (134, 938)


def test_the_standard_task_with_the_baselines_tokenizer(shared: Path) -> None:
    """HN-100k: 1,133,101 training and 126,186 validation tokens, 548,888 characters, coverage 0.974."""
    recipe = load_recipe("baseline", {"data": {"path": [str(shared / "data" / "hn-titles.parquet")]}})
    corpus = load_corpus(recipe.data)
    assert corpus.sha256 == "cb97c94d17cfc7b1bdf7c627770c647748a9a0b3460dc949af77ed6ec4f39c2a"
    tokenizer = tokenizer_for(corpus, recipe.tokenizer)
    train, validation = encoded_split(corpus, "train", tokenizer), ScoringSet.of_split(corpus, "validation", tokenizer)
    assert (len(train.ids_N), len(validation.stream)) == (1_133_101, 126_186)
    assert validation.characters == 548_888
    tiny = GPT(ModelConfig(n_layer=1, n_head=1, d_model=2), tokenizer.vocab_size, 128, tokenizer.eos)
    scored = validation.evaluate(tiny, BatchesConfig(block_size=128, batch_size=64))
    assert scored.official.coverage == pytest.approx(0.974, abs=5e-4)
    assert (scored.loss.documents, scored.loss.characters) == (10_000, 548_888)
