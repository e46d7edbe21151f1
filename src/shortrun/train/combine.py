"""Ensembles of finished runs: one more run folder, whose model is the mean of their probabilities. Nothing is trained.

    combine([Path("runs/a-1"), Path("runs/a-2")], Path("runs/a-both"))

Members may have any shapes, seeds and recipes over the same documents, splits and tokenizer. Whatever reads a run folder reads
this one: the recipe is the first member's with `model.members` set, and the manifest names all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shortrun.errors import UserError
from shortrun.model.device import choose_device, keep_freed_memory, machine, repeatable
from shortrun.model.ensemble import Ensemble
from shortrun.recipe import Recipe
from shortrun.runs.checkpoints import Progress, save_checkpoint, weights_sha256
from shortrun.runs.folder import RunFolder, ensemble_fingerprint, require_free
from shortrun.runs.log import MetricsLog, log_beginning, log_evaluation
from shortrun.runs.members import Member, members_of
from shortrun.runs.result import Budget, Result
from shortrun.runs.trained import Trained, load_trained
from shortrun.score.evaluate import Evaluation
from shortrun.score.mixture import fitted_weights
from shortrun.tokens.batches import make_batches
from shortrun.train.events import Note, OnEvent, ignore
from shortrun.train.prepare import Prepared, prepare
from shortrun.train.state import write_weights

SPLITS = ("train", "tuning", "validation")
"""What all members must have in common. Held-out documents are nobody's, so those of the first run stand."""


@dataclass(frozen=True)
class _Part:
    """A run that becomes a member."""

    folder: RunFolder
    trained: Trained
    scores: dict[str, Any]


def combine(
    paths: Sequence[Path],
    out: Path,
    *,
    fit: bool = False,
    data_path: Sequence[str] = (),
    on_event: OnEvent = ignore,
) -> Result:
    """Makes a run folder of finished runs, scored like any other.

    fit: weights the members by what the tuning documents say, instead of equally. data_path: where the runs' files lie now, if
    they have moved. The first run's batches are the geometry of the official loss, with the shortest block of all.

    Raises UserError for fewer than two runs, one that is given twice, is not finished or is combined itself, and for runs whose
    data, splits or tokenizer are not the same.
    """
    began = time.perf_counter()
    require_free(out)
    parts = _parts(paths)
    recipe = _recipe([part.trained.recipe for part in parts], data_path, on_event)
    for part in parts:
        for note in part.trained.notes:
            on_event(Note(note))
    prepared = prepare(recipe, parts[0].trained.tokenizer)
    parts[0].folder.require_same_data(prepared.corpus.manifest)
    if fit and prepared.tuning is None:
        raise UserError("Weights are fitted on the tuning documents, and these runs have none (data.tuning_titles)")
    keep_freed_memory()
    device, reason = choose_device(recipe.train.device)
    with repeatable(recipe.train.threads) as threads:
        model = Ensemble([part.trained.model for part in parts]).to(device).eval()
        weights = [1 / len(parts)] * len(parts)
        if fit and prepared.tuning:
            weights = fitted_weights(model, prepared.tuning.encoded).tolist()
            model.weigh(weights)
        members = [_member(part, weight) for part, weight in zip(parts, weights, strict=True)]
        validation = prepared.validation.evaluate(model, recipe.batches)
        tuning = prepared.tuning.evaluate(model, recipe.batches) if prepared.tuning else None
        manifest = {
            "fingerprint": ensemble_fingerprint([(member.fingerprint, member.weight) for member in members]),
            "recipe": recipe.model_dump(mode="json"),
            **prepared.manifest(),
            "machine": machine(device, reason, threads, _precision(parts)),
            "members": [member.as_dict() for member in members],
        }
        result = _result(out, manifest, members, (validation, tuning), model, time.perf_counter() - began)
        _write(out, recipe, prepared, manifest, model, result)
    return result


def _precision(parts: Sequence[_Part]) -> torch.dtype:
    """In which the first run was trained."""
    dtype: torch.dtype = getattr(torch, parts[0].folder.manifest()["machine"].get("precision", "float32"))
    return dtype


def _parts(paths: Sequence[Path]) -> list[_Part]:
    if len(paths) < 2:
        raise UserError("An ensemble needs two runs at least")
    for number, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:number]]:
            raise UserError(f"{path} is given twice: leave one of them out")
    folders = [RunFolder.open(path) for path in paths]
    for folder in folders:
        if members := members_of(folder.manifest()):
            runs = " ".join(member.run for member in members)
            raise UserError(f"{folder.path} is an ensemble itself; give the runs that it was combined of: {runs}")
        if not folder.finished_scores():
            raise UserError(
                f"{folder.path} is not finished, and an ensemble is made of finished runs: `shortrun resume {folder.path}` "
                "goes on with it"
            )
    for folder in folders[1:]:
        _require_alike(folders[0].path, folders[0].manifest(), folder.path, folder.manifest())
    parts = [_Part(folder, load_trained(folder.path), folder.finished_scores() or {}) for folder in folders]
    for part in parts:
        if part.trained.step != part.scores["steps"]:
            told = "\n".join([f"{part.folder.path} can't be read as it was scored.", *part.trained.notes])
            raise UserError(told)
    return parts


def _require_alike(first: Path, ours: dict[str, Any], other: Path, theirs: dict[str, Any]) -> None:
    """Raises UserError, with what differs, unless two runs have the same splits of the same documents and one tokenizer."""
    for split in SPLITS:
        found = [manifest["data"]["splits"].get(split) for manifest in (ours, theirs)]
        if found[0] != found[1]:
            told = [
                f"{each['documents']:,} documents, sha256 {each['sha256'][:12]}" if each else "none" for each in found
            ]
            raise UserError(
                f"{other} has other {split} documents than {first} ({told[1]}; {told[0]}): the members of an ensemble share "
                "data and splits"
            )
    found = [manifest["tokenizer"]["sha256"] for manifest in (ours, theirs)]
    if found[0] != found[1]:
        raise UserError(
            f"{other} has another tokenizer than {first} (sha256 {found[1][:12]}; {found[0][:12]}): the members of an ensemble "
            "share one, because probabilities are averaged token by token"
        )


def _recipe(recipes: Sequence[Recipe], data_path: Sequence[str], on_event: OnEvent) -> Recipe:
    """The first run's, with what all have in common."""
    recipe = recipes[0].changed("model", members=len(recipes))
    block = min(each.batches.block_size for each in recipes)
    if block < recipe.batches.block_size:
        recipe = recipe.changed("batches", block_size=block)
    if any(each.batches != recipe.batches for each in recipes):
        geometry = recipe.batches
        on_event(
            Note(
                f"The runs have different batches: the official loss is that of {geometry.batch_size} rows of "
                f'{geometry.block_size} tokens, mode "{geometry.mode}"'
            )
        )
    return recipe.changed("data", path=tuple(data_path)).located() if data_path else recipe


def _member(part: _Part, weight: float) -> Member:
    scores = part.scores
    told = (
        "loss",
        "tuning_loss",
        "parameters",
        "steps",
        "epochs",
        "tokens",
        "passes",
        "flops",
        "seconds",
        "step_seconds",
    )
    return Member(
        run=str(part.folder.path.absolute()),
        fingerprint=part.folder.fingerprint(),
        recipe=part.trained.recipe,
        weight=weight,
        weights_sha256=weights_sha256(part.trained.model),
        **{key: scores[key] for key in told},
    )


def _result(
    out: Path,
    manifest: dict[str, Any],
    members: Sequence[Member],
    evaluations: tuple[Evaluation, Evaluation | None],
    model: Ensemble,
    seconds: float,
) -> Result:
    """Steps, epochs and targets are those of the member that has taken the most; what was computed is that of all."""
    data = manifest["data"]
    return Result(
        run=out,
        fingerprint=manifest["fingerprint"],
        complete=True,
        seed=manifest["recipe"]["train"]["seed"],
        budget=Budget(
            parameters=model.count_parameters(),
            steps=max(member.steps for member in members),
            epochs=max(member.epochs for member in members),
            tokens=max(member.tokens for member in members),
            passes=sum(member.passes for member in members),
            flops=sum(member.flops for member in members),
            seconds=seconds + math.fsum(member.seconds for member in members),
            step_seconds=math.fsum(member.step_seconds for member in members),
        ),
        evaluation=evaluations[0],
        tuning=evaluations[1],
        floor_nats=data.get("floor_nats", {}).get("validation"),
        data={key: data[key] for key in ("source", "sha256", "splits")},
    )


def _write(
    out: Path, recipe: Recipe, prepared: Prepared, manifest: dict[str, Any], model: Ensemble, result: Result
) -> None:
    """The folder, with one checkpoint and a log of one evaluation."""
    folder, budget = RunFolder.create(out, recipe, prepared.tokenizer, manifest), result.budget
    batches = make_batches(prepared.train, recipe.batches, recipe.train.epochs, recipe.train.seed)
    counts = {
        "device": manifest["machine"]["device"],
        "batches_per_epoch": batches.steps_per_epoch,
        "tokens_per_epoch": batches.tokens_per_epoch,
        "parameters_count": budget.parameters,
    }
    with closing(MetricsLog(folder)) as log:
        log_beginning(log, manifest, counts, folder)
        log_evaluation(log, budget.steps, budget.steps, budget.seconds, result.evaluation, result.tuning)
        progress = Progress(
            step=budget.steps,
            tokens=budget.tokens,
            seconds=budget.seconds,
            step_seconds=budget.step_seconds,
            metrics_bytes=log.sync(),
            selection_loss=(result.tuning or result.evaluation).loss.loss,
        )
        save_checkpoint(folder, progress, lambda made: write_weights(model, made))
    folder.write_result(result)
