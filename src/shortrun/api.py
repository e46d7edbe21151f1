"""From Python: what the command line does, as functions and one object.

    result = train("quickstart", overrides={"data.num_titles": 2000})
    run = load(result.run)
    run.score(titles).loss.loss

Nothing here prints, and torch's threads, algorithms and random state are afterwards what they were before. glibc keeps freed
memory from the first call on (`model.device.keep_freed_memory`). A mistake is a UserError, whose text is a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortrun.errors import UserError, positive
from shortrun.recipe import Recipe
from shortrun.recipe_file import Layers, load_recipe, recipe_path
from shortrun.runs.folder import RunFolder, free_path
from shortrun.runs.result import Result
from shortrun.runs.trained import Trained, load_trained
from shortrun.score.evaluate import Evaluation, ScoringSet
from shortrun.study.ledger import Entry, Ledger, alone
from shortrun.study.run import Change, Crew, OnChange, default_workers, do_missing
from shortrun.study.study_file import load_study
from shortrun.study.table import StudyResult
from shortrun.text.documents import Documents
from shortrun.train import combine as combined
from shortrun.train import fit
from shortrun.train.events import OnEvent, ignore
from shortrun.train.fit import never
from shortrun.train.loop import Stop
from shortrun.view.reading import Reading, read

Overrides = Mapping[str, Any]
"""Values that stand above a file's: {"section": {"field": value}}, {"section.field": value}, or both."""
ORIGIN = "overrides"
"""What a sentence about a wrong override calls the place where it stands."""


def train(
    recipe: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    overrides: Overrides | None = None,
    max_steps: int | None = None,
    on_event: OnEvent | None = None,
    stop: Stop | None = None,
) -> Result:
    """Trains a recipe into a new run folder.

    >>> import shortrun
    >>> small = {"data.num_titles": 300, "tokenizer.vocab_size": 400, "model.n_layer": 1, "train.epochs": 1}
    >>> result = shortrun.train("quickstart", out="runs/first", overrides=small)
    >>> result.complete, result.budget.steps
    (True, 6)
    >>> 0 < result.evaluation.loss.loss < 5  # nats per character
    True

    recipe: a shipped recipe's name, a TOML file, or a Recipe. out: the folder to make; left out, runs/<recipe>-<seed>, or the
    next free name. max_steps: stops after so many steps of the same run; `resume` goes on with it. on_event: is given each
    event of `shortrun.train.events`. stop: is asked after each step, and a number other than 0 ends the run with a checkpoint.

    Raises UserError with all that is wrong with the recipe and the overrides, Stopped when `stop` asked for it, Diverged when
    the loss is no longer a number.
    """
    resolved = _recipe(recipe, overrides)
    positive(max_steps, "max_steps")
    path = Path(out) if out is not None else new_path(recipe, resolved.train.seed)
    return fit.train(resolved, path, max_steps=max_steps, on_event=on_event or ignore, stop=stop or never)


def resume(
    run: str | Path,
    *,
    data_path: Sequence[str] = (),
    max_steps: int | None = None,
    on_event: OnEvent | None = None,
    stop: Stop | None = None,
) -> Result:
    """Goes on with a run from its newest whole checkpoint, to the same end bit for bit.

    >>> import shortrun
    >>> small = {"data.num_titles": 300, "tokenizer.vocab_size": 400, "model.n_layer": 1, "train.epochs": 1}
    >>> shortrun.train("quickstart", out="runs/stopped", overrides=small, max_steps=1).complete
    False
    >>> shortrun.resume("runs/stopped").complete
    True

    data_path: where the run's files lie now, if they have moved. The others are as in `train`. Raises UserError, with the
    differences, where recipe, data or tokenizer are no longer those the run began with.
    """
    positive(max_steps, "max_steps")
    return fit.resume(
        Path(run), data_path=data_path, max_steps=max_steps, on_event=on_event or ignore, stop=stop or never
    )


def combine(
    runs: Sequence[str | Path],
    *,
    out: str | Path,
    fit: bool = False,
    data_path: Sequence[str] = (),
    on_event: OnEvent | None = None,
) -> Result:
    """Makes one run folder of finished runs: an ensemble, whose probabilities are the mean of theirs. Nothing is trained.

    >>> import shortrun
    >>> small = {"data.num_titles": 300, "tokenizer.vocab_size": 400, "model.n_layer": 1, "train.epochs": 1}
    >>> other = shortrun.train("quickstart", out="runs/second", overrides={**small, "train.seed": 2})
    >>> pair = shortrun.combine(["runs/first", "runs/second"], out="runs/pair")
    >>> pair.evaluation.loss.loss < max(other.evaluation.loss.loss, shortrun.load("runs/first").score().loss.loss)
    True

    runs: two or more, of any shapes, seeds and recipes over the same documents, splits and tokenizer. fit: weights them by
    what the tuning documents say, instead of equally. data_path: where the runs' files lie now, if they have moved. on_event:
    is given notes. Raises UserError for runs that have too little in common or are not finished.
    """
    paths = [Path(run) for run in runs]
    return combined.combine(paths, Path(out), fit=fit, data_path=data_path, on_event=on_event or ignore)


@dataclass(frozen=True)
class Run:
    """A run's folder and the model of its newest whole checkpoint, read by `load`."""

    path: Path
    trained: Trained
    """The torch model, its tokenizer and its recipe."""

    @property
    def recipe(self) -> Recipe:
        """The recipe that the run was trained by."""
        return self.trained.recipe

    @property
    def step(self) -> int:
        """After how many steps the model was saved."""
        return self.trained.step

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about how it was read, such as a damaged newer checkpoint."""
        return self.trained.notes

    def score(self, texts: Iterable[str] | None = None, *, split: str = "validation") -> Evaluation:
        """The losses of some documents, each scored on its own (`shortrun.score.losses` defines them).

        >>> import shortrun
        >>> found = shortrun.load("runs/first").score(["Show HN: A small model", "Rust is fast"])
        >>> found.loss.documents, found.nats_D.shape
        (2, (2,))
        >>> low, high = found.interval()  # 95 %, over documents
        >>> low <= found.loss.loss <= high  # nats per character
        True

        texts: as they are, uncleaned; left out, one of the run's own splits, which are read again: "validation", "tuning",
        "heldout" or "train". Raises UserError where there is none, or where the tokenizer does not give one back exactly.
        """
        if texts is None:
            scoring = ScoringSet.of_split(RunFolder.open(self.path).corpus(), split, self.trained.tokenizer)
        else:
            scoring = ScoringSet.of(_documents(texts), self.trained.tokenizer)
        with self.trained.computing():
            return scoring.evaluate(self.trained.model, self.recipe.batches)

    def predict(self, text: str, *, top: int = 10) -> Reading:
        """How the model reads a text: the surprisal of each token, and the likeliest tokens before and behind it.

        >>> import shortrun
        >>> reading = shortrun.load("runs/first").predict("Show HN:", top=3)
        >>> "".join(token.text for token in reading.tokens)
        'Show HN:'
        >>> len(reading.next)  # the likeliest tokens behind the text
        3

        top: how many likeliest tokens there are at each place. Surprisals are in nats, and the text's end is the last token.
        Raises UserError for a text that the tokenizer does not give back exactly.
        """
        positive(top, "top")
        return read(self.trained, _text(text, "text"), top)

    def sample(
        self,
        n: int = 5,
        *,
        prefix: str = "",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """Writes new documents, each beginning with `prefix` and at most two blocks long.

        >>> import shortrun
        >>> run = shortrun.load("runs/first")
        >>> documents = run.sample(2, prefix="Show HN:", seed=1)
        >>> all(document.startswith("Show HN:") for document in documents)
        True
        >>> documents == run.sample(2, prefix="Show HN:", seed=1)
        True

        temperature: 1 samples from the model's own distribution, lower is bolder, 0 always takes the likeliest token. top_k,
        top_p: only the k likeliest tokens, only the likeliest that have p of the probability together. seed: the same one
        writes the same documents. Raises UserError for a prefix that the tokenizer does not give back.
        """
        positive(n, "n")
        if not 0 <= seed < 2**63:
            raise UserError(f"seed {seed} must be at least 0 and below 2^63")
        if not 0 <= temperature < math.inf:
            raise UserError(f"temperature {temperature} must be a number from 0")
        if not 0 < top_p <= 1:
            raise UserError(f"top_p {top_p} must be above 0 and at most 1")
        positive(top_k, "top_k")
        return self.trained.sample(
            prefix=_text(prefix, "prefix"), count=n, temperature=temperature, seed=seed, top_k=top_k, top_p=top_p
        )


def load(run: str | Path) -> Run:
    """Reads the model of a run's newest whole checkpoint, of a run that is still training, too.

    >>> import shortrun
    >>> run = shortrun.load("runs/first")
    >>> run.step, run.recipe.model.n_layer
    (6, 1)

    Raises UserError where `run` is no run folder or has no whole checkpoint.
    """
    return Run(Path(run), load_trained(Path(run)))


def study(
    study: str | Path,
    *,
    out: str | Path = "runs",
    overrides: Overrides | None = None,
    workers: int | None = None,
    on_change: OnChange | None = None,
    stop: Stop | None = None,
) -> StudyResult:
    """Does the runs that a study lacks, some at a time, and returns its table.

    >>> import shortrun
    >>> from pathlib import Path
    >>> _ = Path("heads.toml").write_text('''
    ... about = "Do more heads help?"
    ... base = "quickstart"
    ... form = "ablation"
    ... seeds = [1, 2]
    ... [every]
    ... data.num_titles = 400
    ... data.tuning_titles = 40
    ... tokenizer.vocab_size = 400
    ... model.n_layer = 1
    ... model.d_model = 64
    ... train.epochs = 1
    ... [[change]]
    ... name = "eight heads"
    ... reason = "Each looks for something else."
    ... model.n_head = 8
    ... ''')
    >>> found = shortrun.study("heads.toml", workers=1)
    >>> [(row.change, row.seeds) for row in found.rows]
    [('quickstart', 2), ('eight heads', 2)]

    study: a shipped study's name, or a TOML file. out: the folder with its runs; those that are there are not done again.
    overrides: recipe fields that reach every run, and "scale.titles" and the like, which stand above the file's own scale.
    workers: runs at a time, each in a process of its own; left out, one for each core, or 1 on a GPU. on_change: is given the
    run's `shortrun.study.ledger.Entry` and what happens to it, from several threads but one call at a time. stop: is asked
    again and again, and a number other than 0 ends the study with every run saved.

    A run that fails is told in `failures` of its row. Raises UserError with all that is wrong with the study, or where the
    extra `study` is missing, and Stopped when `stop` asked for it.
    """
    from shortrun.study.result import results  # needs the extra `study`, which the rest does not

    found = load_study(str(study), _nested(overrides), origin=ORIGIN)
    positive(workers, "workers")
    with alone(Path(out) / found.name):
        do_missing(Ledger(found, Path(out)), Crew(workers or default_workers()), on_change or _nothing, stop or never)
    return results(Ledger(found, Path(out)))


def new_path(recipe: str | Path | Recipe, seed: int) -> Path:
    """The run folder that a recipe gets where nobody names one."""
    name = "recipe" if isinstance(recipe, Recipe) else recipe_path(str(recipe)).stem
    return free_path(Path("runs") / f"{name}-{seed}")


def _recipe(recipe: str | Path | Recipe, overrides: Overrides | None) -> Recipe:
    if not isinstance(recipe, Recipe):
        return load_recipe(str(recipe), _nested(overrides), origin=ORIGIN)
    if not overrides:
        return recipe
    layers = Layers()
    layers.lay(recipe.model_dump(exclude_defaults=True), "the recipe")
    layers.lay(_nested(overrides), ORIGIN)
    return layers.recipe()


def _nested(overrides: Overrides | None) -> dict[str, Any]:
    """{section: {field: value}}, and whatever fits in neither form as it is, because the recipe's checks then name it."""
    sections: dict[str, Any] = {}
    twice = []
    for key, value in (overrides or {}).items():
        section, dot, name = key.partition(".")
        if not dot and not isinstance(value, Mapping):
            sections[key] = value
            continue
        fields = sections.setdefault(section, {})
        for each, content in ({name: value} if dot else value).items():
            if each in fields:
                twice.append(f"{ORIGIN}: {section}.{each} is given twice")
            fields[each] = content
    if twice:
        raise UserError("\n".join(twice))
    return sections


def _documents(texts: Iterable[str]) -> Documents:
    if isinstance(texts, str):
        raise UserError("score takes a list of texts; for a single one, write score([text])")
    documents = Documents.of(_text(text, f"text {number}") for number, text in enumerate(texts))
    if not len(documents):
        raise UserError("score takes a list of texts, and this one is empty")
    return documents


def _text(text: str, what: str) -> str:
    if not isinstance(text, str):
        raise UserError(f"{what} must be a str and is a {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} has half of a surrogate pair, which is no text") from None
    return text


def _nothing(_: Entry, __: Change) -> None:
    """Listens to nothing."""
