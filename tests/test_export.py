"""Models handed on: each class of transformers and each ONNX graph gives what the trained model gives, or is refused.

Shapes: B rows, T positions.
"""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from shortrun.disk import file_sha256, json_sha256
from shortrun.errors import ShortrunError, UserError
from shortrun.export.classes import HELD, NEEDS, obstacles
from shortrun.export.exported import Exported, OfTransformers, read_exported
from shortrun.export.fast_tokenizer import read_fast_tokenizer
from shortrun.export.formats import FORMATS, GRAPH, WEIGHTS, never_written
from shortrun.export.parity import Continuation, Parity
from shortrun.export.verify import MANIFEST, read_manifest, verify
from shortrun.export.weights import tensors_of
from shortrun.export.write import export
from shortrun.model.make import make_model
from shortrun.recipe import ModelConfig
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import Trained
from shortrun.tokens.kinds import make_tokenizer
from shortrun.train.fit import train
from tests.conftest import EVERY_MODEL, run_command, scores_of, tiny_recipe
from tests.hostile import damaged, plant, tried
from tests.test_two_members import TwoMembers

GPT2_SWITCHES = {"mlp": "relu2", "bias": False, "tied_head": False, "scale_embeddings": True, "layer_scale": 0.3}
LLAMA = {"positions": "rotary", "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "rope_base": 50.0}
SHAPES: dict[str, dict[str, Any]] = {
    "GPT-2": {},
    "GPT-2, squared ReLU, no biases, other head": GPT2_SWITCHES,
    "GPT-2, scaled embeddings that are the head": {"scale_embeddings": True},
    "GPT-2, factorised embeddings that are the head": {"embedding_width": 4},
    "GPT-2, factorised embeddings, other head": {"embedding_width": 4, "tied_head": False, "scale_embeddings": True},
    "Llama": LLAMA,
    "Llama, scaled factorised embeddings that are the head": {**LLAMA, "embedding_width": 4, "scale_embeddings": True},
    "Llama with biases, other head, LayerScale": {**LLAMA, "bias": True, "tied_head": False, "layer_scale": 0.3},
    "Llama, scaled embeddings that are the head": {**LLAMA, "scale_embeddings": True},
}
BPE = {"kind": "bpe", "vocab_size": 300}
UNIGRAM = {"kind": "unigram", "vocab_size": 320}


def untrained(titles: list[str], model: dict[str, Any], tokenizer: dict[str, Any] = BPE) -> Trained:
    """A model of two layers whose every weight, bias and gain is random, so that none can be lost unnoticed."""
    values = {"n_layer": 2, "n_head": 2, "d_model": 16, **model}
    recipe = tiny_recipe(None, model=values, tokenizer=tokenizer)
    torch.manual_seed(3)
    made = make_tokenizer(titles, recipe.tokenizer)
    trained = Trained(recipe, made, make_model(recipe, made.vocab_size, made.eos).eval(), step=1)
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return trained


def handed_on(trained: Trained, format: str, folder: Path) -> Exported:
    """The model alone, written and read back."""
    FORMATS[format].write(trained, FORMATS[format].name_for(trained), folder)
    model, tokenizer = trained.model, trained.tokenizer
    facts = {"block_size": model.block_size, "vocab_size": model.vocab_size, "eos": tokenizer.eos}
    return read_exported(folder, format, {**facts, "never_written": never_written(trained)})


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_a_class_of_transformers_gives_the_same_logits(titles: list[str], tmp_path: Path, shape: str) -> None:
    trained = untrained(titles, SHAPES[shape])
    exported = handed_on(trained, "hf", tmp_path)
    assert FORMATS["hf"].name_for(trained) == ("LlamaForCausalLM" if shape.startswith("Llama") else "GPT2LMHeadModel")
    for T in (1, 7, trained.model.block_size):
        x_BT = torch.randint(0, trained.model.vocab_size, (3, T))
        expected_BTV = trained.model(x_BT)
        assert expected_BTV.std() > 0.3
        assert torch.allclose(exported(x_BT), expected_BTV, rtol=0, atol=2e-5)


@torch.no_grad()
def test_rows_filled_up_on_the_left_go_on_alike(titles: list[str], tmp_path: Path) -> None:
    """The tokenizer fills rows up where a model that goes on from their ends needs it."""
    for shape in ("GPT-2", "Llama"):
        trained = untrained(titles, SHAPES[shape])
        exported = handed_on(trained, "hf", tmp_path)
        assert isinstance(exported, OfTransformers)
        tokenizer, model = exported._tokenizer, exported._model
        prefixes = ["für", "Rust is fast"]
        batch = tokenizer(prefixes, return_tensors="pt", padding=True)
        assert (batch["attention_mask"] == 0).any()
        together = model.generate(**batch, do_sample=False, max_length=14)[:, batch["input_ids"].shape[1] :].tolist()
        for prefix, found in zip(prefixes, together, strict=True):
            alone = exported.greedy(trained.tokenizer.encode(prefix), len(found))
            assert found[: len(alone)] == alone


def test_every_field_of_the_model_is_held_or_can_stand_in_the_way() -> None:
    for needs in NEEDS.values():
        fields = [need.field for need in needs]
        assert len(fields) == len(set(fields))
        assert {*fields, *HELD} == ModelConfig.model_fields.keys()
        assert not set(fields) & HELD.keys()


def test_each_need_alone_is_an_obstacle() -> None:
    others: dict[str, tuple[Any, ...]] = {
        "positions": ("learned", "rotary"),
        "norm": ("layernorm", "rmsnorm"),
        "mlp": ("gelu", "relu2", "swiglu"),
    }
    others |= {"block": ("sequential", "parallel"), "output_gate": (False, True), "qk_norm": (False, True)}
    others |= {"members": (1, 3)}
    for name, base in (("GPT2LMHeadModel", {}), ("LlamaForCausalLM", LLAMA)):
        assert not obstacles(tiny_recipe(None, model=base), name)
        for need in NEEDS[name]:
            assert set(need.allowed) < set(others[need.field])
            for value in set(others[need.field]) - set(need.allowed):
                (line,) = obstacles(tiny_recipe(None, model={**base, need.field: value}), name)
                assert f"model.{need.field} = " in line
                assert need.because in line


def test_a_pipeline_goes_on_as_our_model_does(exported: Callable[[str, str], Path]) -> None:
    """It begins after one `<eos>`, and the space before the first new word is kept."""
    transformers = pytest.importorskip("transformers")
    out = exported("gpt2", "hf")
    pipeline = transformers.pipeline("text-generation", str(out))
    fast = read_fast_tokenizer(out)
    for one in Parity.read(out).continuations:
        if one.prefix:
            (found,) = pipeline(one.prefix, do_sample=False, max_new_tokens=len(one.ids))
            assert found["generated_text"] == one.prefix + fast.decode(one.ids)


@pytest.fixture(scope="module")
def runs(titles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A trained run of each kind, made once."""
    folder = tmp_path_factory.mktemp("runs")
    file = folder / "titles.txt"
    file.write_text("\n".join(titles) + "\n", encoding="utf-8")
    rng, ties = random.Random(7), folder / "ties.txt"
    words = ["wait", "...", "..", "!!!", "!!", "aa", "aaa", "no"]
    lines = ("".join(rng.choices(words, k=rng.randint(1, 30))) + "." * rng.randint(0, 60) for _ in range(400))
    ties.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kinds: dict[str, dict[str, dict[str, Any]]] = {
        "gpt2": {},
        "llama": {"model": {**LLAMA, "layer_scale": 0.1}, "tokenizer": UNIGRAM},
        "ties": {"data": {"path": [str(ties)], "num_titles": 400}, "tokenizer": {"kind": "unigram", "vocab_size": 300}},
        "every": {"model": {**EVERY_MODEL, "mlp": "relu2"}, "tokenizer": {"kind": "character", "vocab_size": 280}},
    }

    def made(kind: str) -> Path:
        if not (folder / kind).exists():
            train(tiny_recipe(file, **kinds[kind]), folder / kind)
        return folder / kind

    return made


@pytest.fixture(scope="module")
def exported(runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """An export of a run, made once; to look at, not to change."""
    folder = tmp_path_factory.mktemp("exports")

    def made(kind: str, format: str) -> Path:
        out = folder / f"{kind}-{format}"
        if not out.exists():
            export(runs(kind), out, format)
        return out

    return made


FILES = {"README.md", "recipe.toml", "scores.json", "parity.json", "parity.npz", "export.json"}
FILES |= {"tokenizer.json", "tokenizer_config.json"}
OF_HF = {"config.json", "generation_config.json", "model.safetensors"}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_export_of_transformers_is_whole_and_passes(
    runs: Callable[[str], Path], exported: Callable[[str, str], Path], kind: str
) -> None:
    run, out = runs(kind), exported(kind, "hf")
    more = {"tokenizer.model"} if kind == "llama" else set()
    assert {path.name for path in out.iterdir()} == FILES | OF_HF | more
    done = run_command("verify", out, run, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = ["files", "ids", "logits", "loss", "generate", "ids of the run's documents", "loss of the run's documents"]
    assert [check["name"] for check in found["checks"]] == names
    assert found["passed"] is True
    assert (out / "recipe.toml").read_bytes() == (run / "recipe.toml").read_bytes()
    assert json.loads((out / "scores.json").read_text()) == scores_of(run)


def test_the_card_says_how_good_the_model_is_and_how_to_load_it(
    runs: Callable[[str], Path], exported: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = runs("llama"), exported("llama", "hf")
    page, scores = (out / "README.md").read_text(encoding="utf-8"), scores_of(run)
    for told in (f"{scores['loss']:.4f}", f"{scores['coverage']:.1%}", "95 % interval", scores["data"]["sha256"]):
        assert told in page
    assert "LayerScale is folded" in page
    code = page.partition("```python\n")[2].partition("```")[0]
    exec(code.replace(f'"{out.name}"', repr(str(out))), {})
    assert capsys.readouterr().out.startswith("Show HN")


def test_a_loss_of_the_parity_file_is_the_runs_own(
    runs: Callable[[str], Path], exported: Callable[[str, str], Path]
) -> None:
    """Nats that the run wrote down itself when it ended, by another way than the export's."""
    parity = Parity.read(exported("gpt2", "hf"))
    nats_D = RunFolder.open(runs("gpt2")).nats().nats_D
    assert len(parity.texts) == 20
    assert np.allclose(parity.nats_D, nats_D[:20], rtol=1e-5)
    assert len(parity.place_P) == parity.logits_PV.shape[0] >= 20
    assert any(one.prefix == "" for one in parity.continuations)
    assert sum(len(one.ids) for one in parity.continuations) > 3


def test_where_the_fast_tokenizer_may_choose_otherwise_it_is_said_and_sentencepiece_is_compared(
    runs: Callable[[str], Path], tmp_path: Path
) -> None:
    run, out = runs("ties"), tmp_path / "out"
    made = export(run, out)
    counts = made.manifest["tokenizer"]
    assert counts["differing"] > 0
    page = (out / "README.md").read_text(encoding="utf-8")
    assert f"in {counts['differing']} of {counts['checked']:,} documents" in page
    found = verify(out, run)
    assert not found.failed
    assert any("tokenizer.model is compared" in note for note in found.notes)


def copied(out: Path, folder: Path) -> Path:
    return Path(shutil.copytree(out, folder / "copy"))


def resealed(out: Path) -> Path:
    """With the sha256 of the files as they are now, as if whoever changed one had covered it up."""
    manifest = read_manifest(out)
    manifest["files"] = {name: file_sha256(out / name) for name in manifest["files"]}
    (out / MANIFEST).write_text(json.dumps({**manifest, "seal": json_sha256(manifest)}))
    return out


def test_a_changed_file_is_named(exported: Callable[[str, str], Path], tmp_path: Path) -> None:
    out = copied(exported("gpt2", "hf"), tmp_path)
    content = bytearray((out / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (out / WEIGHTS).write_bytes(content)
    (out / "config.json").unlink()
    done = run_command("verify", out)
    assert done.returncode == 1
    assert f"{WEIGHTS} has changed" in done.stderr
    assert "config.json is missing" in done.stderr


def change_weight(out: Path) -> None:
    tensors = load_file(out / WEIGHTS)
    tensors["transformer.h.0.mlp.c_proj.weight"][0, 0] += 0.05
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})


def change_activation(out: Path) -> None:
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "activation_function": "relu"}))


def change_tokenizer(out: Path) -> None:
    tree = json.loads((out / "tokenizer.json").read_text())
    tree["model"]["merges"] = tree["model"]["merges"][1:]
    (out / "tokenizer.json").write_text(json.dumps(tree))


def change_continuation(out: Path) -> None:
    parity = Parity.read(out)
    first = parity.continuations[0]
    other = Continuation(first.prefix, [(first.ids[0] + 1) % 300, *first.ids[1:]])
    Parity(parity.texts, parity.ids, parity.nats_D, parity.place_P, parity.logits_PV, (other,)).save(out)


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "weight": (change_weight, "logits differ"),
    "activation": (change_activation, "logits differ"),
    "tokenizer": (change_tokenizer, "ids are others for"),
    "continuation": (change_continuation, "generate goes on from"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_said(exported: Callable[[str, str], Path], tmp_path: Path, change: str) -> None:
    out = copied(exported("gpt2", "hf"), tmp_path)
    make, told = CHANGES[change]
    make(out)
    done = run_command("verify", resealed(out), "--json")
    assert done.returncode == 1
    assert told in done.stderr
    assert json.loads(done.stdout)["passed"] is False


@pytest.mark.parametrize("name", [MANIFEST, "parity.json", "parity.npz", "config.json", "tokenizer.json", WEIGHTS])
def test_any_export_is_compared_or_refused(name: str, exported: Callable[[str, str], Path], tmp_path: Path) -> None:
    """Whatever a stranger has put into an export, and made its checksums right again."""
    out = copied(exported("gpt2", "hf"), tmp_path)
    content, manifest = (out / name).read_bytes(), (out / MANIFEST).read_bytes()

    @tried(4)
    @given(st.data())
    def held(data: st.DataObject) -> None:
        (out / MANIFEST).write_bytes(manifest)
        (out / name).write_bytes(content)
        with suppress(ShortrunError):
            if name.endswith(".json") and data.draw(st.integers(0, 3)):
                tree = json.loads(content)
                plant(data, tree)
                if name == MANIFEST:
                    tree = {**{key: value for key, value in tree.items() if key != "seal"}}
                    tree["seal"] = json_sha256(tree)
                (out / name).write_text(json.dumps(tree), encoding="utf-8")
            else:
                (out / name).write_bytes(data.draw(damaged(content)))
            if name != MANIFEST:
                resealed(out)
            verify(out)

    held()


def test_no_code_of_an_export_runs_and_no_file_outside_is_read(
    exported: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Code beside the model, weights that are pickled, and files elsewhere: each is refused."""
    out, canary = copied(exported("gpt2", "hf"), tmp_path), tmp_path / "canary"
    config = json.loads((out / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "mine.Mine", "AutoConfig": "mine.Mine"}, "model_type": "mine"}
    (out / "config.json").write_text(json.dumps(config))
    (out / "mine.py").write_text(f"open({str(canary)!r}, 'w')")
    with pytest.raises(ShortrunError, match="can't be read as an export"):
        verify(resealed(out))
    pickled = Path(shutil.copytree(exported("gpt2", "hf"), tmp_path / "pickled"))
    torch.save(load_file(pickled / WEIGHTS), pickled / "pytorch_model.bin")
    manifest = read_manifest(pickled)
    (pickled / WEIGHTS).unlink()
    manifest["files"] = {name: sha256 for name, sha256 in manifest["files"].items() if name != WEIGHTS}
    (pickled / MANIFEST).write_text(json.dumps({**manifest, "seal": json_sha256(manifest)}))
    with pytest.raises(ShortrunError, match="can't be read as an export"):
        verify(pickled)
    manifest["files"]["../../../../../../dev/zero"] = "0" * 64
    (pickled / MANIFEST).write_text(json.dumps({**manifest, "seal": json_sha256(manifest)}))
    with pytest.raises(UserError, match="is no file of this folder"):
        verify(pickled)
    assert not canary.exists()


def test_a_loss_that_differs_on_the_runs_documents_is_said(
    runs: Callable[[str], Path], exported: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shortrun.export.verify.LOSS_TOLERANCE", -1.0)  # no two losses are that close
    failed = verify(exported("gpt2", "hf"), runs("gpt2")).failed
    assert [check.name for check in failed] == ["loss", "loss of the run's documents"]
    assert "40 validation documents" in failed[1].found


def test_another_run_and_what_is_no_export_are_refused(
    runs: Callable[[str], Path], exported: Callable[[str, str], Path], tmp_path: Path
) -> None:
    out = exported("gpt2", "hf")
    with pytest.raises(UserError, match="is not the run that the export was made of"):
        verify(out, runs("llama"))
    with pytest.raises(UserError, match=r"is not an export: it has no export\.json"):
        verify(runs("gpt2"))
    copy = copied(out, tmp_path)
    (copy / MANIFEST).write_text((copy / MANIFEST).read_text().replace('"block_size": 16', '"block_size": 17'))
    with pytest.raises(UserError, match="has changed since it was written"):
        verify(copy)


def test_a_recipe_that_the_classes_cant_hold_is_refused_with_every_reason(
    runs: Callable[[str], Path], tmp_path: Path
) -> None:
    done = run_command("export", runs("every"), tmp_path / "out")
    assert done.returncode == 2
    gpt2, llama = sorted(done.stderr.removeprefix("shortrun: ").split(" of transformers can't hold this recipe:")[1:])
    for told in (gpt2, llama):
        for field in ("model.block", "model.output_gate", "model.qk_norm"):
            assert f"{field} = " in told
    assert 'model.mlp = "relu2": only "swiglu", because its MLP multiplies a gate and a value' in done.stderr
    assert 'model.positions = "rotary": only "learned"' in done.stderr
    assert "--format onnx" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_or_inside_the_run_is_refused(runs: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "note").touch()
    with pytest.raises(UserError, match="already exists and is not empty"):
        export(runs("gpt2"), tmp_path)
    with pytest.raises(UserError, match="inside the run"):
        export(runs("gpt2"), runs("gpt2") / "export")


def test_data_that_has_moved_is_found_where_it_is_said_to_be(titles_file: Path, tmp_path: Path) -> None:
    train(tiny_recipe(titles_file), tmp_path / "run", max_steps=1)
    moved = titles_file.rename(tmp_path / "moved.txt")
    with pytest.raises(UserError, match=r"titles\.txt"):
        export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = run_command("export", tmp_path / "run", tmp_path / "out", "--data.path", moved)
    assert done.returncode == 0, done.stderr
    assert "stopped before its last step" in (tmp_path / "out" / "README.md").read_text()
    assert run_command("verify", tmp_path / "out", tmp_path / "run", "--data.path", moved).returncode == 0


def test_a_missing_library_is_a_sentence(
    runs: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    missing = ("transformers", "onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in missing else find(name))
    for format in FORMATS:
        with pytest.raises(UserError, match=rf"pip install 'shortrun\[{format}\]'"):
            export(runs("gpt2"), tmp_path / "out", format)


def test_an_export_that_does_not_pass_never_appears(
    runs: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def damaged(model: Any, name: str) -> dict[str, torch.Tensor]:
        tensors = tensors_of(model, name)
        tensors["transformer.h.0.attn.c_attn.weight"].mul_(1.5)
        return tensors

    monkeypatch.setattr("shortrun.export.formats.tensors_of", damaged)
    with pytest.raises(ShortrunError, match="so none was written: logits differ"):
        export(runs("gpt2"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_graph_holds_every_switch(runs: Callable[[str], Path], tmp_path: Path) -> None:
    run, out = runs("every"), tmp_path / "out"
    done = run_command("export", run, out, "--format", "onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True
    assert {path.name for path in out.iterdir()} == {*FILES, GRAPH, "tokenizer.model"}
    assert not verify(out, run).failed
    page = (out / "README.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0].replace('"out/', f'"{out}/'), names)
    assert names["logits"].shape == (*names["ids"].shape, 280)
    manifest = read_manifest(out)
    model = read_exported(out, "onnx", manifest["model"])
    for shape in ((1, 1), (5, 1), (2, model.block_size)):
        assert model(torch.ones(shape, dtype=torch.int64)).shape == (*shape, model.vocab_size)
    with pytest.raises(Exception, match=r"16|17"):
        model(torch.ones((1, model.block_size + 1), dtype=torch.int64))


@pytest.mark.slow
def test_an_ensemble_is_a_graph_and_no_class_of_transformers(
    titles: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shortrun.model.make.GPT", TwoMembers)
    file = tmp_path / "titles.txt"
    file.write_text("\n".join(titles) + "\n", encoding="utf-8")
    train(tiny_recipe(file), tmp_path / "run")
    with pytest.raises(UserError, match="transformers has no class for a TwoMembers"):
        export(tmp_path / "run", tmp_path / "out", "hf")
    made = export(tmp_path / "run", tmp_path / "out", "onnx")
    assert not made.verification.failed
    assert not verify(tmp_path / "out", tmp_path / "run").failed
    model = read_exported(tmp_path / "out", "onnx", made.manifest["model"])
    with pytest.raises(Exception, match=r"16|17"):  # learned positions
        model(torch.ones((1, model.block_size + 1), dtype=torch.int64))
