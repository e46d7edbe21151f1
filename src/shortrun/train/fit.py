"""Training as a library: `train` a recipe into a new run folder, `resume` one, or `fit` what has been prepared.

    prepared = prepare(recipe)
    result = fit(prepared, recipe, Path("runs/mine"), on_event=print)

Nothing here draws or installs a signal handler: events go to `on_event`, and `stop` is asked after each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from shortrun.errors import LostProcess, ShortrunError, UserError, counted
from shortrun.model.device import keep_freed_memory, repeatable
from shortrun.optim.schedules import warmup_steps
from shortrun.recipe import WITHOUT_EFFECT, Recipe
from shortrun.recipe_file import differences
from shortrun.runs.checkpoints import Checkpoint, newest_checkpoint
from shortrun.runs.folder import RunFolder, require_free
from shortrun.runs.log import MetricsLog, NoLog, log_beginning
from shortrun.runs.members import members_of
from shortrun.runs.result import Result
from shortrun.text.cleaning import cleaning_notes
from shortrun.train.assembly import Assembly, assemble
from shortrun.train.events import Note, OnEvent, ignore
from shortrun.train.loop import Loop, Stop, last_good
from shortrun.train.memory import out_of_memory
from shortrun.train.parallel import Processes, joined, lost_another, without_another
from shortrun.train.prepare import Prepared, prepare
from shortrun.train.sizes import sized

FEW_STEPS = 100
"""Fewer are not worth a learning rate schedule."""


def never() -> int:
    """The `stop` that lets a run go to its end."""
    return 0


def train(
    recipe: Recipe, path: Path, *, max_steps: int | None = None, on_event: OnEvent = ignore, stop: Stop = never
) -> Result:
    """Prepares a recipe's data and trains it into a new run folder.

    max_steps: stops after that many steps of the same run, whose learning rate is not squeezed in; it can be resumed.
    """
    require_free(path)
    recipe, reasons = sized(recipe)
    for reason in reasons:
        on_event(Note(reason))
    return fit(prepare(recipe), recipe, path, max_steps=max_steps, on_event=on_event, stop=stop)


def resume(
    path: Path,
    *,
    data_path: Sequence[str] = (),
    max_steps: int | None = None,
    on_event: OnEvent = ignore,
    stop: Stop = never,
) -> Result:
    """Goes on with a run from its newest whole checkpoint, to the same end bit for bit.

    data_path: where the run's files lie now, if they have moved. Raises UserError, with the differences, when recipe, data or tokenizer are no longer those the run began with.
    """
    folder = RunFolder.open(path)
    recipe = folder.recipe()
    _require_known(folder)
    if data_path:
        recipe = recipe.changed("data", path=tuple(data_path))
    try:
        prepared = prepare(recipe, folder.tokenizer())
    except UserError as error:
        moved = bool(recipe.data.path) and not all(Path(name).exists() for name in recipe.data.path)
        hint = f"\nWhere the data has moved, `shortrun resume {path} --data.path PATH` goes on with it" if moved else ""
        raise UserError(f"{error}{hint}") from None
    return fit(prepared, recipe, path, max_steps=max_steps, on_event=on_event, stop=stop)


def fit(
    prepared: Prepared,
    recipe: Recipe,
    path: Path,
    *,
    max_steps: int | None = None,
    on_event: OnEvent = ignore,
    stop: Stop = never,
) -> Result:
    """Trains a recipe on what `prepare` made for it, in a new run folder or on from where the run there stands.

    While it works, torch uses deterministic algorithms, the recipe's number of threads and a random state of its own; all
    three are set back at the end. glibc keeps freed memory from then on (`keep_freed_memory`). Raises Stopped when `stop`
    asked for it, Diverged when the loss is no longer a number, UserError for what can't work.
    """
    recipe = recipe.located()
    with joined(recipe.train.device) as processes:
        path = processes.firsts(path)
        folder = RunFolder.open(path) if processes.firsts(RunFolder(path).recipe_file.exists()) else None
        if folder:
            _require_same(folder, recipe, prepared)
        keep_freed_memory()
        with repeatable(recipe.train.threads or _threads_before(folder, processes)) as threads:
            precision = folder.manifest()["machine"].get("precision") if folder else None
            parts = assemble(recipe, prepared, processes, threads, precision)
            if folder is None:
                folder = _new_folder(path, parts)
            with (
                _sentences(folder, parts),
                # before the checkpoint is chosen, because who holds the log is the only one to make others
                closing(MetricsLog(folder) if processes.first else NoLog()) as log,
            ):
                checkpoint, notes = _where_it_stands(folder, parts)
                lost = log.go_on(checkpoint.progress.metrics_bytes if checkpoint else 0)
                if checkpoint is None:
                    log_beginning(log, parts.manifest, _counts(parts), folder)
                on_event = on_event if processes.first else ignore
                stop()  # whoever catches signals begins here, because from here on there is something to save
                for note in [_greeting(parts, folder), *notes, *parts.notes]:
                    on_event(Note(note))
                for warning in [*lost, *_warnings(parts)]:
                    on_event(Note(warning, warning=True))
                steps = parts.batches.total_steps
                return Loop(parts, folder, log, checkpoint, on_event).run(min(max_steps or steps, steps), stop)


def _require_known(folder: RunFolder) -> None:
    """Raises UserError where a run's recipe says something that this version can't follow, or where nothing is trained."""
    if members_of(folder.manifest()):
        raise UserError(
            f"{folder.path} is an ensemble of finished runs, so there is nothing to train; `shortrun combine` makes another"
        )
    unknown = folder.unknown_fields()
    if unknown:
        raise UserError(
            f"{folder.path} was made by an older shortrun and can be read, but not gone on with: this one does not know "
            f"{', '.join(unknown)}"
        )


def _require_same(folder: RunFolder, recipe: Recipe, prepared: Prepared) -> None:
    """Raises UserError unless a run is of this recipe, this data and this tokenizer."""
    _require_known(folder)
    without_effect = tuple(f"{name}:" for name in WITHOUT_EFFECT)
    lines = [line for line in differences(folder.recipe(), recipe) if not line.startswith(without_effect)]
    if lines:
        raise UserError("\n  ".join([f"{folder.path} is a run of another recipe:", *lines]))
    folder.require_same_data(prepared.corpus.manifest)
    if folder.tokenizer().sha256 != prepared.tokenizer.sha256:
        raise UserError(f"{folder.path} is a run with another tokenizer than the one that was prepared")


def _threads_before(folder: RunFolder | None, processes: Processes) -> int | None:
    """The number of threads that a run began with, if as many processes go on with it."""
    machine = folder.manifest()["machine"] if folder else {}
    return machine.get("threads") if machine.get("processes") == processes.size else None


def _new_folder(path: Path, parts: Assembly) -> RunFolder:
    if parts.processes.first:
        RunFolder.create(path, parts.recipe, parts.prepared.tokenizer, parts.manifest)
    parts.processes.wait()
    return RunFolder(path)


def _where_it_stands(folder: RunFolder, parts: Assembly) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, if any, and what a person should know about it."""
    folder.checkpoints.mkdir(exist_ok=True)
    new = not any(folder.checkpoints.iterdir()) and not (
        folder.metrics_file.exists() and folder.metrics_file.stat().st_size
    )
    if parts.processes.firsts(new):
        return None, []
    checkpoint, notes = newest_checkpoint(folder)
    if checkpoint is None and notes:
        raise UserError("\n".join([*notes, "No whole checkpoint is left to resume from; train the recipe anew."]))
    parts.processes.require_same("newest checkpoint", checkpoint.path.name if checkpoint else "none")
    notes.append(f"Resuming from {checkpoint.path}" if checkpoint else "No checkpoint yet: starting from step 0")
    return checkpoint, [*notes, *_changes(folder.manifest()["machine"], parts)]


def _changes(before: dict[str, Any], parts: Assembly) -> Iterator[str]:
    """A sentence for each thing about the machine that the last bits of a run depend on and that has changed."""
    was = before.get("processes", 1)
    if was != parts.processes.size:
        yield (
            f"{parts.processes.size} processes go on with what {was} began: the same batches, but dropout falls elsewhere"
        )
    for name, now in parts.manifest["machine"].items():
        if name not in ("platform", "processes", "device_reason") and before.get(name, now) != now:
            yield f"{name} was {before[name]} and is {now}: the end may differ in its last bits"


def _greeting(parts: Assembly, folder: RunFolder) -> str:
    """What is about to happen, with every choice that nobody made by hand."""
    machine, splits, recipe = parts.manifest["machine"], parts.manifest["data"]["splits"], parts.recipe
    batches, geometry = parts.batches, recipe.batches
    interval = max(batches.steps_per_epoch // recipe.train.evals_per_epoch, 1)
    padding = f", {_padding(parts):.1%} padding" if geometry.mode == "documents" else ""
    return (
        f"{counted(splits['train']['documents'], 'document')} to train on, "
        f"{splits['validation']['documents']:,} to validate; {counted(parts.model.count_parameters(), 'parameter')}; "
        f"{counted(batches.total_steps, 'step')} of {geometry.batch_size} x {geometry.block_size} tokens\n"
        f"{machine['precision']} on {machine['device']}, because {machine['device_reason']}; "
        f"{counted(machine['threads'], 'thread')}; at most {min(parts.step.positions, geometry.batch_size * geometry.block_size):,} tokens at "
        f"once{padding}; warmup {counted(warmup_steps(batches.total_steps, recipe.schedule), 'step')}; an evaluation every "
        f"{counted(interval, 'step')}\n"
        f"Run folder {folder.path}"
    )


def _padding(parts: Assembly) -> float:
    """The share of positions that count for nothing, in the first few steps."""
    batches = [parts.batches.at(step) for step in range(1, min(parts.batches.total_steps, 8) + 1)]
    positions = sum(len(rows.x_N) for batch in batches for rows in batch.micro_batches(parts.step.positions))
    return 1 - sum(batch.targets for batch in batches) / positions


def _warnings(parts: Assembly) -> Iterator[str]:
    """A sentence for each thing that makes a run worth less than it looks."""
    recipe, steps, data = parts.recipe, parts.batches.total_steps, parts.manifest["data"]
    warmup = warmup_steps(steps, recipe.schedule)
    if steps < FEW_STEPS:
        yield (
            f"{counted(steps, 'step')} will hardly learn anything: a smaller batches.batch_size or batches.block_size, or "
            f"more train.epochs, makes more of them; the recipe `own` chooses for the data"
        )
    if warmup >= steps:
        yield f"The warmup of {counted(warmup, 'step')} is no shorter than the run, so the learning rate never falls"
    leaked = data["duplicates_across"]["validation in train"]
    if leaked:
        share = leaked / data["splits"]["validation"]["documents"]
        yield f"{counted(leaked, 'validation document')} ({share:.1%}) are training documents too"
    yield from cleaning_notes(data["cleaning"])


def _counts(parts: Assembly) -> dict[str, Any]:
    return {
        "device": str(parts.device),
        "batches_per_epoch": parts.batches.steps_per_epoch,
        "tokens_per_epoch": parts.batches.tokens_per_epoch,
        "parameters_count": parts.model.count_parameters(),
    }


@contextmanager
def _sentences(folder: RunFolder, parts: Assembly) -> Iterator[None]:
    """Turns what the system raises while a run works into sentences that name the last good checkpoint."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            told = (str(error) or "MemoryError").splitlines()[0]
            raise ShortrunError(
                f"{parts.device} has too little memory for this step ({told}); a train.memory_limit takes batches in smaller "
                f"micro-batches. {last_good(folder)}"
            ) from error
        if parts.processes.size == 1 or not lost_another(error):
            raise
        raise LostProcess(
            f"{without_another(error)}. {last_good(folder)}; `shortrun resume {folder.path}` goes on from there, with any "
            "number of processes"
        ) from error
    except OSError as error:
        raise ShortrunError(
            f"The run folder could not be written ({error}). {last_good(folder)}; once it can be, "
            f"`shortrun resume {folder.path}` goes on from there"
        ) from error
