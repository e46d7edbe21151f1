"""The studies that come with the package: each loads, says where it comes from, and changes what it says it changes."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from math import ceil
from typing import Any

import pytest
import torch

from shortrun.cli.flags import taken_from
from shortrun.errors import UserError
from shortrun.model.make import make_model
from shortrun.recipe import Recipe
from shortrun.recipe_file import differences, load_recipe
from shortrun.study.scale import Scale
from shortrun.study.study_file import Study, load_study, shipped_studies
from shortrun.tokens.kinds import KINDS

CHARACTERS = {"hackernews": 54.9, "corpus": 2433.0}
"""Of a document, ends counted as 5: of HN-100k, and of the corpus `web`."""
LEAST_STEPS = 150
FULL = {"titles": 1.0, "width": 1.0, "rows": 1.0, "vocabulary": 1.0, "epochs": None}
NAMES = list(shipped_studies())
LADDERS = ["adamw-then-rope", "modern-blocks", "tune-then-sam-then-shrink", "warmup-cosine"]


def header(name: str) -> str:
    """The comment that a study's file begins with."""
    lines = shipped_studies()[name].read_text(encoding="utf-8").split("\n")
    return "\n".join(line.lstrip("# ") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])


def recipes(study: Study) -> list[Recipe]:
    """Of every row, under the first seed."""
    return [row.recipes[study.seeds[0]] for row in study.rows]


def steps(recipe: Recipe) -> int:
    """About as many as it takes on Hacker News titles, or on the corpus `web`."""
    assert isinstance(recipe.data.num_titles, int)
    titles = int(recipe.data.num_titles * (1 - recipe.data.val_frac)) - recipe.data.tuning_titles
    length = KINDS[recipe.tokenizer.kind].characters_a_token(recipe.tokenizer.vocab_size)
    tokens = recipe.train.epochs * titles * CHARACTERS[recipe.data.source] / length
    return ceil(tokens / (recipe.batches.batch_size * recipe.batches.block_size))


def test_one_for_each_report_and_nine_more() -> None:
    others = [
        "baseline-to-best",
        "best-cpu-changes",
        "best-quick-changes",
        "members",
        "mini-gpt",
        "negative-results",
        "proxy-scale",
        "recommended-ablations",
        "vocabulary",
    ]
    assert sorted(NAMES) == sorted([*LADDERS, *others])
    for name in LADDERS:
        study = load_study(name)
        assert (study.form, study.base) == ("ladder", "baseline")


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_it_comes_from(name: str) -> None:
    text = header(name)
    assert text.partition("\n")[0].endswith(("?", ".")), "the first line is what `shortrun study` lists"
    assert re.search(r"^Follows ", text, re.MULTILINE)
    assert re.search(r"\d\.\d\d", text), "what the source claims, with its numbers"


@pytest.mark.parametrize("data", [{"path": ("titles.txt",)}, {"source": "synthetic"}], ids=["file", "synthetic"])
@pytest.mark.parametrize("name", NAMES)
def test_it_loads_with_other_documents(name: str, data: dict[str, Any]) -> None:
    if name == "negative-results" and "source" in data:
        with pytest.raises(UserError, match=r"data\.normalise would make the synthetic corpus another"):
            load_study(name, {"data": data})
        return
    own = "corpus" if name == "mini-gpt" else "file"  # a path over that of a corpus is another corpus
    for row in load_study(name, {"data": data}).rows:
        for recipe in row.recipes.values():
            assert recipe.data.source == data.get("source", own)
            assert recipe.data.path == data.get("path", ())


@pytest.mark.parametrize("name", NAMES)
def test_its_rows(name: str) -> None:
    study = load_study(name)
    made = recipes(study)
    assert study.seeds == (1, 2, 3)
    assert len({row.change for row in study.rows}) == len(study.rows)
    assert study.about.endswith((".", "?"))
    for row, recipe in zip(study.rows, made, strict=True):
        assert list(row.recipes) == [each.train.seed for each in row.recipes.values()]
        assert list(row.recipes) in ([1, 2, 3], [1, 2, 3, 4, 5, 6]), "a step near a tie has more"
        if row.reference is not None:
            assert row.reason.endswith(".")
            assert len(row.reason.split()) >= 8, "a sentence for the report"
            assert recipe.fingerprint() != made[row.reference].fingerprint()


CHANGED = {
    "adamw-then-rope": [
        {"optim.name", "optim.lr"}, {"model.positions"}, {"model.norm"}, {"tokenizer.vocab_size"},
        {"model.n_layer", "model.n_head"}, {"optim.weight_decay", "optim.betas"},
    ],
    "tune-then-sam-then-shrink": [
        {"optim.name", "optim.lr", "optim.weight_decay"}, {"optim.lr", "model.dropout"},
        {"schedule.warmup", "optim.lr", "model.dropout"}, {"optim.sharpness"}, {"optim.sharpness"},
        {"tokenizer.vocab_size", "batches.block_size"},
        {"model.n_head", "model.d_model", "model.dropout", "optim.lr", "optim.decay", "schedule.min_lr"},
        {"model.n_layer", "model.n_head", "model.d_model", "model.dropout", "optim.lr"},
    ],
    "modern-blocks": [
        {"optim.name", "optim.lr", "optim.betas", "optim.weight_decay"}, {"batches.block_size"}, {"tokenizer.vocab_size"},
        {"model.norm"}, {"model.positions"}, {"model.scale_embeddings"}, {"model.mlp"}, {"model.block"}, {"model.bias"},
    ],
    "warmup-cosine": [
        {"optim.name"}, {"schedule.warmup"}, {"schedule.min_lr"}, {"optim.weight_decay"}, {"optim.lr", "schedule.min_lr"},
        {"schedule.warmup"}, {"optim.grad_clip"}, {"train.ema"},
    ],
}  # fmt: skip
"""The fields in which each row of a ladder differs from the row above it."""


@pytest.mark.parametrize("name", LADDERS)
def test_each_rung_changes_what_it_says(name: str) -> None:
    made = recipes(load_study(name))
    assert [
        {line.partition(":")[0] for line in differences(before, after)} for before, after in pairwise(made)
    ] == CHANGED[name]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_training_titles_is_fitted_on(name: str) -> None:
    """Rows are compared on titles cut from the training titles, which must be encoded all the same."""
    for recipe in recipes(load_study(name)):
        assert recipe.tokenizer.fit_on == "train"
        assert recipe.tokenizer.kind != "bpe" or recipe.tokenizer.byte_alphabet == "all"
        assert recipe.data.tuning_titles * CHARACTERS[recipe.data.source] >= 500 * CHARACTERS["hackernews"]


def at_other_scales(name: str) -> list[Study]:
    """The study at its file's scale, at full size, and at those that its header names."""
    found = [load_study(name), load_study(name, {"scale": FULL})]
    for flags in re.findall(r"(?:medium|small): +(--scale.*)", header(name)):
        rest, overrides, mistakes = taken_from(shlex.split(flags), {"scale": Scale})
        assert (rest, mistakes) == ([], [])
        found.append(load_study(name, overrides))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_its_scales_leave_enough_steps_and_models_that_can_be_built(name: str) -> None:
    studies = at_other_scales(name)
    assert len(studies) == (4 if name == "proxy-scale" else 2)
    base = load_recipe(studies[0].base).model
    for study in studies:
        for recipe in recipes(study):
            assert steps(recipe) >= LEAST_STEPS
            with torch.device("meta"):
                model = make_model(recipe, recipe.tokenizer.vocab_size, eos=1)
            assert model.count_parameters() < 50e6
            wide = min(48, base.d_model // base.n_head)
            assert recipe.model.d_model // recipe.model.n_head >= wide, "heads keep their width"


def test_a_report_at_full_size_is_the_report() -> None:
    """What a scale is laid over are the report's own settings."""
    shrunk = load_study("tune-then-sam-then-shrink", {"scale": FULL}).rows[-1].recipes[1]
    with torch.device("meta"):
        model = make_model(shrunk, 4000, eos=1)
    assert model.count_parameters() == pytest.approx(2.56e6, rel=0.01)
    last = recipes(load_study("modern-blocks", {"scale": FULL}))[-1]
    assert (last.tokenizer.vocab_size, last.batches.block_size, last.batches.batch_size) == (32_000, 256, 64)
    assert (last.model.n_layer, last.model.n_head, last.model.d_model, last.train.epochs) == (6, 8, 512, 7)


def test_the_way_from_the_baseline_ends_at_the_best_recipe() -> None:
    last, best = recipes(load_study("baseline-to-best", {"scale": FULL}))[-1], load_recipe("best-cpu")
    for section in ("batches", "model", "optim", "schedule", "datastore"):
        assert getattr(last, section) == getattr(best, section)
    assert (last.tokenizer.kind, last.tokenizer.vocab_size) == (best.tokenizer.kind, best.tokenizer.vocab_size)
    assert (last.train.epochs, last.train.rdrop, last.train.rdrop_from) == (
        best.train.epochs,
        best.train.rdrop,
        best.train.rdrop_from,
    )


def test_the_four_experiments_of_the_mini_gpt() -> None:
    made = recipes(load_study("mini-gpt", {"scale": FULL}))
    assert [(each.train.epochs, each.optim.lr) for each in made] == [(10, 1e-3), (10, 5e-4), (3, 1e-3), (3, 5e-4)]
    assert {(each.data.num_titles, each.batches.batch_size, each.optim.name) for each in made} == {
        (19_800, 32, "adamw")
    }
