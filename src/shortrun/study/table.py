"""The table of a study, as data: what `results` makes, and what tables, charts and reports show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ResultRow:
    """One line of the table. None stands for what can't be known yet."""

    change: str
    reason: str
    reference: str | None
    """The change that it is compared with."""
    loss: float | None
    """Mean over seeds, nats per character, of the split that the study is shown for."""
    sd: float | None
    """Over seeds."""
    losses: dict[int, float]
    """By seed."""
    seeds: int
    """Runs that are done."""
    asked: int
    """Runs that it is to have."""
    difference: float | None
    """From the reference, over the seeds that both have."""
    pairs: int
    """How many these are."""
    interval: tuple[float, float] | None
    """95 %, over seeds and documents."""
    p: float | None
    """Of the exact sign-flip test over paired seeds, two-sided."""
    tie: bool | None
    """Whether 0 lies inside the interval."""
    official_loss: float | None
    """Mainrun's own, of the validation documents; mean over seeds."""
    coverage: float | None
    """Share of targets that the official loss counts."""
    parameters: int | None
    tokens: int | None
    """Targets trained on."""
    passes: int | None
    flops: float | None
    seconds: float | None
    """Mean over seeds, with evaluations and checkpoints."""
    runs: list[str]
    failures: dict[int, str]
    """By seed, why there is no result."""
    note: str | None = None
    """Why there is no difference although both rows have results, or what else the difference may come from."""


@dataclass(frozen=True)
class StudyResult:
    """What `shortrun study show --json` prints."""

    study: str
    about: str
    form: str
    base: str
    scale: str
    split: str
    """The documents whose losses are compared, `tuning` or `validation`."""
    seeds: list[int]
    smallest_p: float
    """With so many seeds, no sign-flip test gives less."""
    smallest_difference: float | None
    """What this study sees four times out of five, from how much its paired differences vary."""
    final: str | None
    """When the validation documents were first looked at."""
    rows: list[ResultRow]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
