"""`shortrun show`: a run at a glance, and the figure of its model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from shortrun.errors import UserError
from shortrun.model.language_model import LanguageModel
from shortrun.model.make import model_without_weights
from shortrun.recipe import Recipe
from shortrun.recipe_file import load_recipe, shipped_recipes
from shortrun.runs.folder import RunFolder
from shortrun.view.architecture_figure import architecture_svg
from shortrun.view.glance import DEFAULTS, base_recipes, nearest_recipe
from shortrun.view.parts import parameters_by_part
from tests.conftest import EVERY_MODEL, run_command, scores_of, tiny_recipe

SVG = "{http://www.w3.org/2000/svg}"
FIGURE: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "positions": ({"model": {"positions": "rotary", "rope_base": 500.0}}, "rotate Q and K, base 500"),
    "norm": ({"model": {"norm": "rmsnorm"}}, "RMSNorm"),
    "bias": ({"model": {"bias": False}}, "no bias"),
    "swiglu": ({"model": {"mlp": "swiglu"}}, "SiLU(gate) × value"),
    "relu2": ({"model": {"mlp": "relu2"}}, "ReLU²"),
    "block": ({"model": {"block": "parallel"}}, "one for both"),
    "scale_embeddings": ({"model": {"scale_embeddings": True}}, "divided by √16"),
    "embedding_width": ({"model": {"embedding_width": 5}}, "5 → 16"),
    "embedding_width, tied": ({"model": {"embedding_width": 5}}, "5 → 300 logits"),
    "tied_head": ({"model": {"tied_head": False}}, "weights of its own"),
    "init": ({"model": {"init": "residual"}}, "√(2 × 1)"),
    "output_gate": ({"model": {"output_gate": True}}, "sigmoid gate"),
    "layer_scale": ({"model": {"layer_scale": 0.25}}, "LayerScale, from 0.25"),
    "qk_norm": ({"model": {"qk_norm": True}}, "RMSNorm of each Q and K"),
    "word_dropout": ({"model": {"word_dropout": 0.15}}, "word dropout 0.15"),
    "word_replacement": ({"model": {"word_replacement": 0.15}}, "0.15 of the tokens replaced"),
    "dropout": ({"model": {"dropout": 0.35}}, "dropout 0.35 of the weights"),
    "label_smoothing": ({"train": {"label_smoothing": 0.1}}, "label smoothing 0.1"),
    "rdrop": ({"train": {"rdrop": 2.0}}, "2 × R-Drop"),
    "rdrop_from": ({"train": {"rdrop": 2.0, "rdrop_from": 0.67}}, "after 67% of the steps"),
    "ema": ({"train": {"ema": 0.99}}, "decay 0.99"),
}
"""What a recipe switches on, and what its figure then says and otherwise does not."""


def texts(recipe: Recipe, title: str = "run") -> list[str]:
    """All that a figure says, in order."""
    drawn = architecture_svg(recipe, model_without_weights(recipe, 300), title)
    return ["".join(text.itertext()) for text in ElementTree.fromstring(drawn).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_parts_of_every_shipped_recipe_add_up(name: str) -> None:
    recipe = load_recipe(name)
    model = model_without_weights(recipe, recipe.tokenizer.vocab_size)
    counts = parameters_by_part(model)
    assert sum(counts.values()) == model.count_parameters()
    assert counts["other"] == 0
    assert all(parameter.is_meta for parameter in model.parameters()), "no memory was taken"


def test_the_parts_of_the_baseline_and_of_all_switches() -> None:
    """Counted by hand: D 16, one layer, 300 entries, blocks of 16."""
    D, V, T = 16, 300, 16
    assert parameters_by_part(model_without_weights(tiny_recipe(None), V)) == {
        "embeddings": V * D + T * D,
        "attention": 4 * D * D + 4 * D,
        "mlp": 8 * D * D + 5 * D,
        "norms": 3 * 2 * D,
        "layer_scale": 0,
        "head": 0,
        "other": 0,
    }
    width = 48  # 8 / 3 of 16, to the next multiple of 8
    assert parameters_by_part(model_without_weights(tiny_recipe(None, model=EVERY_MODEL), V)) == {
        "embeddings": V * 8 + 8 * D,
        "attention": 4 * D * D + 2 * D,
        "mlp": 3 * D * width,
        "norms": 2 * D + 2 * 8,
        "layer_scale": 2 * D,
        "head": V * D,
        "other": 0,
    }


@pytest.mark.parametrize("name", FIGURE)
def test_every_switch_is_in_the_figure_when_it_is_on(name: str) -> None:
    sections, expected = FIGURE[name]
    assert not [text for text in texts(tiny_recipe(None)) if expected in text]
    assert [text for text in texts(tiny_recipe(None, **sections)) if expected in text]


def test_the_figure_shows_the_baseline_as_it_is() -> None:
    said = texts(load_recipe("baseline"))
    for expected in (
        "V × d = 300 × 512", "positions: 128 × 512", "6 ×", "8 heads of 64, causal", "512 → 2,048", "GELU", "512 → 300 logits",
        "tied: the token embeddings", "token ids, up to 128 in a row",
    ):  # fmt: skip
        assert expected in said, expected
    assert said.count("LayerNorm") == 3
    assert "on" not in {
        kind
        for shape in ElementTree.fromstring(
            architecture_svg(load_recipe("baseline"), model_without_weights(load_recipe("baseline"), 300), "x")
        ).iter(f"{SVG}rect")
        for kind in shape.get("class", "").split()
    }, "nothing is in colour that the baseline has"


@pytest.mark.parametrize("sections", [{}, {"model": EVERY_MODEL}, {"model": {"layer_scale": 0.1, "n_layer": 24}}])
def test_the_figure_stays_inside_its_frame_and_brings_all_it_needs(sections: dict[str, dict[str, Any]]) -> None:
    recipe = tiny_recipe(None, **sections)
    drawn = architecture_svg(recipe, model_without_weights(recipe, 300), '<script>"&')
    root = ElementTree.fromstring(drawn)
    width, height = (float(root.get(side, "")) for side in ("width", "height"))
    for rect in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(rect.get(key, "0")) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    assert all(0 < float(text.get("y", "")) < height for text in root.iter(f"{SVG}text"))
    assert "&lt;script&gt;" in drawn
    assert "prefers-color-scheme: dark" in drawn
    assert re.findall(r"https?://\S+?(?=\")", drawn) == ["http://www.w3.org/2000/svg"], (
        "its namespace, and nothing to load"
    )


def test_there_is_no_figure_of_another_model() -> None:
    class Other(LanguageModel):
        def forward(self, *_: Any) -> Any: ...
        def new_cache(self) -> Any: ...
        def flops_per_token(self, row_length: float) -> float:
            return row_length

    with pytest.raises(UserError, match="this model is a Other"):
        architecture_svg(tiny_recipe(None), Other(), "run")


def test_the_base_of_a_recipe_is_the_shipped_one_that_is_nearest() -> None:
    changed = load_recipe("modern", {"model": {"n_layer": 4}, "train": {"seed": 2, "threads": 1}})
    name, differences = nearest_recipe(changed, base_recipes())
    assert name == "modern"
    assert [tuple(each) for each in differences] == [("model.n_layer", 6, 4), ("train.seed", 1337, 2)]
    assert nearest_recipe(load_recipe("muon-rdrop"), base_recipes()) == ("muon-rdrop", [])
    assert nearest_recipe(Recipe(), base_recipes()) == (DEFAULTS, [])


def test_what_a_recipe_leaves_to_the_data_is_no_difference_of_its_runs(titles_file: Path, tmp_path: Path) -> None:
    options = [
        "--data.path",
        str(titles_file),
        "--train.threads",
        "1",
        "--train.device",
        "cpu",
        "--out",
        str(tmp_path / "run"),
    ]
    done = run_command("train", "own", *options, "--max-steps", "1")
    assert done.returncode == 0, done.stderr
    found = json.loads(run_command("show", tmp_path / "run", "--json").stdout)
    assert found["base"] == "own"
    assert [each["field"] for each in found["recipe_differences"]] == ["data.source"]
    assert found["from_data"]["model.d_model"] < load_recipe("own").model.d_model, "else nothing would show"
    assert found["from_data"].keys() == set(load_recipe("own").train.from_data)
    shown = " ".join(run_command("show", tmp_path / "run").stdout.split())
    assert f"own leaves to the data: tokenizer.vocab_size {found['from_data']['tokenizer.vocab_size']}," in shown


def test_show_tells_a_run(whole: Callable[[str], Path], tmp_path: Path) -> None:
    path = whole("shuffled")
    done = run_command("show", path, "--json", "--svg", tmp_path / "model.svg")
    assert done.returncode == 0, done.stderr
    found, scores = json.loads(done.stdout), scores_of(path)
    for key in (
        "loss",
        "official_loss",
        "coverage",
        "bits_per_byte",
        "tuning_loss",
        "steps",
        "tokens",
        "seconds",
        "flops",
    ):
        assert found[key] == scores[key], key
    low, high = found["interval"]
    assert low < found["loss"] < high
    assert found["parameters"]["total"] == scores["parameters"]
    assert sum(count for part, count in found["parameters"].items() if part != "total") == scores["parameters"]
    assert (found["state"], found["complete"], found["max_steps"]) == ("finished", True, scores["steps"])
    kept = sorted(int(folder.name) for folder in (path / "checkpoints").iterdir())
    assert [each["step"] for each in found["checkpoints"]] == kept
    assert all(each["whole"] for each in found["checkpoints"])
    assert found["curve"][-1]["loss"] == scores["loss"]
    fields = {each["field"]: each for each in found["default_differences"]}
    assert fields["model.d_model"] == {"field": "model.d_model", "base": 512, "run": 16}
    assert "train.threads" not in fields, "it decides nothing"
    assert found["base"] in {*shipped_recipes(), DEFAULTS}
    assert (tmp_path / "model.svg").read_text(encoding="utf-8").startswith("<svg")
    shown = run_command("show", path)
    for expected in (f"{scores['loss']:.4f}", "95 % interval", "head tied", "its recipe differs from", "checkpoint of step", "steps"):  # fmt: skip
        assert expected in shown.stdout


def test_show_of_an_unfinished_run_and_of_a_damaged_checkpoint(stopped: Path, tmp_path: Path) -> None:
    found = json.loads(run_command("show", stopped, "--json").stdout)
    assert found["state"].startswith("stopped after 3 of ")
    assert found["loss"] is not None
    weights = stopped / "checkpoints" / "0000003" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    RunFolder(stopped).remove_result()
    found = json.loads(run_command("show", stopped, "--json").stdout)
    assert found["state"].startswith("unfinished: 3 of ")
    assert (found["loss"], found["interval"], found["steps"]) == (None, None, None)
    assert not found["checkpoints"][-1]["whole"]
    assert "model.safetensors is not what was written" in found["checkpoints"][-1]["damage"]
    shown = run_command("show", stopped).stdout
    assert "damaged: model.safetensors" in shown
    assert "the last that was evaluated" in shown
    (stopped / "metrics.jsonl").write_bytes(b"")
    shutil.rmtree(stopped / "checkpoints")
    shown = run_command("show", stopped).stdout
    assert "no checkpoint" in shown
    assert "there is no curve" in shown
    refused = run_command("show", stopped, "--chart", tmp_path / "curve.svg")
    assert refused.returncode == 2
    assert "no curve to draw" in refused.stderr


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["/nowhere"], "is not a run"),
        (["RUN", "--svg", "model.png"], "model.png: the figure is drawn as .svg"),
        (["RUN", "--svg", "/nowhere/model.svg"], "/nowhere/model.svg can't be written"),
        (["RUN", "--chart", "curves.sgv"], "did you mean 'svg'?"),
    ],
)
def test_what_show_refuses(args: list[str], expected: str, whole: Callable[[str], Path]) -> None:
    done = run_command("show", *(str(whole("shuffled")) if arg == "RUN" else arg for arg in args))
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in " ".join(done.stderr.split())
