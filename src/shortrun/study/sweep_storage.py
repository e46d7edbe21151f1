"""The trials of a sweep as Optuna keeps them, in an SQLite file or on a server that several machines share.

A trial that was interrupted is tried again under a number of its own. All tries of it are one chain, which has the number of
the first one. `turn` decides by the chains' numbers alone who may go on, so that processes that know nothing of each other
never finish more trials than were asked for.
"""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from shortrun.errors import ShortrunError, UserError, first_line, missing_extra

HEARTBEAT = 20
"""Seconds between two signs of life of a trial; SHORTRUN_HEARTBEAT is another number of them."""
STALE = 3
"""Signs of life in a row that a trial may miss before it counts as interrupted."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
OPENINGS = 8
"""How often a new storage is tried, because two processes that make its tables at once get in each other's way."""

RUN, REASON, SET_ASIDE, BEGUN, PASSES, SECONDS = "run", "reason", "set_aside", "begun", "passes", "seconds"
"""What a trial's attributes are called."""


def storage_url(out: Path, name: str) -> str:
    """Where a sweep's trials are kept unless somebody says otherwise."""
    return f"sqlite:///{out / name / 'sweep.db'}"


def heartbeat() -> int:
    given = os.environ.get("SHORTRUN_HEARTBEAT", str(HEARTBEAT))
    if not given.isdigit() or not int(given):
        raise UserError(f"SHORTRUN_HEARTBEAT = {given!r} must be a whole number of seconds, 1 at least")
    return int(given)


class _Storage(RDBStorage):
    """Optuna's, whose sign of life may fail while the database can't be reached.

    The thread that gives it would die with a traceback. The next one may get through, and whatever else a trial asks of a
    database that is gone says so.
    """

    def record_heartbeat(self, trial_id: int) -> None:
        with suppress(optuna.exceptions.StorageInternalError):
            super().record_heartbeat(trial_id)


def open_storage(url: str) -> RDBStorage:
    """The storage behind a URL, with its tables; raises UserError where there is none."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)  # of heartbeats, which are such a feature
    if url.startswith(("postgresql://", "postgres://")):  # by the driver that shortrun[postgres] brings
        url = f"postgresql+psycopg://{url.partition('://')[2]}"
    _parsed(url)
    beat = heartbeat()
    for opening in range(1, OPENINGS + 1):
        try:
            return _Storage(
                url,
                engine_kwargs={"connect_args": {"timeout": 60}}
                if url.startswith("sqlite")
                else {"pool_pre_ping": True},
                heartbeat_interval=beat,
                grace_period=STALE * beat,
                heartbeat_stale_trial_callback=retry,
            )
        except ImportError as error:
            raise missing_extra(f"The storage {_shown(url)}", "postgres", f" ({error})") from None
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if opening == OPENINGS:
                told = first_line(error.__cause__ or error)
                raise UserError(f"The storage {_shown(url)} can't be opened: {told}") from None
            time.sleep(0.1 * opening)
        except RuntimeError as error:
            raise UserError(f"The storage {_shown(url)} can't be used: {error}") from None
    raise AssertionError


def find_study(url: str, name: str) -> optuna.Study:
    """A sweep that has been begun; raises UserError where there is none."""
    path = _parsed(url).database if url.startswith("sqlite") else None
    if path is None or Path(path).exists():
        try:
            return optuna.load_study(study_name=name, storage=open_storage(url))
        except KeyError:
            pass
    raise UserError(f"There are no trials of {name} in {_shown(url)}: `shortrun sweep run` makes them")


def _parsed(url: str) -> URL:
    """Raises UserError, which does not show it because it may hold a password, where it is no URL of a database."""
    try:
        return make_url(url)
    except (SQLAlchemyError, ValueError):  # the latter where its port is no number
        raise UserError(
            "What --storage names is no URL of a database: write sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        ) from None


def _shown(url: str) -> str:
    """The URL without its password, nor anything behind a question mark, where drivers take passwords, too."""
    return _parsed(url).set(query={}).render_as_string(hide_password=True)


def retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Puts a trial that was interrupted back in line, with the same values."""
    RetryHeartbeatStaleTrialCallback()(study, copy.deepcopy(trial))


def chain_number(trial: FrozenTrial) -> int:
    """The number of the first try of a trial."""
    number: int = trial.system_attrs.get("failed_trial", trial.number)
    return number


def chains(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The try of each chain that counts: a finished one, or the last. Those set aside are none of them."""
    found: dict[int, FrozenTrial] = {}
    for trial in trials:
        number = chain_number(trial)
        if SET_ASIDE not in trial.user_attrs and not (number in found and found[number].state in FINISHED):
            found[number] = trial
    return found


def interrupted(trial: FrozenTrial) -> bool:
    """Whether it ended without a reason, so that it is tried again."""
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def finished(trials: Sequence[FrozenTrial]) -> int:
    """How many trials are completed or pruned; one with the same values as another does not count."""
    return len({_values(trial) for trial in trials if trial.state in FINISHED})


def turn(trials: Sequence[FrozenTrial], trial: FrozenTrial, n_trials: int) -> bool:
    """Whether a running trial may go on to be the n-th at most: whether the finished ones and those before it are fewer.

    Of any n + 1 chains, the one with the largest number has seen the n others, finished or before it, and does not go on.
    """
    own = chain_number(trial)
    others = {number: other for number, other in chains(trials).items() if number != own}
    done = {_values(other) for other in others.values() if other.state in FINISHED}
    before = [
        number
        for number, other in others.items()
        if number < own and (not other.state.is_finished() or interrupted(other))
    ]
    return len(done) + len(before) < n_trials


def twin(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int | None:
    """Another trial with the same values that is done, has failed for a reason, or comes before this one."""
    own = chain_number(trial)
    for number, other in chains(trials).items():
        settled = other.state.is_finished() and not interrupted(other)
        if number != own and (settled or number < own) and _values(other) == _values(trial):
            return other.number
    return None


def put_back_lost(study: optuna.Study, patience: float) -> None:
    """Puts back in line what a process left behind that died in a moment without heartbeats.

    Those moments are between a trial's creation and its first heartbeat, and between the failure of a stale trial and its
    retry. `patience`: seconds that a trial may spend in such a moment.
    """
    before = datetime.now() - timedelta(seconds=patience)
    for trial in chains(study.get_trials(deepcopy=False)).values():
        unborn = trial.state == TrialState.RUNNING and trial.user_attrs.get(BEGUN) != trial.number
        if unborn and trial.datetime_start and trial.datetime_start < before:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        elif interrupted(trial) and trial.datetime_complete and trial.datetime_complete < before:
            retry(study, trial)


def same_sweep(study: optuna.Study, described: dict[str, Any]) -> None:
    """Writes down what a sweep is when it begins; raises UserError when it goes on as another."""
    before = study.user_attrs.get("sweep")
    if before is None:
        study.set_user_attr("sweep", described)
        study.set_user_attr("optuna", optuna.__version__)
        return
    lines = list(changes(before, described))
    if lines:
        raise UserError(
            "\n  ".join([f"The trials of {study.study_name} in this storage are those of another sweep:", *lines])
            + "\nA copy of the file under another name is a sweep of its own"
        )


def changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """A sentence for each thing in which two sweeps differ."""
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from changes(old, new)
        elif key == "base" and old != new:
            yield "the recipe that all trials share, or its data, has changed"
        elif old != new:
            yield f"{key}: {old} -> {new}"


def _values(trial: FrozenTrial) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, repr(value)) for name, value in trial.params.items()))


def closed(error: Exception) -> ShortrunError:
    """What a storage says when it can't be reached any more, as a sentence."""
    told = first_line(error.__cause__ or error)
    return ShortrunError(f"The sweep's storage can't be used any more: {told}. Run it again to go on")
