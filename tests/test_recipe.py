"""Recipes: typed, resolved, and every mistake reported at once in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.errors import UserError
from shortrun.model.make import model_without_weights
from shortrun.recipe import GPT2_VOCABULARY, LATER, READ_BY, WITHOUT_EFFECT, Recipe
from shortrun.recipe_file import differences, load_recipe, parse_recipe, shipped_recipes, to_toml


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def complaint(name: str, overrides: dict[str, dict[str, Any]] | None = None) -> str:
    with pytest.raises(UserError) as error:
        load_recipe(name, overrides)
    assert error.value.exit_code == 2
    return str(error.value)


def test_the_baseline_is_mainruns() -> None:
    recipe = load_recipe("baseline")
    assert (recipe.model.n_layer, recipe.model.n_head, recipe.model.d_model, recipe.model.dropout) == (6, 8, 512, 0.1)
    assert (recipe.batches.mode, recipe.batches.block_size, recipe.batches.batch_size) == ("stream", 128, 64)
    assert (recipe.optim.name, recipe.optim.lr, recipe.optim.weight_decay, recipe.optim.grad_clip) == (
        "sgd",
        6e-3,
        0,
        1,
    )
    assert (recipe.train.epochs, recipe.train.seed, recipe.train.evals_per_epoch) == (7, 1337, 3)
    assert (recipe.data.num_titles, recipe.data.val_frac, recipe.data.seed) == (100_000, 0.1, 1337)
    assert (recipe.tokenizer.vocab_size, recipe.tokenizer.fit_on) == (16_000, "train+validation")


def test_adamw_is_the_baseline_but_for_the_optimizer() -> None:
    changed = differences(load_recipe("baseline"), load_recipe("adamw"))
    assert [line.split(":")[0] for line in changed] == ["optim.name", "optim.lr"]
    assert load_recipe("adamw").optim.betas == (0.9, 0.95)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_begin_with_where_they_come_from(name: str) -> None:
    header = [line for line in shipped_recipes()[name].read_text().split("\n") if line.startswith("#")]
    assert "Where from:" in " ".join(header)
    assert "Measured here:" in " ".join(header)
    load_recipe(name)


def test_the_mini_gpt_has_the_reports_dimensions() -> None:
    """It states 7.8M parameters; its dimensions have 6,837,888, 94 % of them embeddings, or 13,270,784 without a tied head."""
    recipe = load_recipe("mini-gpt")
    model = model_without_weights(recipe, GPT2_VOCABULARY)
    assert model.count_parameters() == 6_837_888
    assert GPT2_VOCABULARY * 128 / model.count_parameters() == pytest.approx(0.94, abs=0.005)
    untied = load_recipe("mini-gpt", {"model": {"tied_head": False}})
    assert model_without_weights(untied, GPT2_VOCABULARY).count_parameters() == 13_270_784
    assert (recipe.tokenizer.kind, recipe.batches.block_size, recipe.batches.batch_size) == ("gpt2", 64, 32)
    assert (recipe.optim.lr, recipe.optim.betas, recipe.optim.weight_decay) == (1e-3, (0.9, 0.95), 0.1)
    assert (recipe.schedule.name, recipe.schedule.warmup, recipe.train.epochs) == ("linear", 500, 10)


def test_the_better_mini_gpt_takes_no_more_arithmetic_for_as_many_tokens() -> None:
    one, better = load_recipe("mini-gpt"), load_recipe("mini-gpt-better")
    assert (one.data, one.tokenizer, one.train) == (better.data, better.tokenizer, better.train)
    flops = [
        model_without_weights(each, GPT2_VOCABULARY).flops_per_token(each.batches.block_size) for each in (one, better)
    ]
    assert 0.85 * flops[0] < flops[1] < flops[0]


def test_later_values_override_earlier_ones(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", "[model]\nn_layer = 3\nd_model = 64\n")
    mine = write(tmp_path / "mine.toml", 'extends = "base.toml"\n[model]\nd_model = 128\n')
    recipe = load_recipe(mine, {"train": {"epochs": 2}})
    assert (recipe.model.n_layer, recipe.model.d_model, recipe.model.n_head, recipe.train.epochs) == (3, 128, 8, 2)


@given(
    lr=st.floats(1e-9, 10), dropout=st.floats(0, 0.99), path=st.text(min_size=1, max_size=9).filter(str.isprintable),
    revision=st.none() | st.just("abc123"), titles=st.integers(20, 10**6) | st.just("all"),
)  # fmt: skip
def test_a_resolved_recipe_reads_back_as_itself(
    lr: float, dropout: float, path: str, revision: str | None, titles: int | str
) -> None:
    recipe = Recipe.model_validate(
        {
            "data": {"path": [path], "revision": revision, "num_titles": titles},
            "optim": {"lr": lr},
            "model": {"dropout": dropout},
        }
    )
    for explain in (False, True):
        again, unknown = parse_recipe(to_toml(recipe, explain=explain), "here")
        assert differences(recipe, again) == unknown == []
        assert again.fingerprint() == recipe.fingerprint()


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("name", shipped_recipes())
def test_a_resolved_recipe_can_be_trained_as_it_is(name: str, explain: bool, tmp_path: Path) -> None:
    """What `recipes show` prints, and a run's recipe.toml: it sets nothing that would be refused."""
    recipe = load_recipe(name)
    again = load_recipe(write(tmp_path / "mine.toml", to_toml(recipe, explain)))
    assert again.fingerprint() == recipe.fingerprint()
    assert differences(recipe, again) == []


def test_every_field_explains_itself() -> None:
    for section, fields in Recipe():
        for name, field in type(fields).model_fields.items():
            assert field.description, f"{section}.{name} has no meaning in `recipes show`"


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "wrong.toml",
        '[model]\nn_layr = 4\ndropout = 1.5\n[optm]\nlr = 1\n[optim]\nname = "adamv"\nvocab_size = 3\n[train]\nepochs = "two"\n',
    )
    text = complaint(path, {"batches": {"batch_size": 0}})
    assert "7 things are wrong" in text
    for expected in (
        f"{path}: model.n_layr = 4: there is no such field; did you mean 'n_layer'?",
        f"{path}: model.dropout = 1.5: input should be less than 1",
        f"{path}: [optm]: there is no such section; did you mean 'optim'?",
        "did you mean 'adamw'?",
        f"{path}: optim.vocab_size = 3: there is no such field; did you mean 'tokenizer.vocab_size'?",
        f"{path}: train.epochs = 'two': input should be a valid integer",
        "command line: batches.batch_size = 0: input should be greater than 0",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"model": {"d_model": 100, "n_head": 8}}, "not divisible by model.n_head = 8; the nearest .* is 10"),
        ({"model": {"d_model": 64, "embedding_width": 64}}, "saves nothing unless it is below model.d_model = 64"),
        ({"data": {"num_titles": 1}}, "both need one at least"),
        ({"data": {"tuning_titles": 90_000}}, "would take all 90000 training titles"),
        ({"data": {"source": "file"}}, "needs data.path"),
        ({"data": {"source": "synthetic", "num_titles": "all"}}, "has no end"),
        ({"data": {"path": ["x.txt"], "num_titles": "all", "heldout_titles": 5}}, "leaves no titles"),
        ({"tokenizer": {"vocab_size": 100, "byte_alphabet": "all"}}, "use at least 259"),
        (
            {"tokenizer": {"vocab_size": 260, "byte_alphabet": "all", "whole_pieces": ["C++"]}},
            "1 whole pieces, twice each: use at least 261",
        ),
        ({"tokenizer": {"whole_pieces": ["C++ "]}}, "has a space at its ends"),
        ({"tokenizer": {"whole_pieces": ["<eos>"]}}, "a special token"),
        ({"tokenizer": {"kind": "gpt2", "vocab_size": 16_000}}, "GPT-2's vocabulary has 50257 entries"),
        ({"tokenizer": {"path": "/x"}}, "does not read tokenizer.path"),
        ({"data": {"source": "synthetic", "normalise": ["nfkc"]}}, "whose floor is known"),
        ({"optim": {"betas": (0.9, 1.0)}}, "below 1"),
        ({"optim": {"lr": float("nan")}}, "optim.lr = nan"),
        ({"data": {"num_titles": -3}}, "data.num_titles = -3"),
        ({"schedule": {"warmup": 1.5}}, "schedule.warmup = 1.5 is neither a whole number of steps nor a share of them"),
        ({"schedule": {"warmup": 1.0}}, "schedule.warmup = 1.0 is neither"),
        ({"schedule": {"min_lr": 1.0}}, "schedule.min_lr = 1.0 is above the peak, optim.lr = 0.006"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_data_is_read(
    overrides: dict[str, dict[str, Any]], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        load_recipe("baseline", overrides)


def test_a_path_means_a_file_and_a_source_leaves_the_path_behind(tmp_path: Path) -> None:
    assert load_recipe("baseline", {"data": {"path": ["x.txt"]}}).data.source == "file"
    assert load_recipe("quickstart", {"data": {"path": ["x.txt"]}}).data.source == "file"
    mine = write(tmp_path / "mine.toml", '[data]\npath = "x.txt"\n')
    assert load_recipe(mine).data.path == ("x.txt",)
    synthetic = load_recipe(mine, {"data": {"source": "synthetic"}}).data
    assert (synthetic.source, synthetic.path) == ("synthetic", ())
    both = {"data": {"source": "synthetic", "path": ["x.txt"]}}
    assert 'data.source = "synthetic" does not read data.path' in complaint("baseline", both)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    assert "did you mean 'baseline'?" in complaint("baselin")
    assert "There is no recipe file" in complaint(str(tmp_path / "none.toml"))
    assert "not valid TOML" in complaint(write(tmp_path / "broken.toml", "[model\n"))
    assert "extends itself" in complaint(write(tmp_path / "loop.toml", 'extends = "loop.toml"\n'))
    assert "must be one recipe" in complaint(write(tmp_path / "two.toml", "extends = ['a', 'b']\n"))
    assert "must be a table" in complaint(write(tmp_path / "flat.toml", "model = 3\n"))


USELESS = [
    ("optim", "rho", 0.1, 'it is only read with optim.sharpness = "sam" or "asam"'),
    ("optim", "muon_lr", 0.02, 'it is only read with optim.name = "muon"'),
    ("schedule", "cycles", 3, 'it is only read with schedule.name = "restarts"'),
    ("model", "rope_base", 500.0, 'it is only read with model.positions = "rotary"'),
]


@pytest.mark.parametrize(("section", "field", "value", "reason"), USELESS)
def test_a_setting_that_nothing_reads_is_refused_where_it_is_given(
    section: str, field: str, value: Any, reason: str, tmp_path: Path
) -> None:
    expected = f"{section}.{field} = {value!r} does nothing here: {reason}"
    assert f"command line: {expected}" in complaint("adamw", {section: {field: value}})
    mine = write(tmp_path / "mine.toml", f'extends = "adamw"\n[{section}]\n{field} = {value}\n')
    assert f"{mine}: {expected}" in complaint(mine)
    assert "One thing is wrong" in complaint(mine)


def test_a_setting_that_was_inherited_may_stay_unread(tmp_path: Path) -> None:
    """Who switches off what reads it, below or on the command line, has not given the setting."""
    write(tmp_path / "base.toml", '[optim]\nsharpness = "asam"\nrho = 0.3\n[schedule]\nname = "restarts"\ncycles = 3\n')
    mine = write(tmp_path / "mine.toml", 'extends = "base.toml"\n[optim]\nsharpness = "none"\n')
    recipe = load_recipe(mine, {"schedule": {"name": "cosine"}})
    assert (recipe.optim.rho, recipe.schedule.cycles) == (0.3, 3)
    plain = Recipe.model_validate({"schedule": {"name": "cosine"}})
    assert recipe.fingerprint() == plain.fingerprint()
    assert "schedule.cycles = 4 does nothing here" in complaint(
        mine, {"schedule": {"name": "cosine", "cycles": 4}}
    )  # given in the very layer that switches it off


ANOTHER: dict[str, Any] = {
    "data.source": "synthetic", "data.path": ["other.txt"], "data.column": "headline", "data.revision": "abc123",
    "data.normalise": ["nfc"], "tokenizer.whole_pieces": ["C++"], "tokenizer.path": "/elsewhere", "model.n_head": 4, "model.d_model": 256,
    "model.rope_base": 500.0, "optim.betas": (0.8, 0.9), "schedule.min_lr": 1e-5,
    "train.from_data": ("model.n_layer",),
}  # fmt: skip
"""Another value than the default, where it can't be made from the field's type."""
EVERY_READER: dict[str, Any] = {
    "data": {"path": ["titles.txt"]},
    "model": {"positions": "rotary"},
    "optim": {"name": "muon", "sharpness": "sam"},
    "schedule": {"name": "wsd"},
    "train": {"rdrop": 1.0},
    "datastore": {"weight": 0.3},
}
"""A recipe that reads every field but those below, which name what does."""
READ_WITH: dict[str, dict[str, Any]] = {
    "data.revision": {"data": {"source": "hackernews"}},
    "data.source": {"data": {}},
    "tokenizer.path": {"tokenizer": {"kind": "gpt2"}},
    "optim.head_lr_factor": {"model": {"tied_head": False}},
    "schedule.cycles": {"schedule": {"name": "restarts"}},
}
FIELDS = [f"{section}.{name}" for section, fields in Recipe() for name in type(fields).model_fields]


def another_value(field: str, value: Any) -> Any:
    if field in ANOTHER:
        return ANOTHER[field]
    section, name = field.split(".")
    kind = type(getattr(Recipe(), section)).model_fields[name].annotation
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if isinstance(value, bool):
        return not value
    return {type(None): 1, int: 300, float: 0.25}[type(value)]


def changed(values: dict[str, Any], field: str) -> tuple[Recipe, Recipe]:
    """The recipe of some values, and the same with another value of one field."""
    section, name = field.split(".")
    before = Recipe.model_validate(values)
    other = another_value(field, before.value(field))
    after = Recipe.model_validate({**values, section: {**values.get(section, {}), name: other}})
    assert after.value(field) != before.value(field)
    return before, after


@pytest.mark.parametrize("field", FIELDS)
def test_the_fingerprint_is_of_what_decides_the_result(field: str) -> None:
    before, after = changed({**EVERY_READER, **READ_WITH.get(field, {})}, field)
    assert (before.fingerprint() == after.fingerprint()) == (field in WITHOUT_EFFECT)


@pytest.mark.parametrize("field", READ_BY)
def test_the_fingerprint_ignores_what_nothing_reads(field: str) -> None:
    corpus = {"source": "corpus", "path": ["folder"], "num_titles": 9}
    others: dict[str, dict[str, Any]] = {
        "data.revision": {"path": ["titles.txt"]}, "data.val_frac": corpus, "data.heldout_titles": corpus
    }  # fmt: skip
    values = {
        "data": others.get(field, {"source": "synthetic"}),
        "tokenizer": {"kind": "gpt2"},
        "optim": {"name": "sgd"},
        "schedule": {"name": "constant"},
    }
    before, after = changed(values, field)
    assert field in dict(after.unread())
    assert before.fingerprint() == after.fingerprint()


def test_runs_from_before_a_field_keep_their_fingerprint() -> None:
    """That of the defaults, as it was before `model.embedding_width`."""
    assert Recipe().fingerprint() == "bc687b741f901abc1b9822ae74d58e95a8d8f19d40a963d6fcf035665592792c"
    for field, value in LATER.items():
        assert Recipe().value(field) == value


def test_only_places_and_how_a_run_is_watched_have_no_effect() -> None:
    watched = {"train.checkpoint_every", "train.log_every"}
    assert set(WITHOUT_EFFECT) == {"data.path", "tokenizer.path", "train.device", "train.threads", *watched}
    assert {*READ_BY, *WITHOUT_EFFECT} <= set(FIELDS)
    assert {reader.gate for reader in READ_BY.values()} <= set(FIELDS)
