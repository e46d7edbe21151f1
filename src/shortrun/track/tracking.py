"""A run's events, passed on to trackers: a listener for `fit(..., on_event=...)`.

with Tracking(trackers(["tensorboard"]), on_event=print) as tracking:
    train(recipe, path, on_event=tracking)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout, suppress
from functools import cache
from types import TracebackType

from shortrun.errors import UserError, did_you_mean, first_line, missing_extra
from shortrun.runs.result import Result
from shortrun.track.services import MLflow, Trackio, WandB
from shortrun.track.tensorboard import TensorBoard
from shortrun.track.tracker import Reached, Tracker, of_event, of_record
from shortrun.train.events import Begun, Ended, Evaluated, Event, Note, OnEvent, StepTaken, ignore

TRACKERS: dict[str, Callable[[], Tracker]] = {
    "mlflow": MLflow,
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WandB,
}
DOCUMENTS = 5
"""How many documents are sampled at each evaluation."""


def trackers(names: Iterable[str]) -> dict[str, Tracker]:
    """The trackers of these names. Raises UserError for one that there is not, and for one that is not installed."""
    made: dict[str, Tracker] = {}
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"There is no tracker '{name}': {did_you_mean(name, TRACKERS)}")
        try:
            made[name] = TRACKERS[name]()
        except ImportError as error:
            raise missing_extra(f"Tracking by {name}", name, f" ({error})") from None
    return made


class Tracking:
    """Tells trackers what happens to one run; use it as a context manager.

    A tracker that fails is left out from then on, with a warning. Each gets every step once: of a run that goes on, it gets
    what it lacks from metrics.jsonl, and is not told again what it has.
    """

    def __init__(self, trackers: Mapping[str, Tracker], on_event: OnEvent = ignore) -> None:
        self._going, self._on_event = dict(trackers), on_event
        self._reached: dict[str, Reached] = {}

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reached:  # in processes besides the first, and before a run has begun, there is nothing to end
            self._end(None)

    def __call__(self, event: Event) -> None:
        self._on_event(event)
        match event:
            case Begun():
                self._each(lambda name, tracker: self._begin(name, tracker, event))
            case StepTaken():
                values = of_event(event)
                self._each(
                    lambda name, tracker: (
                        tracker.scalars(event.step, values) if event.step > self._reached[name].step else None
                    )
                )
            case Evaluated():
                self._evaluated(event)
            case Ended():
                self._end(event.result)

    def _begin(self, name: str, tracker: Tracker, run: Begun) -> None:
        self._reached[name] = reached = tracker.begin(run)
        if min(reached) < run.step:
            for record in run.folder.metrics():
                after = {"training_step": reached.step, "validation_step": reached.evaluation}.get(record["event"])
                if after is not None and after < record["step"] <= run.step:
                    tracker.scalars(record["step"], of_record(record))

    def _evaluated(self, event: Evaluated) -> None:
        values = of_event(event)

        @cache
        def documents() -> list[str]:
            return event.sample(DOCUMENTS)

        def tell(name: str, tracker: Tracker) -> None:
            if event.step > self._reached[name].evaluation:
                tracker.scalars(event.step, values)
                tracker.documents(event.step, documents())

        self._each(tell)

    def _end(self, result: Result | None) -> None:
        self._each(lambda _, tracker: tracker.end(result))
        self._going.clear()

    def _each(self, tell: Callable[[str, Tracker], None]) -> None:
        """Does something with each tracker. What they print goes to standard error, because --json has the other."""
        for name, tracker in list(self._going.items()):
            try:
                with redirect_stdout(sys.stderr):
                    tell(name, tracker)
            except Exception as error:  # whatever a library and its server may raise
                del self._going[name]
                reason = first_line(error)
                self._on_event(Note(f"Tracking by {name} ends here, and training goes on: {reason}", warning=True))
                with suppress(Exception), redirect_stdout(sys.stderr):
                    tracker.end(None)
