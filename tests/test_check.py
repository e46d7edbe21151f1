"""The rule checker on run folders: honest runs keep every rule, and each planted fault breaks the rule that it is about."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shortrun.check.registry import LOG_CHECKS, RUN_CHECKS
from shortrun.check.rules import load_rules
from shortrun.check.run import check_run
from shortrun.check.verdict import Verdict
from shortrun.disk import file_sha256, json_sha256
from shortrun.errors import UserError
from shortrun.model.attention import CausalSelfAttention
from shortrun.model.gpt import GPT
from shortrun.model.language_model import Cache
from shortrun.model.layout import Layout
from shortrun.model.make import make_model
from shortrun.recipe_file import parse_recipe, to_toml
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder, run_fingerprint
from shortrun.runs.trained import load_trained
from shortrun.score import cross_entropy
from shortrun.tokens.rows import Rows
from shortrun.train import assembly
from shortrun.train.fit import train
from tests.conftest import EVERY_MODEL, ROOT, run_command, tiny_recipe

RECORD = [
    "7 epochs",
    "seed 1337",
    "data",
    "share",
    "evaluation untouched",
    "scores agree",
    "no pretrained weights",
    "no augmentation",
]
MODES = ("stream", "shuffled", "documents")
ARCHITECTURE: dict[str, dict[str, Any]] = {
    "every switch": {"model": EVERY_MODEL, "optim": {"sharpness": "sam"}, "train": {"rdrop": 0.1, "ema": 0.9}},
    "pieces": {
        "tokenizer": {"kind": "unigram", "vocab_size": 400, "case": "factored"},
        "batches": {"mode": "documents", "block_size": 8},
    },
    "members": {"model": {"members": 2}, "train": {"rdrop": 0.1}},
}


def rules_for(run: Path, folder: Path, changes: dict[str, str] | None = None) -> str:
    """Mainrun's rules with the values of a tiny run; `changes` replaces further lines, each once."""
    text = (ROOT / "src" / "shortrun" / "rules" / "mainrun.toml").read_text(encoding="utf-8")
    manifest = RunFolder(run).manifest()
    sha256, documents = (
        manifest["data"]["sha256"],
        sum(each["documents"] for each in manifest["data"]["splits"].values()),
    )
    replaced = {
        "epochs = 7\n": "epochs = 2\n",
        "times = 7": "times = 2",
        "titles = 100_000": f"titles = {documents}",
        "cb97c94d17cfc7b1bdf7c627770c647748a9a0b3460dc949af77ed6ec4f39c2a": sha256,
        'reposts_of = ["hackernews"]': 'reposts_of = ["file"]',  # its random titles repeat one another
        "at_least = 0.95\n": "at_least = 0.5\n",
        **(changes or {}),
    }
    for old, new in replaced.items():
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def judged(run: Path, folder: Path, changes: dict[str, str] | None = None, *, deep: bool = True) -> dict[str, Verdict]:
    return {each.rule: each for each in check_run(run, rules_for(run, folder, changes), deep=deep)}


def words(verdicts: dict[str, Verdict]) -> dict[str, str]:
    return {rule: each.verdict for rule, each in verdicts.items()}


def broken(verdicts: dict[str, Verdict]) -> set[str]:
    return {rule for rule, each in verdicts.items() if each.verdict == "broken"}


def assert_all_kept(verdicts: dict[str, Verdict], but: Sequence[str] = ()) -> None:
    """All rules, but for some of which nothing is known."""
    expected = dict.fromkeys(verdicts, "kept") | {"revision of the data": "unknown"}  # it is none of Mainrun's
    expected |= dict.fromkeys(but, "unknown")
    assert words(verdicts) == expected, [each for each in verdicts.values() if each.verdict == "broken"]


@pytest.mark.parametrize("mode", MODES)
def test_an_honest_run_keeps_every_rule(mode: str, whole: Callable[[str], Path], tmp_path: Path) -> None:
    verdicts = judged(whole(mode), tmp_path)
    assert len(verdicts) == len(RUN_CHECKS) - 1, "Mainrun limits nothing"
    assert_all_kept(verdicts)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURE)
def test_other_honest_runs_do_too(kind: str, titles_file: Path, tmp_path: Path) -> None:
    """Documents that outgrow the block among them, which are scored in windows."""
    train(tiny_recipe(titles_file, **ARCHITECTURE[kind]), tmp_path / "run")
    verdicts = judged(tmp_path / "run", tmp_path)
    if kind == "every switch":  # among them one that replaces input tokens
        assert_all_kept(verdicts, but=["no augmentation"])
        assert "model.word_replacement replaces 0.1 of the input tokens" in verdicts["no augmentation"].evidence
    else:
        assert_all_kept(verdicts)


def test_mainruns_own_rules_on_a_run_that_is_none_of_its(whole: Callable[[str], Path]) -> None:
    verdicts = {each.rule: each.verdict for each in check_run(whole("shuffled"), deep=False)}
    assert list(verdicts) == RECORD
    assert verdicts == {
        "7 epochs": "broken", "seed 1337": "kept", "data": "unknown", "share": "broken", "evaluation untouched": "kept",
        "scores agree": "kept", "no pretrained weights": "kept", "no augmentation": "kept",
    }  # fmt: skip


@pytest.fixture
def run(whole: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of an honest run, to plant a fault in."""
    shutil.copytree(whole("shuffled"), tmp_path / "run")
    return tmp_path / "run"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Changes a JSON file, or a file of JSON lines as a list."""
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        change(lines)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def reseal(checkpoint: Path) -> None:
    """Makes a changed checkpoint look whole."""
    record = json.loads((checkpoint / "checkpoint.json").read_text())
    record.pop("seal")
    record["files"] = {name: file_sha256(checkpoint / name) for name in record["files"]}
    (checkpoint / "checkpoint.json").write_text(json.dumps({**record, "seal": json_sha256(record)}))


def newest(run: Path) -> Path:
    checkpoint, _ = newest_checkpoint(RunFolder.open(run))
    assert checkpoint is not None
    return checkpoint.path


def evaluations(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == "validation_step"]


def test_the_best_reported_instead_of_the_last(run: Path, tmp_path: Path) -> None:
    """First in scores.json alone, then in the log too: the last evaluation holds another's number, and not the weights'."""
    earlier = evaluations(list(RunFolder(run).metrics()))[-2]["loss"]
    edit(run / "scores.json", lambda scores: scores.update(official_loss=earlier))
    assert broken(judged(run, tmp_path)) >= {"last step", "official loss", "evaluation untouched"}
    edit(run / "metrics.jsonl", lambda lines: evaluations(lines)[-1].update(loss=earlier, official_loss=earlier))
    verdicts = judged(run, tmp_path)
    assert broken(verdicts) == {"last step", "official loss"}
    assert "the very number" in verdicts["last step"].evidence


@pytest.mark.parametrize("less", [0.02, 2e-4])
def test_a_loss_below_what_the_checkpoint_gives(less: float, run: Path, tmp_path: Path) -> None:
    """Written alike wherever it stands, so only the weights contradict it."""
    loss = json.loads((run / "scores.json").read_text())["official_loss"] - less
    edit(run / "scores.json", lambda scores: scores.update(official_loss=loss))
    edit(run / "metrics.jsonl", lambda lines: evaluations(lines)[-1].update(loss=loss, official_loss=loss))
    assert broken(judged(run, tmp_path)) == {"official loss"}


def test_an_own_loss_below_what_the_checkpoint_gives(run: Path, tmp_path: Path) -> None:
    """In scores.json alone, then with all that follows from it, then in nats.npz, too."""
    edit(run / "scores.json", lambda scores: scores.update(loss=scores["loss"] - 0.01))
    verdicts = judged(run, tmp_path)
    assert broken(verdicts) == {"scores agree", "own loss"}
    assert "scores.json says loss" in verdicts["scores agree"].evidence

    def all_alike(scores: dict[str, Any]) -> None:
        scores["nats"] *= 0.99
        scores["loss"] = scores["nats"] / scores["characters"]
        scores["bits_per_byte"] *= 0.99
        scores["perplexity"] = math.exp(scores["nats"] / scores["targets"])

    edit(run / "scores.json", all_alike)
    assert "nats.npz sums up to" in judged(run, tmp_path, deep=False)["scores agree"].evidence
    arrays = dict(np.load(run / "nats.npz"))
    total = json.loads((run / "scores.json").read_text())["nats"]
    arrays["validation"] *= total / arrays["validation"].sum()
    np.savez(run / "nats.npz", **arrays)
    assert broken(judged(run, tmp_path)) == {"own loss", "one pass, left to right"}


def test_nats_of_documents_that_are_not_the_models(run: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(run / "nats.npz"))
    arrays["validation"] = arrays["validation"] * 0.9
    np.savez(run / "nats.npz", **arrays)
    assert broken(judged(run, tmp_path)) == {"scores agree", "own loss", "one pass, left to right"}


@pytest.mark.parametrize(
    ("limits", "verdict", "evidence"),
    [
        ("epochs = 2\npasses = 100000\nloss = 9.0", "kept", "epochs 2"),
        ("epochs = 1.5", "broken", "epochs 2 is above 1.5"),
        ("parameters = 10\nofficial_loss = 0.1", "broken", "is above 10; official_loss"),
        ("", "unknown", "the rule limits nothing"),
    ],
)
def test_limits(limits: str, verdict: str, evidence: str, run: Path, tmp_path: Path) -> None:
    rules = tmp_path / "limits.toml"
    rules.write_text(f'about = "x"\n[[rule]]\nname = "small"\ndemands = "Small."\ncheck = "limits"\n{limits}\n')
    found = check_run(run, str(rules))[0]
    assert found.verdict == verdict
    assert evidence in found.evidence


def test_documents_seen_altered(run: Path, tmp_path: Path) -> None:
    """Without its seal the checkpoint is damaged; sealed anew, the counts are not 2."""
    path = newest(run)
    state = torch.load(path / "state.pt", weights_only=True)
    state["documents_seen"][:7] += 1
    torch.save(state, path / "state.pt")
    verdicts = judged(run, tmp_path)
    assert broken(verdicts) == {"whole record"}
    assert verdicts["every title 7 times"].verdict == "unknown"
    reseal(path)
    verdicts = judged(run, tmp_path)
    assert broken(verdicts) == {"every title 7 times"}
    assert "7 training documents not seen 2 times" in verdicts["every title 7 times"].evidence


def test_documents_seen_of_a_stream_altered(whole: Callable[[str], Path], tmp_path: Path) -> None:
    """Where not all are seen equally often, the counts must be the geometry's."""
    run = tmp_path / "run"
    shutil.copytree(whole("stream"), run)
    path = newest(run)
    state = torch.load(path / "state.pt", weights_only=True)
    assert len(state["documents_seen"].unique()) > 1
    state["documents_seen"][:] = 2
    torch.save(state, path / "state.pt")
    reseal(path)
    assert broken(judged(run, tmp_path)) == {"every title 7 times"}


def test_more_epochs(run: Path, tmp_path: Path) -> None:
    """A run of 2 where 1 is the rule, and one whose recipe.toml alone says 8."""
    verdicts = judged(run, tmp_path, {"epochs = 2\n": "epochs = 1\n", "times = 2": "times = 1"})
    assert broken(verdicts) == {"7 epochs", "every title 7 times"}
    recipe_file = run / "recipe.toml"
    recipe_file.write_text(recipe_file.read_text().replace("epochs = 2", "epochs = 8"))
    verdicts = judged(run, tmp_path)
    assert broken(verdicts) == {"7 epochs", "whole record"}
    assert "recipe.toml says epochs 8, not 2" in verdicts["7 epochs"].evidence


def test_steps_taken_in_secret(run: Path, tmp_path: Path) -> None:
    def doubled(lines: list[dict[str, Any]]) -> None:
        lines += [dict(line) for line in lines if line["event"] == "training_step"]

    edit(run / "metrics.jsonl", doubled)
    assert "7 epochs" in broken(judged(run, tmp_path, deep=False))


def test_a_run_that_has_not_ended(stopped: Path, tmp_path: Path) -> None:
    verdicts = judged(stopped, tmp_path)
    assert {"7 epochs", "last step", "every title 7 times"} <= broken(verdicts)
    (stopped / "scores.json").unlink()
    verdicts = judged(stopped, tmp_path)
    assert not broken(verdicts)
    assert "has not ended" in verdicts["official loss"].evidence


def test_another_seed(titles_file: Path, tmp_path: Path) -> None:
    train(tiny_recipe(titles_file, train={"seed": 5}), tmp_path / "run", max_steps=1)
    assert "seed 1337" in broken(judged(tmp_path / "run", tmp_path, deep=False))


def test_validation_titles_in_training(titles: list[str], tmp_path: Path) -> None:
    """Exact ones break the rule; those that differ in a letter or in case are reported."""
    distinct = [f"{title} number {number} of many" for number, title in enumerate(titles)]
    held = distinct[-40:]
    almost = [text.upper() for text in held[20:]]
    rows = [*distinct[:320], *held[:20], *almost, *held]
    (tmp_path / "leaky.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    data = {"num_titles": len(rows), "shuffle": False}
    train(tiny_recipe(tmp_path / "leaky.txt", data=data), tmp_path / "run", max_steps=1)
    changes = {'reposts_of = ["file"]': "reposts_of = []"}
    found = judged(tmp_path / "run", tmp_path, changes)["no validation title in training"]
    assert found.verdict == "broken"
    assert "of 40 validation titles, 20 are training titles too" in found.evidence
    assert "20 more nearly" in found.evidence


def forged(run: Path, **tokenizer: Any) -> None:
    """Writes another tokenizer section into recipe and manifest, with fingerprints that fit."""
    folder = RunFolder(run)
    manifest = folder.manifest()
    manifest["recipe"]["tokenizer"].update(tokenizer)
    recipe, _ = parse_recipe(manifest["recipe"], "forged")
    manifest["fingerprint"] = run_fingerprint(recipe, manifest["data"]["sha256"], manifest["tokenizer"]["sha256"])
    folder.manifest_file.write_text(json.dumps(manifest))
    folder.recipe_file.write_text(to_toml(recipe), encoding="utf-8")
    edit(folder.scores_file, lambda scores: scores.update(fingerprint=manifest["fingerprint"]))


def test_a_tokenizer_fitted_on_validation_too(titles_file: Path, tmp_path: Path) -> None:
    """The recipe is forged to say that it was fitted on the training titles, and everything else fits."""
    run = tmp_path / "run"
    train(tiny_recipe(titles_file, tokenizer={"fit_on": "train+validation"}), run)
    assert_all_kept(judged(run, tmp_path))
    only = {'allowed = ["train", "train+validation"]': 'allowed = ["train"]'}
    assert broken(judged(run, tmp_path, only)) == {"tokenizer's titles"}
    forged(run, fit_on="train")
    verdicts = judged(run, tmp_path)
    assert broken(verdicts) == {"tokenizer's titles"}
    assert 'the file is what "train+validation" gives' in verdicts["tokenizer's titles"].evidence


def test_a_tokenizer_that_loses_text(run: Path, tmp_path: Path) -> None:
    """It lower-cases; its fingerprint is forged to fit."""
    folder = RunFolder(run)
    edit(folder.tokenizer_file, lambda tree: tree.update(normalizer={"type": "Lowercase"}))
    sha256 = file_sha256(folder.tokenizer_file)
    edit(folder.manifest_file, lambda manifest: manifest["tokenizer"].update(sha256=sha256))
    forged(run)
    assert {"lossless tokenizer", "tokenizer's titles", "official loss"} <= broken(judged(run, tmp_path))


def test_a_tokenizer_that_was_exchanged(run: Path, tmp_path: Path) -> None:
    edit(run / "tokenizer.json", lambda tree: tree.update(normalizer={"type": "Lowercase"}))
    verdicts = judged(run, tmp_path)
    assert broken(verdicts) == {"whole record"}
    assert "has changed since the run began" in verdicts["lossless tokenizer"].evidence


def test_a_denominator_that_is_too_large(run: Path, tmp_path: Path) -> None:
    edit(run / "scores.json", lambda scores: scores.update(characters=scores["characters"] + 500))
    assert broken(judged(run, tmp_path)) == {"evaluation untouched", "scores agree", "denominator"}


def test_titles_that_were_changed(titles_file: Path, tmp_path: Path) -> None:
    train(tiny_recipe(titles_file, data={"normalise": ["lowercase"]}), tmp_path / "run", max_steps=1)
    assert {"data", "no augmentation", "denominator"} <= broken(judged(tmp_path / "run", tmp_path))


def test_weights_from_elsewhere(titles_file: Path, whole: Callable[[str], Path], tmp_path: Path) -> None:
    """Trained ones, which the first loss shows too, and untrained ones of another seed, which only drawing them again shows."""
    pretrained = load_trained(whole("shuffled")).model.state_dict()

    def of_a_run(recipe: Any, vocab_size: int, eos: int) -> Any:
        model = make_model(recipe, vocab_size, eos)
        model.load_state_dict(pretrained)
        return model

    def of_another_seed(recipe: Any, vocab_size: int, eos: int) -> Any:
        torch.manual_seed(5)
        return make_model(recipe, vocab_size, eos)

    for made, rules in (
        (of_a_run, {"weights from the seed", "no pretrained weights"}),
        (of_another_seed, {"weights from the seed"}),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(assembly, "make_model", made)
            train(tiny_recipe(titles_file), tmp_path / made.__name__)
        assert broken(judged(tmp_path / made.__name__, tmp_path)) == rules


def test_a_first_loss_that_no_untrained_model_has(run: Path, tmp_path: Path) -> None:
    def plant(lines: list[dict[str, Any]]) -> None:
        next(line for line in lines if line["event"] == "training_step")["loss"] = 3.0

    edit(run / "metrics.jsonl", plant)
    assert broken(judged(run, tmp_path, deep=False)) == {"no pretrained weights"}


def test_costs_that_were_made_smaller(run: Path, tmp_path: Path) -> None:
    edit(run / "scores.json", lambda scores: scores.update(parameters=scores["parameters"] - 1))
    assert broken(judged(run, tmp_path)) == {"cost disclosed"}
    edit(run / "scores.json", lambda scores: scores.update(parameters=scores["parameters"] + 1, passes=1))
    assert broken(judged(run, tmp_path)) == {"cost disclosed"}


def test_a_geometry_that_leaves_much_out(titles_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(titles_file, batches={"batch_size": 32})
    train(recipe, tmp_path / "run", max_steps=1)
    verdicts = judged(tmp_path / "run", tmp_path, {"at_least = 0.5\n": "at_least = 0.99\n"})
    assert "coverage" in broken(verdicts)
    assert "at full coverage it would be about" in verdicts["coverage"].evidence


class SeesTheNextToken(GPT):
    """Its attention is not causal: each position also has the next one's embedding."""

    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:
        later_BTD: Tensor = self.token_emb(x_BT.roll(-1, 1))
        return super().forward(x_BT, cache) + 0.1 * later_BTD @ self.head_VD.t()


class SeesItsNeighbours(GPT):
    """The rows that are scored beside it move its hidden states."""

    def hidden(self, rows: Rows) -> Tensor:
        found: Tensor = super().hidden(rows)
        return found + 0.01 * found.mean(dim=0)


class SeesItsTarget(GPT):
    """Peeks at the targets that travel with the rows, and adds to what it finds: no distribution."""

    def hidden(self, rows: Rows) -> Tensor:
        wanted_ND = self.head_VD[rows.y_N.clamp(min=0)] * (rows.y_N >= 0)[:, None]
        found: Tensor = super().hidden(rows)
        return found + 20 * wanted_ND


class Remembers(GPT):
    """Keeps, in a plain attribute, how often each token was seen, and finds those likelier from then on."""

    seen_V: Tensor | None = None

    def _count(self, x: Tensor) -> Tensor:
        counts_V = torch.bincount(x.flatten(), minlength=self.vocab_size)
        self.seen_V = counts_V if self.seen_V is None else self.seen_V + counts_V
        return (self.seen_V / self.seen_V.sum())[:, None] * self.head_VD

    def hidden(self, rows: Rows) -> Tensor:
        found: Tensor = super().hidden(rows)
        return found + self._count(rows.x_N).sum(dim=0)

    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:
        logits_BTV: Tensor = super().forward(x_BT, cache)
        return logits_BTV + self.head_VD @ self._count(x_BT).sum(dim=0)


class LearnsWhileScored(GPT):
    """Moves a weight each time."""

    def forward(self, x_BT: Tensor, cache: Cache | None = None) -> Tensor:
        with torch.no_grad():
            self.ln_f.weight.mul_(1 + 1e-4)  # type: ignore[operator]
        return super().forward(x_BT, cache)


CHEATS: dict[type[GPT], set[str]] = {
    SeesTheNextToken: {"strictly causal"},
    SeesItsNeighbours: {"strictly causal"},
    SeesItsTarget: {"strictly causal", "full distribution"},
    Remembers: {"unchanged by scoring"},
    LearnsWhileScored: {"unchanged by scoring"},
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_the_four_conditions(
    cheat: type[GPT], whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's class that breaks one of them, under the weights of an honest run."""
    run = whole("documents")  # made before anything is patched
    monkeypatch.setattr("shortrun.model.make.GPT", cheat)
    assert CHEATS[cheat] <= broken(judged(run, tmp_path))


@pytest.mark.parametrize("where", ["everywhere", "in scoring"])
def test_attention_that_sees_later_tokens(
    where: str, whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every pass, or only in those that score documents side by side."""
    attention = CausalSelfAttention.forward

    def open_to_all(self: CausalSelfAttention, x_ND: Tensor, layout: Layout, *more: Any) -> Tensor:
        """Half of what each position takes is what the last position of its row would."""
        y_ND = attention(self, x_ND, layout, *more)
        last_ND = torch.cat([group.unpad(_last_everywhere(group.pad(y_ND))) for group in layout.groups])
        return (y_ND + last_ND) / 2

    def hidden(self: GPT, rows: Rows) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CausalSelfAttention, "forward", open_to_all)
            return honest(self, rows)

    run = whole("documents")  # made before anything is patched
    honest = GPT.hidden
    if where == "everywhere":
        monkeypatch.setattr(CausalSelfAttention, "forward", open_to_all)
    else:
        monkeypatch.setattr(GPT, "hidden", hidden)
    verdicts = judged(run, tmp_path)
    assert verdicts["strictly causal"].verdict == "broken"
    assert ("official loss" in broken(verdicts)) == (where == "everywhere"), "it is recomputed by the forward pass"


def _last_everywhere(y_BTD: Tensor) -> Tensor:
    return y_BTD[:, -1:].expand_as(y_BTD).contiguous()


def test_scoring_that_charges_too_little(
    whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each target costs a nat less: the probabilities sum to 2.718."""
    run = whole("shuffled")  # made before anything is patched
    honest = cross_entropy.softmax

    def cheap(logits_CV: Tensor, targets_C: Tensor) -> cross_entropy.Softmax:
        found = honest(logits_CV, targets_C)
        return found._replace(nats_C1=found.nats_C1 - 1)

    monkeypatch.setattr(cross_entropy, "softmax", cheap)
    found = judged(run, tmp_path)["full distribution"]
    assert found.verdict == "broken"
    assert "2.7182" in found.evidence


def test_a_run_that_was_trained_by_a_cheating_model(
    titles_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever checks has the honest class: the loss is not what its weights give."""
    monkeypatch.setattr("shortrun.model.make.GPT", SeesItsTarget)
    train(tiny_recipe(titles_file), tmp_path / "run")
    monkeypatch.undo()
    assert {"official loss", "own loss", "one pass, left to right"} <= broken(judged(tmp_path / "run", tmp_path))


def test_data_that_cannot_be_read_any_more(titles_file: Path, titles: list[str], tmp_path: Path) -> None:
    """What the record says is still checked, and what needs the data is unknown, with the reason."""
    run = tmp_path / "run"
    train(tiny_recipe(titles_file), run)
    moved = titles_file.rename(tmp_path / "moved.txt")
    verdicts = judged(run, tmp_path)
    assert not broken(verdicts)
    assert {verdicts[rule].verdict for rule in RECORD} == {"kept"}
    for rule in ("official loss", "no validation title in training", "strictly causal", "denominator"):
        assert verdicts[rule].verdict == "unknown"
        assert str(titles_file) in verdicts[rule].evidence
    found = {each.rule: each for each in check_run(run, rules_for(run, tmp_path), data_path=[str(moved)])}
    assert_all_kept(found)
    moved.rename(titles_file)
    titles_file.write_text("\n".join(reversed(titles)) + "\n", encoding="utf-8")
    assert "not what this run was trained on" in judged(run, tmp_path)["official loss"].evidence


LEAVES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({})
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_hostile_record_never_crashes_it(
    whole: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any value in any place of the manifest, the scores and the log; now and then with the model and the data, too."""
    folder = tmp_path_factory.mktemp("hostile")
    run = folder / "run"
    shutil.copytree(whole("shuffled"), run)
    rules = rules_for(run, folder)
    deep = data.draw(st.sampled_from([False] * 14 + [True]))

    def plant(tree: Any) -> None:
        while isinstance(tree, dict) and tree:
            key = data.draw(st.sampled_from(sorted(tree)))
            if not isinstance(tree[key], dict) or data.draw(st.integers(0, 3)) == 0:
                tree[key] = data.draw(LEAVES)
                return
            tree = tree[key]

    for name in ("scores.json",) if deep else ("manifest.json", "scores.json"):
        edit(run / name, plant)
    edit(run / "metrics.jsonl", lambda lines: plant(lines[data.draw(st.integers(0, len(lines) - 1))]))
    try:
        verdicts = check_run(run, rules, deep=deep)
    except UserError:
        return
    assert len(verdicts) == (len(RUN_CHECKS) - 1 if deep else len(RECORD))


def test_the_command(run: Path, tmp_path: Path) -> None:
    rules = rules_for(run, tmp_path)
    done = run_command("check", run, "--rules", rules, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [each["rule"] for each in found][: len(RECORD)] == RECORD
    assert {tuple(each) for each in found} == {("rule", "verdict", "evidence")}
    assert {each["verdict"] for each in found} == {"kept", "unknown"}
    edit(run / "scores.json", lambda scores: scores.update(seed=7))
    done = run_command("check", run, "--rules", rules, "--quick")
    assert done.returncode == 1
    assert "7 kept, 1 broken, 0 can't be checked" in done.stdout
    assert "1 rule broken: seed 1337" in done.stderr


def test_what_is_not_known_fails_where_that_is_asked(run: Path, tmp_path: Path) -> None:
    rules = rules_for(run, tmp_path)
    done = run_command("check", run, "--rules", rules, "--strict")
    assert done.returncode == 1
    assert "1 rule can't be checked: revision of the data" in done.stderr
    assert run_command("check", run, "--rules", rules, "--strict", "--quick").returncode == 0


def test_titles_in_the_evidence_are_shown_safely(tmp_path: Path) -> None:
    nasty = ["\x1b[31mred [bold]markup[/] of a title", *(f"title number {number}" for number in range(99))]
    (tmp_path / "titles.txt").write_text("\n".join([*nasty, nasty[0]]) + "\n", encoding="utf-8")
    train(
        tiny_recipe(tmp_path / "titles.txt", data={"num_titles": 101, "shuffle": False}), tmp_path / "run", max_steps=1
    )
    rules = rules_for(tmp_path / "run", tmp_path, {'reposts_of = ["file"]': "reposts_of = []"})
    done = run_command("check", tmp_path / "run", "--rules", rules)
    assert "\x1b" not in done.stdout
    assert "[bold]markup" in done.stdout


WRONG = """
abuot = "a typo"
[[rule]]
name = "epochs"
demands = "Many."
check = "epoch"
[[rule]]
name = "seed"
demands = "One."
check = "seed"
sead = 7
seed = "seven"
[[rule]]
check = "share"
titles = 5
[[rule]]
name = "tokens"
demands = "Few."
check = "tokens"
"""


def test_rules_of_ones_own_are_held_to_be_right(tmp_path: Path) -> None:
    """All mistakes at once, each with its place and the nearest valid name."""
    path = tmp_path / "mine.toml"
    path.write_text(WRONG)
    with pytest.raises(UserError) as error:
        load_rules(str(path))
    for expected in (
        "abuot: there is no such key; did you mean 'about'?",
        'rule 1 ("epochs"): check = "epoch": there is no such check; did you mean \'epochs\'?',
        "sead: the check seed has no such value; did you mean 'seed'?",
        "seed = 'seven': input should be a valid integer",
        "rule 3: it has no name",
        "rule 3: it has no demands",
        "rule 3: the check share needs validation",
        'check = "tokens": there is no such check; that is one of a [[log_rule]]',
    ):
        assert expected in str(error.value)
    path.write_text('[[rule]]\nname = "s"\ndemands = "One."\ncheck = "seed"\nseed = 1\n' * 2)
    with pytest.raises(UserError, match="two rules have this name"):
        load_rules(str(path))
    for text in ("", "rule = 5", "[[rule]\n"):
        path.write_text(text)
        with pytest.raises(UserError):
            load_rules(str(path))
    with pytest.raises(UserError, match="did you mean 'mainrun'"):
        load_rules("mainrum")


def test_ones_own_rules_are_checked(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[[rule]]\nname = "two"\ndemands = "Twice."\ncheck = "epochs"\nepochs = 2\n')
    assert [(each.rule, each.verdict) for each in check_run(run, str(path))] == [("two", "kept")]
    done = run_command("check", "--rules", path, "--official-log", run / "metrics.jsonl")
    assert done.returncode == 2
    assert "no [[log_rule]]" in done.stderr


def test_every_check_is_made_by_mainruns_rules_and_described() -> None:
    rules = load_rules("mainrun")
    assert {id(rule.check) for rule in rules.run} == {
        id(check) for name, check in RUN_CHECKS.items() if name != "limits"
    }
    assert {id(rule.check) for rule in rules.log} == {id(check) for check in LOG_CHECKS.values()}
    assert all(check.judge.__doc__ for check in (*RUN_CHECKS.values(), *LOG_CHECKS.values()))
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    assert not [name for name in (*RUN_CHECKS, *LOG_CHECKS) if f"`{name}`" not in page]
    assert not [rule.name for rule in (*rules.run, *rules.log) if rule.name not in page]
