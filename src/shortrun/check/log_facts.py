"""What a Mainrun log says and what follows from it, whoever wrote it.

Mainrun's log has the settings, the tokens of an epoch, the loss of each step per token and of each evaluation per character. How
many validation tokens and characters there are it does not say: both are estimated from the training tokens, by the public
revisions of the titles (`titles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shortrun.check.titles import REFRESHED, REVISIONS, TITLES, Revision, likely_revisions, revision_of
from shortrun.errors import UserError
from shortrun.runs.events import EventLog, number, read_events, whole

ACCUMULATION = (
    "gradient_accumulation_steps",
    "grad_accum_steps",
    "grad_accum",
    "accumulation_steps",
    "accum_steps",
    "accum",
)
"""What public attempts call the number of batches that one update takes."""


class Range(NamedTuple):
    """A number that is only known to lie between two."""

    low: float
    high: float


class Evaluated(NamedTuple):
    """An evaluation; None stands for what is no number."""

    step: int | None
    loss: float | None


@dataclass(frozen=True)
class OfficialLog:
    """A log, asked for what rules need. What it does not say raises UserError with a sentence."""

    log: EventLog
    reported: float | None
    """The loss that somebody says the run reached."""

    @classmethod
    def read(cls, path: Path, reported: float | None = None) -> OfficialLog:
        return cls(read_events(path), reported)

    def setting(self, name: str) -> float:
        """A number from `hyperparameters_configured`."""
        return self._said(number(self.log.first("hyperparameters_configured"), name), name)

    def info(self, name: str) -> int:
        """A whole number from `dataset_info`."""
        return int(self._said(whole(self.log.first("dataset_info"), name), f"{name} of the data set"))

    @staticmethod
    def _said(value: float | None, name: str) -> float:
        if value is None or value <= 0:
            raise UserError(f"the log does not say the {name}")
        return value

    @property
    def span(self) -> int:
        """Targets of one span of an evaluation."""
        return int(self.setting("block_size")) * int(self.setting("batch_size"))

    @property
    def step_tokens(self) -> int:
        """Tokens of one batch in training, whose size some give apart from that of an evaluation."""
        rows = whole(self.log.first("hyperparameters_configured"), "train_batch_size")
        return int(self.setting("block_size")) * rows if rows and rows > 0 else self.span

    @property
    def batches_a_step(self) -> int:
        """Batches that an update takes."""
        settings = self.log.first("hyperparameters_configured")
        return next((count for name in ACCUMULATION if (count := whole(settings, name)) and count > 1), 1)

    @property
    def vocab_size(self) -> int:
        """Entries that the tokenizer has."""
        return self.info("vocab_size")

    @property
    def max_steps(self) -> int:
        found = next((each for event in self.log.all("training_step") if (each := whole(event, "max_steps"))), None)
        return int(self._said(found, "number of steps (max_steps)"))

    def steps(self) -> list[int | None]:
        return [whole(event, "step") for event in self.log.all("training_step")]

    @property
    def ends_at(self) -> int:
        """The last step that the log tells of, be it of training or of an evaluation."""
        return max(
            (step for step in [*self.steps(), *(at for at, _ in self.evaluations())] if step is not None), default=0
        )

    def evaluations(self) -> list[Evaluated]:
        return [Evaluated(whole(event, "step"), number(event, "loss")) for event in self.log.all("validation_step")]

    def last_evaluation(self) -> tuple[int, float]:
        """Step and loss of the last evaluation."""
        step, loss = self.evaluations()[-1] if self.evaluations() else (None, None)
        if step is None or loss is None:
            raise UserError("the log holds no evaluation that ends in a number")
        return step, loss

    @property
    def standard(self) -> bool:
        """Whether these are as many titles as Mainrun selects, in its order and split."""
        settings = self.log.first("hyperparameters_configured")
        said = [number(settings, name) for name in ("num_titles", "val_frac", "seed")]
        return said == [TITLES, 0.1, 1337] and self.log.first("dataset_info").get("titles_count") in (
            None,
            TITLES * 9 // 10,
        )

    def revisions(self) -> list[Revision]:
        """The revisions of the titles that it may be about: the one with its tokens, or all that there were at its date."""
        exact = revision_of(self.info("tokens_per_epoch"))
        if exact and self.vocab_size == 16_000:
            return [exact]
        written = number(self.log.first("hyperparameters_configured"), "timestamp")
        if written is None:
            return list(REVISIONS)
        gone = REVISIONS[0] if written >= REFRESHED else REVISIONS[-1]
        return [one for one in REVISIONS if one is not gone]

    def characters(self) -> Range:
        """Of the joined validation text."""
        said = whole(self.log.first("dataset_info"), "validation_characters")
        if said:
            return Range(said, said)
        if not self.standard:
            raise UserError("the log is not about Mainrun's 100,000 titles, whose characters are known")
        counts = [one.validation_characters for one in self.revisions()]
        return Range(min(counts), max(counts))

    def validation_tokens(self) -> Range:
        """From the training tokens: validation titles are as long as others, within 1 %."""
        tokens = self.info("tokens_per_epoch")
        exact = revision_of(tokens) if self.standard and self.vocab_size == 16_000 else None
        if exact:
            return Range(exact.validation_tokens * 0.999, exact.validation_tokens * 1.001)
        info = self.log.first("dataset_info")
        titles = int(self.setting("num_titles"))
        trained = whole(info, "titles_count") or int(titles * (1 - self.setting("val_frac")))
        validated = whole(info, "validation_documents") or titles - int(titles * (1 - self.setting("val_frac")))
        if trained <= 0 or validated <= 0:
            raise UserError("the log does not say how many titles are for validation")
        likely = {one for one, _ in likely_revisions(tokens, self.vocab_size) if one in self.revisions()}
        if self.standard and len(likely) == 1:  # its validation titles are a little shorter or longer than the others
            (one,) = likely
            middle, off = tokens * one.validation_tokens / one.train_tokens, 0.005
        else:
            middle, off = tokens * validated / trained, 0.01
        return Range(middle * (1 - off), middle * (1 + off))

    def nats_a_token(self) -> tuple[Range, float]:
        """What a token costs the model of an early evaluation, and the loss of that evaluation per character.

        The evaluation of step k scores the weights that step k + 1 begins with; of a moving average, those are older.
        """
        losses = {whole(event, "step"): number(event, "loss") for event in self.log.all("training_step")}
        for step, loss in self.evaluations():
            if step is None or loss is None or step > max(self.max_steps // 10, 1):
                continue
            near = [value for at in (step, step + 1) if (value := losses.get(at)) is not None and value > 0]
            if len(near) == 2:
                return Range(min(near), max(near)), loss
        raise UserError("the log has no early evaluation between two steps, from which the targets could be counted")

    def implied_targets(self) -> Range:
        """How many targets an early evaluation has scored, by its loss and what a token cost then."""
        nats, loss = self.nats_a_token()
        characters = self.characters()
        return Range(loss * characters.low / nats.high, loss * characters.high / nats.low)

    def spans(self) -> Range:
        """Whole spans in the validation tokens: the fewest and the most that there may be."""
        tokens = self.validation_tokens()
        return Range(tokens.low // (self.span + 1), tokens.high // (self.span + 1))

    def coverage(self) -> float:
        """The share of the validation tokens that an evaluation scores, about.

        Where the count of spans is on edge, the one that the early evaluation is nearer to.
        """
        spans, tokens = self.spans(), self.validation_tokens()
        chosen = int(spans.high)
        if spans.low != spans.high:
            try:
                implied = self.implied_targets()
                scored = (implied.low + implied.high) / 2 / self.span
            except UserError:
                scored = (tokens.low + tokens.high) / 2 // (self.span + 1)
            chosen = min(range(int(spans.low), int(spans.high) + 1), key=lambda count: abs(count - scored))
        return self.share_in(chosen)

    def share_in(self, spans: int) -> float:
        """The share of the validation tokens that lies in so many whole spans, about."""
        return min(spans * self.span / (sum(self.validation_tokens()) / 2), 1.0)
