"""Study files: what their forms, layers and scales mean, and every mistake in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shortrun.errors import UserError
from shortrun.recipe import Recipe
from shortrun.recipe_file import differences, load_recipe, to_toml
from shortrun.study.scale import Scale
from shortrun.study.study_file import Study, load_study, shipped_studies
from tests.conftest import tiny_recipe

HEAD = """
about = "A study for the tests."
base = "base.toml"
form = "ladder"
seeds = [1, 2]
"""
FASTER = """
[[change]]
name = "faster"
reason = "A larger step learns more in a short run."
optim.lr = 1e-2
"""
HEADS = """
[[change]]
name = "heads"
reason = "It hardly matters here."
model.n_head = 4
"""
GRID = """
[[change]]
name = "optimizer"
reason = "Each has a rate of its own."
optim.name = ["adamw", "muon"]
optim.lr = [3e-3, 1e-3]

[[change]]
name = "width"
reason = "More of it costs more."
model.d_model = [16, 32]
"""


def written(folder: Path, text: str = HEAD + FASTER + HEADS) -> str:
    """A study on a tiny recipe of 300 synthetic documents, of 2 heads of 8."""
    (folder / "base.toml").write_text(to_toml(tiny_recipe(None)), encoding="utf-8")
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return str(folder / "mine.toml")


def loaded(
    folder: Path, text: str = HEAD + FASTER + HEADS, overrides: dict[str, dict[str, Any]] | None = None
) -> Study:
    return load_study(written(folder, text), overrides)


def complaint(
    folder: Path, text: str, overrides: dict[str, dict[str, Any]] | None = None, also: tuple[str, ...] = ()
) -> str:
    with pytest.raises(UserError) as error:
        load_study(written(folder, text), overrides, also)
    return str(error.value)


def first(study: Study, row: int) -> Recipe:
    return study.rows[row].recipes[study.seeds[0]]


def changed(before: Recipe, after: Recipe) -> list[str]:
    """Names of the fields in which two recipes differ."""
    return [line.partition(":")[0] for line in differences(before, after)]


def test_a_ladder_adds_each_change_to_all_before_it(tmp_path: Path) -> None:
    study = loaded(tmp_path)
    assert study.name == "mine"
    assert [(row.change, row.reference) for row in study.rows] == [("base", None), ("faster", 0), ("heads", 1)]
    assert [row.reason for row in study.rows] == [
        "", "A larger step learns more in a short run.", "It hardly matters here.",
    ]  # fmt: skip
    assert changed(first(study, 0), first(study, 1)) == ["optim.lr"]
    assert changed(first(study, 1), first(study, 2)) == ["model.n_head"]
    assert (first(study, 2).optim.lr, first(study, 2).model.n_head) == (1e-2, 4)


def test_an_ablation_makes_each_change_alone(tmp_path: Path) -> None:
    study = loaded(tmp_path, HEAD.replace("ladder", "ablation") + FASTER + HEADS)
    assert [row.reference for row in study.rows] == [None, 0, 0]
    assert changed(first(study, 0), first(study, 1)) == ["optim.lr"]
    assert changed(first(study, 0), first(study, 2)) == ["model.n_head"]


def test_a_grid_combines_changes_and_keeps_the_fields_of_one_together(tmp_path: Path) -> None:
    study = loaded(tmp_path, HEAD.replace("ladder", "grid") + GRID)
    assert [row.reference for row in study.rows] == [None, 0, 0, 0, 0]
    made = [
        (first(study, row).optim.name, first(study, row).optim.lr, first(study, row).model.d_model)
        for row in range(1, 5)
    ]
    assert made == [("adamw", 3e-3, 16), ("adamw", 3e-3, 32), ("muon", 1e-3, 16), ("muon", 1e-3, 32)]
    assert study.rows[4].change == 'optim.name = "muon", optim.lr = 0.001, model.d_model = 32'
    assert first(study, 1).fingerprint() == first(study, 0).fingerprint(), "of a grid, one combination may be the base"


def test_a_grids_value_may_be_a_list(tmp_path: Path) -> None:
    betas = '[[change]]\nname = "betas"\nreason = "Slower averages."\noptim.betas = [[0.9, 0.95], [0.9, 0.99]]\n'
    study = loaded(tmp_path, HEAD.replace("ladder", "grid") + betas)
    assert [first(study, row).optim.betas for row in (1, 2)] == [(0.9, 0.95), (0.9, 0.99)]
    assert study.rows[2].change == "optim.betas = [0.9, 0.99]"


def test_layers_lie_over_one_another(tmp_path: Path) -> None:
    """The base, `every`, the command line, the changes, the scale, the seed."""
    every = "[scale]\nwidth = 0.5\n[every]\nmodel.dropout = 0.3\noptim.grad_clip = 0.5\noptim.lr = 5e-3\n"
    flags: dict[str, dict[str, Any]] = {
        "optim": {"grad_clip": 0.7, "lr": 7e-3},
        "model": {"n_head": 8, "d_model": 64},
    }
    study = loaded(tmp_path, HEAD + every + FASTER + HEADS, flags)
    assert {row.recipes[1].model.dropout for row in study.rows} == {0.3}
    assert {row.recipes[1].optim.grad_clip for row in study.rows} == {0.7}
    assert [row.recipes[1].optim.lr for row in study.rows] == [7e-3, 1e-2, 1e-2]
    heads = [(row.recipes[1].model.n_head, row.recipes[1].model.d_model) for row in study.rows]
    assert heads == [(4, 32), (4, 32), (2, 32)]


def test_a_step_near_a_tie_and_what_it_is_compared_with_have_more_seeds(tmp_path: Path) -> None:
    third = HEADS.replace('"heads"', '"wider"').replace("n_head = 4", "d_model = 32")
    near = HEADS.replace("reason", "more_seeds = [2, 7]\nreason")
    study = loaded(tmp_path, HEAD + FASTER + near + third)
    assert [list(row.recipes) for row in study.rows] == [[1, 2], [1, 2, 7], [1, 2, 7], [1, 2]]
    alone = loaded(tmp_path, HEAD.replace("ladder", "ablation") + FASTER + near + third)
    assert [list(row.recipes) for row in alone.rows] == [[1, 2, 7], [1, 2], [1, 2, 7], [1, 2]]


def test_seeds_reach_training_and_nothing_else(tmp_path: Path) -> None:
    study = loaded(tmp_path, HEAD.replace("[1, 2]", "[3, 7, 5]") + FASTER)
    for row in study.rows:
        assert list(row.recipes) == [3, 7, 5]
        assert {seed: recipe.train.seed for seed, recipe in row.recipes.items()} == {3: 3, 7: 7, 5: 5}
        assert changed(row.recipes[3], row.recipes[5]) == ["train.seed"]


@pytest.mark.parametrize(("width", "heads"), [(0.5, 4), (0.25, 2), (2.0, 16), (0.375, 3)])
def test_a_scaled_width_keeps_the_width_of_a_head(width: float, heads: int) -> None:
    model = Scale(width=width).over(load_recipe("baseline"))["model"]
    assert model == {"n_head": heads, "d_model": heads * 64}


@pytest.mark.parametrize(("width", "d_model"), [(0.25, 64), (0.3, 80), (0.5, 128), (0.01, 8)])
def test_a_scaled_width_is_the_same_with_any_number_of_heads(width: float, d_model: int) -> None:
    for heads in (1, 2, 4, 8, 16):
        small = load_recipe("small", {"model": {"n_head": heads, "positions": "rotary"}})
        model = Scale(width=width).over(small)["model"]
        assert model["d_model"] == d_model
        assert d_model % (2 * model["n_head"]) == 0, "as rotary positions need"
    assert model["n_head"] == min(max(round(16 * width), 1), d_model // 2)


@pytest.mark.parametrize(
    ("share", "fields"),
    [
        ("width", "model.n_head and model.d_model"),
        ("rows", "batches.batch_size"),
        ("vocabulary", "tokenizer.vocab_size"),
    ],
)
def test_sizes_that_the_data_gives_have_no_share(share: str, fields: str, tmp_path: Path) -> None:
    text = HEAD.replace("base.toml", "own") + "[every]\ndata.num_titles = 1000\n{}[scale]\n{} = 0.5\n" + FASTER
    found = complaint(tmp_path, text.format("", share))
    assert f"scale.{share} is a share of {fields}, which train.from_data leaves to the data" in found
    own = "model.n_head = 4\nmodel.d_model = 64\nbatches.batch_size = 16\ntokenizer.vocab_size = 1000\n"
    made = first(loaded(tmp_path, text.format(own, share)), 0)
    sizes = made.model.n_head, made.model.d_model, made.batches.batch_size, made.tokenizer.vocab_size
    assert sizes == {"width": (2, 32, 16, 1000), "rows": (4, 64, 8, 1000), "vocabulary": (4, 64, 16, 500)}[share]


def test_a_scale_reaches_sizes_that_a_change_sets(tmp_path: Path) -> None:
    larger = HEADS.replace(
        "n_head = 4", "n_head = 8\nmodel.d_model = 64\ntokenizer.vocab_size = 800\nbatches.batch_size = 8"
    )
    scale = "[scale]\ntitles = 0.5\nwidth = 0.5\nrows = 0.25\nvocabulary = 0.9\nepochs = 3\n"
    study = loaded(tmp_path, HEAD + scale + larger)
    base, row = first(study, 0), first(study, 1)
    assert (base.model.n_head, base.model.d_model, base.tokenizer.vocab_size, base.batches.batch_size) == (1, 8, 270, 4)
    assert (row.model.n_head, row.model.d_model, row.tokenizer.vocab_size, row.batches.batch_size) == (4, 32, 720, 2)
    assert base.data.num_titles == row.data.num_titles == 150
    assert base.train.epochs == row.train.epochs == 3
    assert str(study.scale) == (
        "0.5 of the documents, 0.5 of the width, 0.25 of the rows in a batch, 0.9 of the vocabulary, 3 epochs"
    )


def test_tuning_documents_are_cut_where_there_are_none(tmp_path: Path) -> None:
    assert {row.recipes[1].data.tuning_titles for row in loaded(tmp_path).rows} == {30}
    scale = "[scale]\ntitles = 0.5\ntuning = 0.2\n"
    assert first(loaded(tmp_path, HEAD + scale + FASTER), 0).data.tuning_titles == 30
    own = {"data": {"tuning_titles": 50}}
    assert first(loaded(tmp_path, HEAD + scale + FASTER, own), 0).data.tuning_titles == 25, (
        "scaled as the documents are"
    )


def test_full_scale_changes_no_size() -> None:
    recipe = load_recipe("small")
    assert Scale().over(recipe) == {"data": {"num_titles": 100_000, "tuning_titles": 10_000}}
    assert str(Scale()) == "full scale"
    assert "tokenizer" not in Scale(vocabulary=0.5).over(
        load_recipe("small", {"tokenizer": {"kind": "gpt2", "vocab_size": 50257}})
    )


def test_all_documents_need_a_number_to_scale(tmp_path: Path) -> None:
    text = complaint(tmp_path, HEAD.replace("base.toml", "own") + FASTER)
    assert 'a study needs a number in data.num_titles, not "all"' in text
    assert "One thing is wrong" in text, "every row has the same mistake"


def test_scale_flags_stand_above_the_files_scale(tmp_path: Path) -> None:
    text = HEAD + "[scale]\ntitles = 0.5\nepochs = 3\n" + FASTER
    study = loaded(tmp_path, text, {"scale": {"titles": 0.1, "width": 0.5}, "optim": {"grad_clip": 0.7}})
    assert study.scale == Scale(titles=0.1, width=0.5, epochs=3)
    assert first(study, 1).data.num_titles == 30
    assert first(study, 1).model.n_head == 1
    assert first(study, 1).train.epochs == 3
    assert first(study, 1).optim.grad_clip == 0.7
    assert loaded(tmp_path, text, {"scale": {"epochs": None}}).scale.epochs is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD.replace("about", "abuot") + FASTER, "abuot: there is no such key; did you mean 'about'?"),
        (HEAD.replace("about", "abuot") + FASTER, "about: field required"),
        (HEAD.replace("ladder", "lader") + FASTER, "(did you mean 'ladder'?)"),
        (HEAD.replace("[1, 2]", "3") + FASTER, "seeds: input should be a valid list"),
        (HEAD.replace("[1, 2]", "[]") + FASTER, "seeds: list should have at least 1 item"),
        (HEAD.replace("[1, 2]", "[1, -2]") + FASTER, "seeds.1: input should be greater than or equal to 0"),
        (HEAD.replace("[1, 2]", "[1, 2, 1]") + FASTER, "seeds: the same one twice is one run"),
        (HEAD, "change: field required"),
        (HEAD + "[scale]\ntittles = 0.1\n" + FASTER, "scale.tittles: there is no such key; did you mean 'titles'?"),
        (HEAD + "[scale]\ntitles = 1.5\n" + FASTER, "scale.titles: input should be less than or equal to 1"),
        (HEAD + '[scale]\nwidth = "half"\n' + FASTER, "scale.width: input should be a valid number"),
        (HEAD + "[scale]\nvocabulary = 0.1\n" + FASTER, "[scale]: tokenizer.vocab_size = 30 can't hold 256 bytes"),
        (HEAD + "[scale]\ntuning = 0.95\n" + FASTER, "[scale]: data.tuning_titles = 285 would take all 270 training titles"),
        (HEAD.replace("base.toml", "baselin") + FASTER, "base = \"baselin\": There is no shipped recipe 'baselin': did you mean 'baseline'?"),
        (HEAD.replace("base.toml", "bas.toml") + FASTER, "There is no recipe file"),
        (HEAD + "[every]\nmodel.dropuot = 0.1\n" + FASTER, "[every]: model.dropuot = 0.1: there is no such field; did you mean 'dropout'?"),
        (HEAD + "[every]\ntrain.seed = 3\n" + FASTER, "[every]: train.seed does nothing here"),
        (HEAD + "[scale]\nepochs = 3\n[every]\ntrain.epochs = 2\n" + FASTER, "[every]: train.epochs does nothing here"),
        (HEAD + FASTER.replace("optim.lr", "optim.lrr"), 'change "faster": optim.lrr = 0.01: there is no such field; did you mean \'lr\'?'),
        (HEAD + FASTER.replace("optim.lr", "optm.lr"), 'change "faster": [optm]: there is no such section; did you mean \'optim\'?'),
        (HEAD + FASTER.replace("1e-2", "-1.0"), 'change "faster": optim.lr = -1.0: input should be greater than 0'),
        (HEAD + FASTER.replace("optim.lr", "optim.muon_lr"), 'change "faster": optim.muon_lr = 0.01 does nothing here: it is only read with optim.name = "muon"'),
        (HEAD + FASTER.replace("name =", "nmae ="), "change 1 needs a name and a reason"),
        (HEAD + HEADS + FASTER.replace("reason =", "reasons ="), "change 2 needs a name and a reason"),
        (HEAD + FASTER.replace("optim.lr", "optim"), 'change "faster": optim = 0.01 is no section of a recipe; did you mean \'optim\'?'),
        (HEAD + FASTER.replace("optim.lr = 1e-2", ""), 'change "faster" sets no field of a recipe, such as optim.lr = 1e-3'),
        (HEAD + FASTER.replace("1e-2", "3e-3"), 'change "faster" changes nothing of what a run learns'),
        (HEAD + FASTER.replace("optim.lr = 1e-2", "train.log_every = 7"), 'change "faster" changes nothing of what a run learns'),
        (HEAD + FASTER + HEADS.replace("heads", "faster"), '2 rows are called "faster"'),
        (HEAD.replace("ladder", "grid") + FASTER, 'change "faster": in a grid each field has a list of values'),
        (HEAD.replace("ladder", "grid") + FASTER.replace("1e-2", "[]"), "in a grid each field has a list of values"),
        (HEAD.replace("ladder", "grid") + GRID.replace("[3e-3, 1e-3]", "[3e-3]"), 'change "optimizer": its fields have lists of different lengths'),
        (HEAD.replace("ladder", "grid") + FASTER.replace("1e-2", "[1e-2, 2026-01-01]"), 'change "faster": optim.lr is given a date or a time, which no field takes'),
        (HEAD + FASTER.replace("1e-2", "[[07:32:00]]"), 'change "faster": optim.lr is given a date or a time'),
        (HEAD + "[every]\noptim.lr = 2026-01-01\n" + FASTER, "[every]: optim.lr = "),
        (HEAD + FASTER.replace("reason", "more_seeds = 3\nreason"), 'change "faster": more_seeds is a list of seeds, such as [4, 5, 6]'),
        (HEAD.replace("ladder", "grid") + GRID.replace("reason", "more_seeds = [3]\nreason"), "more_seeds has no place in one"),
        ("about = [", "can't be read"),
    ],
)  # fmt: skip
def test_each_mistake_is_a_sentence(text: str, expected: str, tmp_path: Path) -> None:
    found = complaint(tmp_path, text)
    assert expected in found
    assert "mine.toml" in found


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = complaint(
        tmp_path,
        HEAD
        + "[every]\nmodel.dropout = 1.5\n"
        + FASTER.replace("reason =", "reasons =")
        + HEADS.replace("n_head", "n_haed"),
        {"scale": {"titles": 3.0, "widht": 0.5}, "optim": {"grad_clip": -1.0}, "train": {"seed": 5}},
        also=("command line: --optm.lr: there is no such flag; did you mean 'optim'?",),
    )
    assert text.startswith("8 things are wrong with the study ")
    for expected in (
        "command line: --optm.lr: there is no such flag",
        "command line: scale.titles: input should be less than or equal to 1",
        "command line: scale.widht: there is no such key; did you mean 'width'?",
        "command line: train.seed does nothing here: a study's seeds are its own",
        "command line: optim.grad_clip = -1.0: input should be greater than 0",
        "mine.toml: [every]: model.dropout = 1.5: input should be less than 1",
        "mine.toml: change 1 needs a name and a reason",
        "mine.toml: change \"heads\": model.n_haed = 4: there is no such field; did you mean 'n_head'?",
    ):
        assert expected in text


def test_a_mistake_in_the_flags_alone_is_reported_too(tmp_path: Path) -> None:
    text = complaint(tmp_path, HEAD + FASTER, also=("command line: --scale.tittles: there is no such flag",))
    assert "One thing is wrong with the study" in text
    assert "command line: --scale.tittles: there is no such flag" in text


def test_a_study_is_a_shipped_one_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_study("mine").rows == load_study("mine.toml").rows
    with pytest.raises(UserError, match="There is no study 'vocabulery': did you mean 'vocabulary'"):
        load_study("vocabulery")
    assert "vocabulary" in shipped_studies()
