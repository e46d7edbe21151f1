"""Checks of a Mainrun log's losses: how much they cover, what they are divided by, and which of them is reported."""

from __future__ import annotations

from shortrun.check.log_facts import OfficialLog, Range
from shortrun.check.verdict import Case, Finding
from shortrun.errors import counted
from shortrun.runs.events import number

DIGITS = 9
"""Numbers of more letters than this agree only where one was copied."""


def coverage(run: OfficialLog, *, at_least: float, baseline_span: int, baseline_vocab: int) -> Finding:
    """Counts the whole spans that the validation tokens have, and corrects the loss for what they leave out.

    The task's own geometry may leave out more than 1 - `at_least`: nobody chose it for that. Validation tokens are estimated
    within 1 %, and what is left out is taken to be as hard as the rest, so the corrected loss is right within about 1 %.
    """
    _, loss = run.last_evaluation()
    covered, case = run.coverage(), Case()
    said = number(run.log.last("validation_step"), "coverage")
    if said is not None:
        case.holds(
            abs(said - covered) <= 0.02, f"the log says coverage {said:.3f}, but the geometry gives about {covered:.3f}"
        )
        covered = covered if case.against else said
    spans, tokens = run.spans(), sum(run.validation_tokens()) / 2
    if covered == 0 or not loss:
        case.against.append(
            f"nothing is scored: a span of {run.span + 1:,} tokens is longer than the about {tokens:,.0f} there are, so the loss is {loss:.4f}"
        )
        return case.finding("")
    told = (
        f"about {covered:.1%} of some {tokens:,.0f} validation tokens are scored, in spans of {run.span:,}; the last loss {loss:.4f} "
        f"would be about {loss / covered:.4f} at full coverage"
    )
    own = (run.span, run.vocab_size) == (baseline_span, baseline_vocab)
    case.holds(own or covered >= at_least, told)
    on_edge = ""
    if spans.low != spans.high:
        by_count = [(count, run.share_in(count)) for count in range(int(spans.low), int(spans.high) + 1)]
        on_edge = "; on edge: " + ", ".join(
            f"{count} spans are {share:.1%}, which makes {loss / share:.4f}" for count, share in by_count if share
        )
    return case.finding(told + on_edge + (", as in the task's own geometry" if own and covered < at_least else ""))


def denominator(run: OfficialLog, *, within: float) -> Finding:
    """Asks how many targets the first evaluation has scored, by its loss per character and what a token cost at that moment.

    They must be the targets of the geometry, within `within`. Text that was added to what is divided by makes them fewer, a
    division by tokens or an evaluation of padded rows makes them more. Characters come from the revisions of the titles.
    """
    case, implied, spans, characters = Case(), run.implied_targets(), run.spans(), run.characters()
    geometry = Range(spans.low * run.span, spans.high * run.span)
    middle = (implied.low + implied.high) / 2
    told = (
        f"the first evaluation stands for about {middle:,.0f} targets over {_between(characters)} characters, and the geometry "
        f"scores {_between(geometry)}"
    )
    if implied.high * (1 + within) < geometry.low:
        case.against.append(
            f"{told}: as if the sum had been divided by {geometry.low / middle:.2f} times the characters of the titles, or tokens left out"
        )
    case.holds(
        implied.low * (1 - within) <= geometry.high,
        f"{told}: more than there are, as if it had been divided by fewer characters than the titles have",
    )
    return case.finding(told)


def last_step(run: OfficialLog) -> Finding:
    """Holds the last evaluation against the others, against the last step, and against what is reported.

    `--reported` gives the loss that somebody claims; fields of the log whose names hold "final" or "reported" count as claims,
    too. Two evaluations that agree to the last digit are one that was copied. A log that was written anew does not show it.
    """
    case, evaluations, total = Case(), run.evaluations(), run.max_steps
    step, last = run.last_evaluation()
    case.holds(step == total, f"the last evaluation is of step {step:,}, and the last step is {total:,}")
    known = [(loss, at) for at, loss in evaluations if loss is not None and at is not None]
    lowest, at_lowest = min(known)
    of_the_last = {loss for loss, at in known if at == step}
    case.holds(len(of_the_last) == 1, f"step {step:,} was evaluated {len(of_the_last)} times, with losses that differ")
    twins = [at for loss, at in known[:-1] if loss == last and at != step and len(repr(loss)) > DIGITS]
    case.holds(not twins, f"the last evaluation is the very number of step {twins[-1] if twins else 0:,}: {last}")
    claims = [(f"{name} of {event['event']}", value) for event in run.log.events for name, value in _claims(event)]
    if run.reported is not None:
        claims.append(("what is reported", run.reported))
    for where, value in claims:
        if not _same(value, last):
            which = f", which is the lowest, of step {at_lowest:,}" if _same(value, lowest) else ""
            case.against.append(f"{where} is {value:g}{which}, but the last step has {last:.4f}")
    said = (
        f"; {counted(len(claims), 'claim')} of it {'agrees' if len(claims) == 1 else 'agree'}"
        if claims
        else "; what was reported elsewhere does not stand in a log"
    )
    return case.finding(
        f"{last:.4f} is of step {total:,}, the last (the lowest of {len(known)} is {lowest:.4f}, of step {at_lowest:,}){said}"
    )


def _claims(event: dict[str, object]) -> list[tuple[str, float]]:
    found = []
    for name in event:
        words = name.lower()
        value = number(event, name)
        if value is not None and "loss" in words and ("final" in words or "reported" in words) and "train" not in words:
            found.append((name, value))
    return found


def _same(claimed: float, loss: float) -> bool:
    """Whether a claim is that loss, rounded as the claim is."""
    digits = len(repr(claimed).partition(".")[2]) if "e" not in repr(claimed) else 12
    return abs(claimed - loss) <= 0.51 * 10.0**-digits


def _between(numbers: Range) -> str:
    low, high = (f"{each:,.0f}" for each in numbers)
    return low if low == high else f"{low} to {high}"
