"""Checks that compare what a run reports with what its weights give."""

from __future__ import annotations

from contextlib import suppress

import torch

from shortrun.check.subject import Subject
from shortrun.check.verdict import Case, Finding
from shortrun.disk import file_sha256
from shortrun.errors import UserError
from shortrun.model.ensemble import Ensemble
from shortrun.model.make import make_model
from shortrun.recipe import LATER
from shortrun.recipe_file import differences
from shortrun.runs.checkpoints import newest_checkpoint, weights_sha256
from shortrun.runs.events import number, whole
from shortrun.runs.folder import ensemble_fingerprint, run_fingerprint
from shortrun.runs.members import members_of

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-3}
"""How far a loss may be from the recomputed one, as a share of it, by the type of the weights that are scored. Sums of rounded
products in another order differ by some 1e-6 in float32; bfloat16 has 16 bits fewer. Weights are scored in float32, also those
that were trained in bfloat16."""


def whole_record(run: Subject) -> Finding:
    """Holds the folder's files against one another: recipe.toml, the fingerprints, the tokenizer, the checkpoint's seals.

    Whoever changes a file and forgets another is found. Whoever writes all of them anew is not. The weights of an ensemble's
    members must be those of their own runs, where these still lie.
    """
    case, members = Case(), members_of(run.manifest)
    changed = [
        line
        for line in differences(run.recipe, run.recipe_now)
        if not line.startswith(("data.path:", "tokenizer.path:"))
    ]
    case.holds(not changed, f"recipe.toml is not what the run began with: {', '.join(changed)}")
    tokenizer = run.manifest["tokenizer"]["sha256"]
    case.same("fingerprint of the tokenizer", tokenizer, {"tokenizer.json": file_sha256(run.folder.tokenizer_file)})
    fingerprint = str(run.manifest["fingerprint"])
    case.same("fingerprint of the run", fingerprint, {"scores.json": run.scores["fingerprint"]})
    known, recorded = (
        {f"{section}.{name}" for section, fields in recipe.items() for name in fields}
        for recipe in (run.recipe.model_dump(mode="json"), run.manifest["recipe"])
    )
    if recorded - known or known - recorded - set(LATER):
        case.unsaid.append("the recipe has other fields than this version's, so its fingerprint can't be made again")
    else:
        made = run_fingerprint(run.recipe, run.manifest["data"]["sha256"], tokenizer)
        if members:
            made = ensemble_fingerprint([(member.fingerprint, member.weight) for member in members])
        case.same("fingerprint of the run", made, {"manifest.json": fingerprint})
    for place, member in enumerate(members):
        case.same(f"weights of member {place + 1}", member.weights_sha256, _weights_of_member(run, place))
    newest, damaged = newest_checkpoint(run.folder)
    case.against += damaged
    if newest is None:
        case.unsaid.append("the run has no whole checkpoint")
    return case.finding(
        f"recipe, manifest, scores, tokenizer and the checkpoint of step {newest.progress.step if newest else 0:,} belong together"
    )


def _weights_of_member(run: Subject, place: int) -> dict[str, str | None]:
    """Their fingerprint in the ensemble's checkpoint, and in the checkpoint of the member's own run."""
    assert isinstance(run.model, Ensemble)
    found: dict[str, str | None] = {"the ensemble's checkpoint": weights_sha256(run.model.each[place])}
    with suppress(UserError):  # the runs may have gone since
        found["the member's own checkpoint"] = weights_sha256(run.members[place].trained.model)
    return found


def initial_weights(run: Subject) -> Finding:
    """Draws the initial weights from the recipe and the seed once more: they must be those that the run began with.

    The manifest has their fingerprint. Another torch, or a CPU with other instructions, may draw others; then nothing is
    known. Weights put into the model after the manifest was written would not show, nor would a forged fingerprint.
    """
    recorded = run.manifest.get("initial_weights", {}).get("sha256")
    if recorded is None:
        return Finding("unknown", "the manifest has no initial_weights.sha256: the run was made by an older shortrun")
    tokenizer = run.trained.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.recipe.train.seed)
        drawn = weights_sha256(make_model(run.recipe, tokenizer.vocab_size, tokenizer.eos))
    if drawn == recorded:
        return Finding("kept", f"seed {run.recipe.train.seed} gives the weights that the run began with, bit for bit")
    machine = run.manifest["machine"]
    here = (torch.__version__, torch.backends.cpu.get_cpu_capability())
    if here == (machine.get("torch"), machine.get("processor")):
        return Finding("broken", f"seed {run.recipe.train.seed} gives other weights than the run began with")
    return Finding(
        "unknown",
        f"seed {run.recipe.train.seed} gives other weights here (torch {here[0]}, {here[1]}) than where the run began "
        f"(torch {machine.get('torch')}, {machine.get('processor')})",
    )


def official_loss(run: Subject) -> Finding:
    """Recomputes Mainrun's loss from the newest checkpoint by a plain implementation of its own (`check/plain.py`).

    The text is encoded as one by the `tokenizers` library, where the tokenizer is one of its. The model's class is this
    installation's: weights that need another one give another loss.
    """
    found = run.official
    return _compared(run, "official loss", found.loss, run.scores["official_loss"], f"from {found.scored:,} targets")


def own_loss(run: Subject) -> Finding:
    """Recomputes the loss of each validation document on its own, as above; each must be what nats.npz says, too."""
    found, case = run.own, Case()
    case.same("targets", found.targets, {"scores.json": run.scores["targets"]})
    case.same("documents", len(found.nats_D), {"scores.json": run.scores["documents"]})
    reported_D = run.folder.nats().nats_D
    case.same("number of documents", len(found.nats_D), {"nats.npz": len(reported_D)})
    if len(reported_D) == len(found.nats_D):
        off = abs(reported_D - found.nats_D) > 20 * _tolerance(run) * found.nats_D + 1e-3
        case.holds(not off.any(), f"nats.npz differs in {int(off.sum()):,} documents")
    if case.against:
        return case.finding("")
    return _compared(
        run,
        "loss",
        found.loss,
        run.scores["loss"],
        f"from {found.targets:,} targets of {len(found.nats_D):,} documents",
    )


def coverage(run: Subject, *, at_least: float, baseline_span: int, baseline_vocab: int) -> Finding:
    """Counts the targets that the official loss scores. What it leaves out lowers it for free.

    The task's own geometry (spans of `baseline_span` targets, a vocabulary of `baseline_vocab`) may leave out more, because
    nobody chose it for that.
    """
    found, case, geometry = run.official, Case(), run.recipe.batches
    case.holds(
        abs(found.coverage - run.scores["coverage"]) < 1e-9,
        f"scores.json says {run.scores['coverage']:.4f}, but {found.scored:,} of {found.targets:,} targets are {found.coverage:.4f}",
    )
    own = (geometry.batch_size * geometry.block_size, run.recipe.tokenizer.vocab_size) == (
        baseline_span,
        baseline_vocab,
    )
    case.holds(
        own or found.coverage >= at_least,
        f"the official loss scores {found.coverage:.1%} of the targets, less than {at_least:.0%}: at full coverage it would be "
        f"about {found.loss / found.coverage if found.coverage else float('nan'):.4f} instead of {found.loss:.4f}",
    )
    return case.finding(
        f"{found.scored:,} of {found.targets:,} targets, {found.coverage:.1%}; at full coverage the official loss would be "
        f"about {found.loss / found.coverage if found.coverage else float('nan'):.4f} instead of {found.loss:.4f}"
    )


def last_step(run: Subject) -> Finding:
    """Holds the reported loss against the log's evaluations: it must be that of the last step, with a checkpoint of that step.

    Somebody could put an earlier checkpoint under the last step's number and write the log to match; the loss would then be
    the earlier one's, as if training had ended there.
    """
    case, scores = Case(), run.scores
    evaluations = [(whole(event, "step"), number(event, "loss")) for event in run.log.all("validation_step")]
    if not evaluations:
        raise UserError("metrics.jsonl holds no evaluation")
    reported, (step, last) = scores["official_loss"], evaluations[-1]
    steps = whole(run.log.last("training_step"), "max_steps")
    case.same("last step", steps, {"the last evaluation": step, "scores.json": scores["steps"]})
    case.same("last step", steps, {"the newest checkpoint": run.checkpoint.progress.step})
    case.holds(scores["complete"] is True, "the run has not taken all its steps")
    lowest = min((loss, at) for at, loss in evaluations if loss is not None)
    if reported != last:
        which = f", which is that of step {lowest[1]:,}, the lowest" if reported == lowest[0] else ""
        case.against.append(f"the reported loss is {reported:.4f}{which}, but the last evaluation's is {last}")
    # to the last digit, two evaluations only agree where one was copied
    twins = [at for at, loss in evaluations[:-1] if loss == last and len(repr(loss)) > 9]
    case.holds(
        not twins, f"the last evaluation says the very number that step {twins[-1] if twins else 0} says, {last}"
    )
    return case.finding(
        f"{reported:.4f} is the loss of step {step:,}, the last of {len(evaluations)} evaluations (the lowest was {lowest[0]:.4f})"
    )


def cost_disclosed(run: Subject) -> Finding:
    """Counts the parameters of the model and the passes that the recipe takes: SAM doubles them, and so does R-Drop from
    the step on at which it begins; each member of an ensemble takes its own.

    Passes that the code takes without a switch in the recipe would not show.
    """
    case, scores, recipe = Case(), run.scores, run.recipe
    steps = int(scores["steps"])
    planned = whole(run.log.first("training_step"), "max_steps") or steps
    doubled = max(steps - round(recipe.train.rdrop_from * planned), 0) if recipe.train.rdrop else 0
    passes = (2 if recipe.optim.sharpness != "none" else 1) * (steps + doubled) * recipe.model.members
    of_all = sum(member.passes for member in members_of(run.manifest)) or passes
    parameters = sum(each.numel() for each in run.model.parameters())
    info = run.log.first("model_info")
    case.same(
        "parameters",
        parameters,
        {"scores.json": scores["parameters"], "metrics.jsonl": whole(info, "parameters_count")},
    )
    case.same("passes", of_all, {"scores.json": scores["passes"]})
    entries = sum(len(each.datastore.tokens_N) for each in run.model.learners() if each.datastore is not None)
    asked = f", and a datastore of {entries:,} training contexts, which took one more look at them" if entries else ""
    return case.finding(
        f"{parameters:,} parameters and {scores['passes']:,} passes over a batch{_a_step(run, passes / max(steps, 1))}{asked}"
    )


def _a_step(run: Subject, passes: float) -> str:
    members = members_of(run.manifest)
    return f", those of {len(members)} runs" if members else f", {passes:.3g} a step"


def _compared(run: Subject, what: str, found: float, reported: float, how: str) -> Finding:
    tolerance, case = _tolerance(run), Case()
    case.holds(
        abs(found - reported) <= tolerance * max(abs(found), 1e-9),
        f"scores.json says {what} {reported:.6f}, but the checkpoint gives {found:.6f}",
    )
    return case.finding(
        f"{found:.6f} {how}, {abs(found - reported):.1e} from the reported one (allowed: {tolerance:.0e} of it)"
    )


def _tolerance(run: Subject) -> float:
    return TOLERANCE.get(next(run.model.parameters()).dtype, max(TOLERANCE.values()))
