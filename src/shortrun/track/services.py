"""Other trackers: trackio, Weights & Biases and MLflow, each an extra of its own name.

Where they keep things, and whom they tell, is left to their own settings: TRACKIO_DIR, WANDB_MODE, MLFLOW_TRACKING_URI
and the like. All three find a run again by its identity, so a run that goes on stays one run.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from shortrun.runs.result import Result
from shortrun.track.tracker import Reached, Scalars, hyperparameters, identity, listed
from shortrun.train.events import Begun

PROJECT = "shortrun"
"""The project, or the experiment, that runs belong to where the environment names none."""


class Trackio:
    """trackio, on this machine or on a Space."""

    def __init__(self) -> None:
        self._trackio = importlib.import_module("trackio")

    def begin(self, run: Begun) -> Reached:
        self._run = self._trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=f"{run.folder.path.name}-{identity(run.folder)[:6]}",
            config=hyperparameters(run.folder.recipe()),
            resume="allow",
            embed=False,
        )
        last = self._run._next_step - 1  # where it goes on by itself; nothing public says it
        return Reached(last, last)

    def scalars(self, step: int, values: Scalars) -> None:
        self._run.log(values, step=step)

    def documents(self, step: int, documents: list[str]) -> None:
        self._run.log({"Samples": self._trackio.Markdown(listed(documents))}, step=step)

    def end(self, result: Result | None) -> None:  # noqa: ARG002
        self._trackio.finish()


class WandB:
    """Weights & Biases."""

    def __init__(self) -> None:
        self._wandb = importlib.import_module("wandb")

    def begin(self, run: Begun) -> Reached:
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=identity(run.folder),
            name=run.folder.path.name,
            config=hyperparameters(run.folder.recipe()),
            resume="allow",
            settings=self._wandb.Settings(console="off"),  # it would take over what the progress bar writes
        )
        last = self._run.step - 1  # offline it knows of nothing before
        return Reached(last, last)

    def scalars(self, step: int, values: Scalars) -> None:
        self._run.log(values, step=step)

    def documents(self, step: int, documents: list[str]) -> None:
        table = self._wandb.Table(columns=["document"], data=[[document] for document in documents])
        self._run.log({"Samples": table}, step=step)

    def end(self, result: Result | None) -> None:
        self._run.finish(exit_code=0 if result else 1)


class MLflow:
    """MLflow, in a database, in files or on a server.

    Numbers go there in the background, and whether they arrived is asked at each evaluation: a server can take a tenth of
    a second.
    """

    def __init__(self) -> None:
        self._mlflow = importlib.import_module("mlflow")
        self._sent: list[Any] = []

    def begin(self, run: Begun) -> Reached:
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ and "MLFLOW_EXPERIMENT_ID" not in os.environ:
            self._mlflow.set_experiment(PROJECT)
        name = identity(run.folder)
        found = self._mlflow.search_runs(filter_string=f"tags.shortrun = '{name}'", output_format="list")
        if found:
            self._id = self._mlflow.start_run(run_id=found[0].info.run_id).info.run_id
            return Reached(self._last("Train/Loss"), self._last("Val/Loss"))
        self._id = self._mlflow.start_run(run_name=run.folder.path.name, tags={"shortrun": name}).info.run_id
        self._mlflow.log_params(hyperparameters(run.folder.recipe()))
        return Reached()

    def _last(self, name: str) -> int:
        history = self._mlflow.MlflowClient().get_metric_history(self._id, name)
        return max((point.step for point in history), default=0)

    def scalars(self, step: int, values: Scalars) -> None:
        self._sent.append(self._mlflow.log_metrics(values, step=step, synchronous=False))

    def documents(self, step: int, documents: list[str]) -> None:
        self._arrived()
        self._mlflow.log_text(listed(documents), f"samples/{step:07d}.md")

    def end(self, result: Result | None) -> None:
        try:
            self._arrived()
        finally:
            self._mlflow.end_run("FINISHED" if result else "KILLED")

    def _arrived(self) -> None:
        """Waits for what was sent, and raises what became of it."""
        sent, self._sent = self._sent, []
        for numbers in sent:
            numbers.wait()
