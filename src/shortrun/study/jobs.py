"""A job: one run of a study or a sweep, done in this process, in a worker process or on another machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortrun.recipe import Recipe
from shortrun.runs.folder import RunFolder, run_fingerprint
from shortrun.runs.log import RunInUse
from shortrun.train.events import OnEvent, ignore
from shortrun.train.fit import fit, never
from shortrun.train.loop import Stop, Stopped
from shortrun.train.prepare import Prepared, prepare
from shortrun.train.sizes import sized

PATIENCE = 120.0
"""Seconds: longer than a step, an evaluation and a checkpoint of the largest shipped recipe on two cores."""


@dataclass(frozen=True)
class Job:
    """A recipe and the folder that its run lives in."""

    recipe: Recipe
    path: Path

    def as_dict(self) -> dict[str, Any]:
        """What goes to another process."""
        return {"recipe": self.recipe.model_dump(mode="json"), "path": str(self.path)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        return cls(Recipe.model_validate(values["recipe"]), Path(values["path"]))

    def prepared(self) -> Prepared:
        """Its data, which other seeds of the same recipe share."""
        return prepare(sized(self.recipe)[0])

    def fingerprint(self, prepared: Prepared | None = None) -> str:
        """The identity that the run will have; prepares its data, which the run then finds prepared, unless it is given."""
        recipe, _ = sized(self.recipe)
        prepared = prepared or self.prepared()
        return run_fingerprint(recipe, prepared.corpus.manifest["sha256"], prepared.tokenizer.sha256)

    def with_threads(self, share: int) -> Job:
        """A new run gets its share of the cores, unless its recipe says otherwise; one that goes on keeps what it had."""
        if self.recipe.train.threads or RunFolder(self.path).recipe_file.exists():
            return self
        return Job(self.recipe.changed("train", threads=share), self.path)

    def do(self, on_event: OnEvent = ignore, stop: Stop = never) -> dict[str, Any]:
        """Trains the run, or goes on with it where it stands; returns what its scores.json holds.

        Waits for PATIENCE while another process has the run, because one whose master was killed saves before it ends.
        """
        recipe, _ = sized(self.recipe)
        prepared, until = self.prepared(), time.monotonic() + PATIENCE
        while True:
            try:
                return fit(prepared, recipe, self.path, on_event=on_event, stop=stop).as_dict()
            except RunInUse as error:
                if number := stop():
                    raise Stopped(number, str(error)) from None
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
