"""Checks of a Mainrun log: JSON lines, as public attempts have them, not from shortrun.

A log is what a script wrote of itself. These checks find where it contradicts itself or the data; nothing here sees weights.
Its losses are checked in `log_losses`.
"""

from __future__ import annotations

import math

import numpy as np

from shortrun.check.log_facts import OfficialLog
from shortrun.check.titles import KINDS, bpe_tokens, likely_revisions, revision_of
from shortrun.check.verdict import Case, Finding
from shortrun.errors import UserError, counted
from shortrun.runs.events import number, whole


def epochs(run: OfficialLog, *, epochs: int) -> Finding:
    """Multiplies steps by the tokens of a batch and divides by those of an epoch: it must be the epochs that are claimed.

    Where a step takes several batches (gradient accumulation), a log does not say which of the two its steps are, so the
    answer may be open. Batches that no setting tells of don't show.
    """
    case, steps, tokens, a_step = Case(), run.max_steps, run.info("tokens_per_epoch"), run.step_tokens
    settings, info = run.log.first("hyperparameters_configured"), run.log.first("dataset_info")
    case.same("epochs", epochs, {"hyperparameters_configured": whole(settings, "epochs")})
    if "epochs" in info:
        case.same("epochs", epochs, {"dataset_info": whole(info, "epochs")})
    many = run.batches_a_step
    plain, together = (_fits(steps, tokens, size, epochs) for size in (a_step, a_step * many))
    taken = f"{steps:,} steps of {a_step:,} tokens are {steps * a_step / tokens:.1f} epochs of {tokens:,} tokens"
    case.holds(plain or together, taken)
    if many > 1 and plain and not together:
        case.unsaid.append(
            f"{taken}, if a step is one batch; the settings say that an update takes {many}, and if that is a step they are "
            f"{steps * a_step * many / tokens:.1f} epochs"
        )
    return case.finding(taken)


def _fits(steps: int, tokens: int, a_step: int, epochs: int) -> bool:
    """Whether so many steps are so many epochs, whatever happens to the rest of an epoch that fills no step."""
    return epochs * max(tokens // a_step, 1) <= steps <= epochs * math.ceil(tokens / a_step)


def steps(run: OfficialLog) -> Finding:
    """Looks through the numbers of the steps: they must rise, none twice, up to max_steps; every loss must be a number.

    A log of fewer steps than were taken, evenly thinned out, passes.
    """
    case, numbers, total = Case(), run.steps(), run.max_steps
    known = [each for each in numbers if each is not None]
    case.holds(len(known) == len(numbers), f"{counted(len(numbers) - len(known), 'step')} without a number")
    repeated = len(known) - len(set(known))
    case.holds(repeated == 0, f"{counted(repeated, 'step')} more than once")
    case.holds(repeated > 0 or known == sorted(known), "the steps are not in order")
    case.holds(max(known, default=0) <= total, f"step {max(known, default=0):,} is beyond the last, {total:,}")
    case.holds(run.ends_at >= total, f"the log ends at step {run.ends_at:,} of {total:,}")
    places = sorted({0, *known, total + 1})
    gaps = np.diff(places)
    if run.ends_at >= total and gaps.max() > 2 * np.median(gaps):
        first = places[int(gaps.argmax())] + 1
        case.unsaid.append(f"steps {first:,} to {first + int(gaps.max()) - 2:,} don't stand in the log")
    for name in ("training_step", "validation_step"):
        wrong = [event for event in run.log.all(name) if number(event, "loss") is None]
        case.holds(not wrong, f"{counted(len(wrong), name)} whose loss is no number")
    note = f"; {counted(run.log.unreadable, 'line')} could not be read" if run.log.unreadable else ""
    note += f"; the file holds {run.log.runs} runs, and this is the last" if run.log.runs > 1 else ""
    return case.finding(f"{counted(len(known), 'step')} up to {total:,}, each once{note}")


def seed(run: OfficialLog, *, seed: int) -> Finding:
    """Reads the seed from the settings. What the script did with it does not show."""
    case = Case()
    case.same("seed", seed, {"the log": whole(run.log.first("hyperparameters_configured"), "seed")})
    return case.finding(f"the settings say {seed}")


def share(run: OfficialLog, *, titles: int, validation: float) -> Finding:
    """Reads how many titles there are, and which share is for validation, and counts those that are left to train on."""
    case, settings = Case(), run.log.first("hyperparameters_configured")
    case.same("number of titles", titles, {"the log": whole(settings, "num_titles")})
    case.same("share for validation", validation, {"the log": number(settings, "val_frac")})
    left = int(titles * (1 - validation))
    case.same("number of training titles", left, {"dataset_info": whole(run.log.first("dataset_info"), "titles_count")})
    return case.finding(f"{left:,} of {titles:,} titles to train on")


def data(run: OfficialLog) -> Finding:
    """Tells the revision of the titles by the training tokens: exactly with the baseline's tokenizer, about with others.

    Another tokenizer of the same size could make as many tokens of another revision.
    """
    tokens, vocabulary = run.info("tokens_per_epoch"), run.vocab_size
    if not run.standard:
        return Finding("unknown", "the settings are not Mainrun's 100,000 titles by seed 1337 with 10 % for validation")
    exact = revision_of(tokens)
    if exact and vocabulary == 16_000:
        return Finding("kept", f"{tokens:,} training tokens with 16,000 entries: {exact.name}")
    likely = likely_revisions(tokens, vocabulary)
    told = " or ".join(dict.fromkeys(f"{one.name} by a {kind}" for one, kind in likely if one in run.revisions()))
    told = f"about as many as of {told}" if told else "of no revision that is known"
    return Finding("unknown", f"{tokens:,} training tokens with {vocabulary:,} entries, {told}")


def tokens(run: OfficialLog, *, at_least: float, entries: float) -> Finding:
    """Compares the tokens of an epoch with what a lossless BPE of that size makes of the titles with the fewest.

    Lower-casing, dropping spaces and `<unk>` make fewer tokens: less than the share `at_least` breaks the rule. So would pieces
    that span several words, which may be lossless. A lossy tokenizer that makes as many tokens passes: only
    `decode(encode(text)) == text` tells. A vocabulary of less than the share `entries` of what was asked for was fitted on
    next to nothing.
    """
    case, found, vocabulary = Case(), run.info("tokens_per_epoch"), run.vocab_size
    asked = whole(run.log.first("hyperparameters_configured"), "vocab_size")
    if asked and vocabulary < entries * asked:
        case.against.append(
            f"the tokenizer has {vocabulary:,} entries where {asked:,} were asked for: it has learned next to nothing"
        )
        return case.finding("")
    least = bpe_tokens(vocabulary) if run.standard else None
    if least is None:
        raise UserError(f"how many tokens {vocabulary:,} entries make of these titles is not known")
    ratio = found / least
    case.holds(
        ratio >= at_least,
        f"{found:,} tokens are {1 - ratio:.1%} fewer than a lossless BPE of {vocabulary:,} entries makes of any revision: was text "
        "changed or lost (lower case, spaces, <unk>)?",
    )
    if ratio > max(KINDS.values()) * 1.08:
        case.unsaid.append(
            f"{found:,} tokens are {ratio - 1:.0%} more than a BPE of {vocabulary:,} entries makes of the titles"
        )
    return case.finding(
        f"{found:,} tokens with {vocabulary:,} entries, {ratio:.3f} times those of a BPE on the revision with the fewest"
    )


def first_loss(run: OfficialLog, *, at_least: float) -> Finding:
    """Holds the loss of step 1, taken before any update, against ln V, which an untrained model has.

    Weights from elsewhere whose head is untrained pass.
    """
    first, case = run.log.first("training_step"), Case()
    loss, untrained = number(first, "loss"), math.log(run.vocab_size)
    case.same("number of the first step", 1, {"the log": whole(first, "step")})
    if loss is None:
        raise UserError("the log does not say the loss of step 1")
    case.holds(
        loss >= at_least * untrained,
        f"step 1 has {loss:.2f} nats a token, but a model that knows nothing has {untrained:.2f}",
    )
    return case.finding(f"step 1 has {loss:.2f} nats a token; ln({run.vocab_size:,}) is {untrained:.2f}")


def learning_rate(run: OfficialLog, *, at_most: float) -> Finding:
    """Looks whether a learning rate that falls ends below the share `at_most` of its peak, where the log has it.

    A schedule that is stepped too seldom, once for several batches, stops on its way. A constant rate is left alone.
    """
    rates = [rate for event in run.log.all("training_step") if (rate := number(event, "lr")) is not None]
    if not rates or max(rates) <= 0:
        raise UserError("the log does not say the learning rate of its steps")
    if run.ends_at < run.max_steps:
        raise UserError(f"the log ends at step {run.ends_at:,} of {run.max_steps:,}, before its schedule does")
    case, ends = Case(), rates[-1] / max(rates)
    case.holds(
        ends <= at_most or ends > 0.999,
        f"the learning rate falls to {ends:.0%} of its peak and stops there: is its schedule stepped too seldom?",
    )
    return case.finding(f"the learning rate ends at {ends:.1%} of its peak")
