"""What a study found: for each change its loss, and its difference from what it is compared with, beside the noise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from shortrun.disk import read_json, write_json
from shortrun.runs.folder import RunFolder
from shortrun.study.ledger import Entry, Ledger
from shortrun.study.statistics import Difference, Scored, compare, smallest_difference, smallest_p
from shortrun.study.table import ResultRow, StudyResult


def results(ledger: Ledger, split: str = "tuning") -> StudyResult:
    """Reads the runs of a study that are done."""
    study = ledger.study
    done = [ledger.done(number) for number in range(len(study.rows))]
    scored, texts = [_scored(each, split) for each in done], [_texts(each, split) for each in done]
    rows, spreads = [], []
    for number, row in enumerate(study.rows):
        mine, reference = scored[number], None if row.reference is None else scored[row.reference]
        difference, note = None, None
        if mine and reference and set(mine.seeds) & set(reference.seeds):
            if texts[number] == texts[row.reference or 0]:
                difference = compare(mine, reference)
                note = _precisions(done[number], done[row.reference or 0])
            else:
                note = "their documents are not the same texts"
        if difference:
            spreads += [] if difference.sd is None else [difference.sd]
        against = None if row.reference is None else study.rows[row.reference].change
        rows.append(_row(row.change, row.reason, against, ledger.of_row(number), mine, difference, note))
    # the root of the mean variance, because the rows share one noise as far as a few seeds can tell
    spread = float(np.sqrt(np.mean(np.square(spreads)))) if spreads else None
    return StudyResult(
        study=study.name,
        about=study.about,
        form=study.form,
        base=study.base,
        scale=str(study.scale),
        split=split,
        seeds=list(study.seeds),
        smallest_p=smallest_p(len(study.seeds)),
        smallest_difference=None if spread is None else smallest_difference(spread, len(study.seeds)),
        final=final_date(ledger),
        rows=rows,
    )


def final_date(ledger: Ledger) -> str | None:
    """When `write_final` was first called."""
    file = ledger.folder / "final.json"
    return str(read_json(file)["when"]) if file.exists() else None


def write_final(ledger: Ledger) -> None:
    """Writes down that the validation documents have been looked at, and what was seen the first time."""
    file = ledger.folder / "final.json"
    if not file.exists():
        ledger.folder.mkdir(parents=True, exist_ok=True)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(file, {"when": when, "result": results(ledger, "validation").as_dict()})


def _scored(done: Sequence[Entry], split: str) -> Scored | None:
    if not done:
        return None
    nats = [RunFolder(entry.job.path).nats(split) for entry in done]
    return Scored(np.stack([each.nats_D for each in nats]), nats[0].characters_D, tuple(entry.seed for entry in done))


def _texts(done: Sequence[Entry], split: str) -> str | None:
    """The sha256 of the documents that a row is scored on; None before any of its runs is done."""
    return str(RunFolder(done[0].job.path).manifest()["data"]["splits"][split]["sha256"]) if done else None


def _precisions(done: Sequence[Entry], others: Sequence[Entry]) -> str | None:
    """A sentence where machines chose for themselves, and the two runs of a pair were trained in different precisions."""
    by_seed = {entry.seed: entry for entry in others}
    for entry in done:
        other = by_seed.get(entry.seed)
        if (
            other is None or entry.job.recipe.train.precision != other.job.recipe.train.precision
        ):  # a change asked for it
            continue
        here, there = (RunFolder(each.job.path).manifest()["machine"].get("precision") for each in (entry, other))
        if here != there:
            return (
                f"with seed {entry.seed} it was trained in {here} and the other in {there}, so that their difference is partly "
                "that of the arithmetic"
            )
    return None


def _row(
    change: str,
    reason: str,
    reference: str | None,
    entries: Sequence[Entry],
    scored: Scored | None,
    difference: Difference | None,
    note: str | None,
) -> ResultRow:
    done = [entry.scores for entry in entries if entry.scores]
    first = done[0] if done else {}

    def mean(key: str) -> float | None:
        return float(np.mean([scores[key] for scores in done])) if done else None

    return ResultRow(
        change=change,
        reason=reason,
        reference=reference,
        loss=scored.mean if scored else None,
        sd=scored.sd if scored else None,
        losses=dict(zip(scored.seeds, scored.losses_S.tolist(), strict=True)) if scored else {},
        seeds=len(done),
        asked=len(entries),
        difference=difference.difference if difference else None,
        pairs=difference.seeds if difference else 0,
        interval=difference.interval if difference else None,
        p=difference.p if difference else None,
        tie=difference.tie if difference else None,
        official_loss=mean("official_loss"),
        coverage=mean("coverage"),
        parameters=first.get("parameters"),
        tokens=first.get("tokens"),
        passes=first.get("passes"),
        flops=mean("flops"),
        seconds=mean("seconds"),
        runs=[str(entry.job.path) for entry in entries if entry.state == "done"],
        failures={entry.seed: entry.failure for entry in entries if entry.failure},
        note=note,
    )
