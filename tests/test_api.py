"""`import shortrun`: stable names, examples that run, and a process that is left as it was found."""

from __future__ import annotations

import doctest
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import shortrun
from shortrun import api
from shortrun.check.run import check_run
from shortrun.errors import UserError
from shortrun.recipe_file import to_toml
from shortrun.runs.folder import RunFolder
from shortrun.train.events import Event, StepTaken
from shortrun.train.loop import Stopped
from shortrun.train.plan import plan
from shortrun.view.diagnosis import diagnose
from shortrun.view.evaluate import evaluate_run
from tests.conftest import ROOT, scores_of, tiny_recipe, tiny_values

SIGNATURES = {
    "combine": "(runs: 'Sequence[str | Path]', *, out: 'str | Path', fit: 'bool' = False, data_path: 'Sequence[str]' = (), "
    "on_event: 'OnEvent | None' = None) -> 'Result'",
    "load": "(run: 'str | Path') -> 'Run'",
    "resume": "(run: 'str | Path', *, data_path: 'Sequence[str]' = (), max_steps: 'int | None' = None, "
    "on_event: 'OnEvent | None' = None, stop: 'Stop | None' = None) -> 'Result'",
    "study": "(study: 'str | Path', *, out: 'str | Path' = 'runs', overrides: 'Overrides | None' = None, "
    "workers: 'int | None' = None, on_change: 'OnChange | None' = None, stop: 'Stop | None' = None) -> 'StudyResult'",
    "train": "(recipe: 'str | Path | Recipe', *, out: 'str | Path | None' = None, overrides: 'Overrides | None' = None, "
    "max_steps: 'int | None' = None, on_event: 'OnEvent | None' = None, stop: 'Stop | None' = None) -> 'Result'",
    "Run": "(path: 'Path', trained: 'Trained') -> None",
    "Run.score": "(self, texts: 'Iterable[str] | None' = None, *, split: 'str' = 'validation') -> 'Evaluation'",
    "Run.predict": "(self, text: 'str', *, top: 'int' = 10) -> 'Reading'",
    "Run.sample": (
        "(self, n: 'int' = 5, *, prefix: 'str' = '', temperature: 'float' = 1.0, top_k: 'int | None' = None, "
        "top_p: 'float' = 1.0, seed: 'int' = 0) -> 'list[str]'"
    ),
    "Result": "(run: 'Path', fingerprint: 'str', complete: 'bool', seed: 'int', budget: 'Budget', evaluation: 'Evaluation', "
    "tuning: 'Evaluation | None', floor_nats: 'float | None', data: 'dict[str, Any]') -> None",
    "Evaluation": "(loss: 'Loss', official: 'OfficialLoss', nats_D: 'NDArray[np.float64]', "
    "characters_D: 'NDArray[np.int64]') -> None",
    "Evaluation.interval": "(self) -> 'tuple[float, float]'",
    "Reading": "(text: 'str', step: 'int', tokens: 'tuple[ReadToken, ...]') -> None",
    "StudyResult": "(study: 'str', about: 'str', form: 'str', base: 'str', scale: 'str', split: 'str', seeds: 'list[int]', "
    "smallest_p: 'float', smallest_difference: 'float | None', final: 'str | None', rows: 'list[ResultRow]') -> None",
}
"""Of what `__all__` names and of a run's methods. Whoever changes one breaks somebody's program."""
SECTIONS = ["data", "tokenizer", "batches", "model", "optim", "schedule", "train", "datastore"]
BASELINES = {"fit_on": "train+validation", "byte_alphabet": "seen"}
"""What the baseline's tokenizer has that is not the default."""
EXAMPLES = (api.train, api.resume, api.combine, api.load, api.Run.score, api.Run.predict, api.Run.sample, api.study)
"""In this order, because those of a run look at what `train`'s example has made."""


def found(name: str) -> Any:
    value: Any = shortrun
    for part in name.split("."):
        value = getattr(value, part)
    return value


def test_the_names_and_their_signatures_stay() -> None:
    assert sorted(shortrun.__all__) == list(shortrun.__all__)
    signatures = {name: str(inspect.signature(found(name))) for name in SIGNATURES}
    assert signatures == SIGNATURES
    others = set(shortrun.__all__) - set(SIGNATURES)
    assert others == {"Recipe", "ShortrunError", "UserError"}
    assert list(inspect.signature(shortrun.Recipe).parameters) == SECTIONS
    assert str(shortrun.UserError("a sentence")) == "a sentence"
    assert issubclass(shortrun.UserError, shortrun.ShortrunError)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        found("trian")
    assert set(shortrun.__all__) < set(dir(shortrun))


def test_torch_is_imported_by_the_first_name_that_needs_it() -> None:
    """And whoever imports the rooms of the same names, before or after, the functions win."""
    code = (
        "import sys, json, shortrun; told = ['torch' in sys.modules]; shortrun.UserError, shortrun.Recipe;"
        "import shortrun.cli.commands; told += ['torch' in sys.modules];"
        "from shortrun.train.fit import fit; import shortrun.study.worker; from shortrun import train, study;"
        "told += ['torch' in sys.modules, callable(train), callable(shortrun.study), train.__module__];"
        "import shortrun.train.loop; print(json.dumps([*told, shortrun.train is train]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, False, True, True, True, "shortrun.api", True]


@pytest.mark.slow
def test_the_examples_of_the_page_and_of_the_docstrings_run_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    tests = [doctest.DocTestParser().get_doctest(page, {}, "docs/python.md", None, 0)]
    for each in EXAMPLES:
        tests += doctest.DocTestFinder(recurse=False).find(each, globs={})
        assert tests[-1].examples, f"{each.__qualname__} has no example"
    for test in tests:
        runner.run(test, out=failed.append)
    assert not failed, "".join(failed)
    public = {name for name in shortrun.__all__ if inspect.isfunction(found(name))}
    methods = {f"Run.{name}" for name, value in vars(api.Run).items() if inspect.isfunction(value) and name[0] != "_"}
    assert {each.__qualname__ for each in EXAMPLES} == public | methods


def settings() -> dict[str, Any]:
    """What a process has told torch."""
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "random": torch.random.get_rng_state().tolist(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
    }


@pytest.fixture
def somebodys_settings() -> Iterator[dict[str, Any]]:
    """A process whose settings no run would choose: three threads, deterministic with warnings alone."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(12)
    yield settings()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def test_torch_is_left_as_it_was(
    somebodys_settings: dict[str, Any],
    whole: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever computes, and although it computes as the run did: with one thread, deterministic without warnings."""
    path = whole("shuffled")
    during: list[tuple[int, bool]] = []
    forward = torch.nn.functional.embedding

    def noted(*args: Any, **more: Any) -> torch.Tensor:
        during.append((torch.get_num_threads(), torch.is_deterministic_algorithms_warn_only_enabled()))
        return forward(*args, **more)

    monkeypatch.setattr(torch.nn.functional, "embedding", noted)
    run = shortrun.load(path)
    work: dict[str, Callable[[], Any]] = {
        "load": lambda: shortrun.load(path),
        "score": lambda: run.score(["Show HN Ask"]),
        "predict": lambda: run.predict("Show HN"),
        "sample": lambda: run.sample(1),
        "train": lambda: shortrun.train(tiny_recipe(None), out=tmp_path / "run", max_steps=1),
        "resume": lambda: shortrun.resume(tmp_path / "run", max_steps=2),
        "evaluate": lambda: evaluate_run(path),
        "diagnose": lambda: diagnose(run.trained, RunFolder.open(path).corpus()),
        "plan": lambda: plan(tiny_recipe(None)),
        "check": lambda: check_run(path),
    }
    for name, does in work.items():
        during.clear()
        does()
        assert settings() == somebodys_settings, name
        assert name in ("load", "plan") or during, f"{name} has not computed"
        assert set(during) <= {(1, False)}, name


def test_torch_is_left_as_it_was_by_what_fails(
    somebodys_settings: dict[str, Any], whole: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shortrun.load(whole("shuffled"))

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(run.trained.model), "forward", fails)
    monkeypatch.setattr(type(run.trained.model), "hidden", fails)
    for does in (lambda: run.score(["Show"]), lambda: run.predict("Show"), lambda: run.sample(1)):
        with pytest.raises(RuntimeError, match="out of memory"):
            does()
        assert settings() == somebodys_settings


def test_a_loaded_run_says_what_the_folder_says(whole: Callable[[str], Path]) -> None:
    path = whole("documents")
    run, scores = shortrun.load(str(path)), scores_of(path)
    assert (run.path, run.recipe, run.step, run.notes) == (path, RunFolder.open(path).recipe(), scores["steps"], ())
    assert run.score().loss.loss == scores["loss"]
    texts = list(RunFolder.open(path).corpus().split("validation"))
    found = run.score(iter(texts))
    assert found.nats_D.tolist() == RunFolder.open(path).nats().nats_D.tolist()
    assert found.official.loss == scores["official_loss"]
    assert run.predict(texts[0]).nats == pytest.approx(found.nats_D[0])
    assert run.score([""]).loss.targets == 1, "an empty text still ends"


def test_what_a_run_is_asked_wrongly_is_said(whole: Callable[[str], Path], tmp_path: Path) -> None:
    run = shortrun.load(whole("documents"))
    wrong: dict[str, Callable[[], Any]] = {
        r"for a single one, write score\(\[text\]\)": lambda: run.score("Show HN"),
        "this one is empty": lambda: run.score([]),
        "text 1 must be a str and is a NoneType": lambda: run.score(["Show", None]),  # type: ignore[list-item]
        "text 0 has half of a surrogate pair": lambda: run.score(["\ud83d"]),
        "no split 'validaton': did you mean 'validation'": lambda: run.score(split="validaton"),
        "top 0 must be at least 1": lambda: run.predict("Show", top=0),
        "text must be a str and is a list": lambda: run.predict(["Show"]),  # type: ignore[arg-type]
        "n 0 must be": lambda: run.sample(0),
        "temperature nan must be": lambda: run.sample(temperature=float("nan")),
        "seed -1 must be": lambda: run.sample(seed=-1),
        "prefix has half": lambda: run.sample(prefix="\udc00"),
        "is not a run: it has no recipe.toml": lambda: shortrun.load(tmp_path),
        "max_steps 0 must be": lambda: shortrun.train("quickstart", max_steps=0),
        "no shipped recipe 'quickstat': did you mean 'quickstart'": lambda: shortrun.train("quickstat"),
        "There is no study 'vocabulry': did you mean 'vocabulary'": lambda: shortrun.study("vocabulry"),
    }
    for sentence, does in wrong.items():
        with pytest.raises(UserError, match=sentence):
            does()


def test_overrides_may_be_nested_or_dotted(tmp_path: Path) -> None:
    values = tiny_values(None, data={"num_titles": 300})
    file = tmp_path / "tiny.toml"
    file.write_text(to_toml(tiny_recipe(None)))
    dotted = {f"{section}.{name}": value for section, fields in values.items() for name, value in fields.items()}
    mixed = {"train": values["train"], **{name: value for name, value in dotted.items() if name[:6] != "train."}}
    recipes = [api._recipe("baseline", each) for each in (values, dotted, mixed)]
    assert recipes[0] == recipes[1] == recipes[2] == api._recipe(tiny_recipe(None), {"tokenizer": BASELINES})
    assert api._recipe(file, None) == api._recipe(str(file), {}) == api._recipe(tiny_recipe(None), None)
    other = api._recipe(tiny_recipe(None), {"optim.name": "sgd", "model": {"d_model": 32}})
    assert (other.optim.name, other.model.d_model, other.tokenizer.vocab_size) == ("sgd", 32, 300)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"train.epoch": 3}, "overrides: train.epoch = 3: there is no such field; did you mean 'epochs'"),
        ({"epochs": 3}, r"overrides: \[epochs\]: there is no such section"),
        ({"train": {"epochs": 3}, "train.epochs": 4}, "overrides: train.epochs is given twice"),
        ({"train.epochs": 0, "model.mlp": "gelo"}, "2 things are wrong"),
        ({"optim.muon_lr": 0.1}, "overrides: optim.muon_lr = 0.1 does nothing here"),
    ],
    ids=["field", "section", "twice", "several", "useless"],
)
@pytest.mark.parametrize("by", ["name", "recipe"])
def test_wrong_overrides_are_named(overrides: dict[str, Any], sentence: str, by: str) -> None:
    with pytest.raises(UserError, match=sentence):
        shortrun.train("baseline" if by == "name" else tiny_recipe(None), overrides=overrides)


def test_training_tells_stops_and_names_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    events: list[Event] = []
    with pytest.raises(Stopped):
        shortrun.train(tiny_recipe(None), on_event=events.append, stop=lambda: 15 if len(steps(events)) == 2 else 0)
    assert len(steps(events)) == 2
    assert shortrun.load("runs/recipe-1337").step == 2
    result = shortrun.resume("runs/recipe-1337")
    assert result.complete
    again = shortrun.train(tiny_recipe(None))
    assert again.run == Path("runs/recipe-1337-2")
    assert again.evaluation.loss == result.evaluation.loss


def steps(events: list[Event]) -> list[StepTaken]:
    return [event for event in events if isinstance(event, StepTaken)]
