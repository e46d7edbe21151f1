"""Checkpoints: everything a run needs to go on bit for bit, whole on disk or not there at all.

A checkpoint is written to a temporary folder, synced, and renamed; its checkpoint.json holds the sha256 of the other
files, so that damage shows. Batches, learning rate and dropout are functions of the step and the seed, so weights,
optimizer state and the counters in checkpoint.json are all there is to save; `train/state.py` writes and reads the state.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from shortrun.disk import file_sha256, json_sha256, read_json, sync, write_json
from shortrun.errors import UserError
from shortrun.runs.folder import RunFolder

KEEP_LAST = 2
FULL = 2**16
"""Free bytes below which a disk counts as full: blocks of some file systems are that large."""
WEIGHTS, STATE = "model.safetensors", "state.pt"
"""Files of a checkpoint."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    """Steps taken."""
    tokens: int = 0
    """Targets trained on."""
    seconds: float = 0.0
    """Time spent, over all sittings."""
    step_seconds: float = 0.0
    """The part of it spent in training steps, without evaluations and checkpoints."""
    metrics_bytes: int = 0
    """Size of metrics.jsonl when the checkpoint was made."""
    selection_loss: float | None = None
    """Loss on the tuning documents (on the validation documents, where there are none), if evaluated at this step."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk that has been found whole."""

    path: Path
    progress: Progress


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint as it lies on disk."""

    step: int
    bytes: int
    damage: str | None
    """What is wrong with it; None where it is whole."""


def save_checkpoint(folder: RunFolder, progress: Progress, write: Callable[[Path], None]) -> Path:
    """Makes a checkpoint of what `write` puts into a folder, then removes those neither among the last two nor the best.

    Raises OSError, with the checkpoints before it untouched, when the disk is full or can't be written.
    """
    final = folder.checkpoints / f"{progress.step:07d}"
    temporary = folder.checkpoints / f"{final.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        files = {}
        for path in sorted(temporary.iterdir()):
            files[path.name] = file_sha256(path)
            sync(path)
        record = {"progress": asdict(progress), "files": files}
        write_json(temporary / "checkpoint.json", {**record, "seal": json_sha256(record)})
        sync(temporary)
        if final.exists():  # a damaged one of the same step, being taken again
            shutil.rmtree(final)
        temporary.rename(final)
        sync(folder.checkpoints)
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch says "unexpected pos 4224 vs 4116" of a full disk, and does not pass on what the system said
        full = not isinstance(error, OSError) and shutil.disk_usage(folder.checkpoints).free < FULL
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, torch.OutOfMemoryError):
            raise
        told = os.strerror(errno.ENOSPC) if full else error
        raise OSError(f"the checkpoint of step {progress.step}: {told}") from error
    _prune(folder, final)
    return final


def newest_checkpoint(folder: RunFolder) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, if any, and a sentence for each newer one that is damaged."""
    damaged: list[str] = []
    return next(_whole(sorted(_checkpoint_paths(folder), reverse=True), damaged), None), damaged


def whole_checkpoints(folder: RunFolder) -> tuple[list[Checkpoint], list[str]]:
    """Every whole checkpoint, oldest first, and a sentence for each that is damaged."""
    damaged: list[str] = []
    return list(_whole(sorted(_checkpoint_paths(folder)), damaged)), damaged


def checkpoint_steps(folder: RunFolder) -> list[int]:
    """The steps of the checkpoints that lie there, in order, without a look at whether they are whole."""
    return sorted(int(path.name) for path in _checkpoint_paths(folder) if path.name.isdigit())


def checkpoint_of(folder: RunFolder, step: int) -> Checkpoint:
    """The checkpoint of one step; raises UserError where there is none, or a damaged one."""
    path = next((path for path in _checkpoint_paths(folder) if path.name.isdigit() and int(path.name) == step), None)
    if path is None:
        steps = ", ".join(map(str, checkpoint_steps(folder))) or "none"
        raise UserError(f"{folder.path} has no checkpoint of step {step}; those it has kept: {steps}")
    try:
        return _verified(path)
    except UserError as error:
        raise UserError(f"The checkpoint {path} is damaged: {error}") from None


def stored_checkpoints(folder: RunFolder) -> list[StoredCheckpoint]:
    """Every checkpoint, whole or damaged, oldest first; all their bytes are read. One that goes meanwhile is left out."""
    found = []
    for path in sorted(_checkpoint_paths(folder)):
        damage = None
        try:
            _verified(path)
        except UserError as error:
            damage = str(error)
        sizes = [file.stat().st_size for file in path.glob("*") if file.is_file()]
        if path.is_dir() and path.name.isdigit():
            found.append(StoredCheckpoint(int(path.name), sum(sizes), damage))
    return found


def _whole(paths: list[Path], damaged: list[str]) -> Iterator[Checkpoint]:
    for path in paths:
        try:
            yield _verified(path)
        except UserError as error:
            damaged.append(f"The checkpoint {path} is damaged: {error}")


def _verified(path: Path) -> Checkpoint:
    record = read_json(path / "checkpoint.json")
    if record.pop("seal", None) != json_sha256(record):
        raise UserError("checkpoint.json is not what was written")
    try:
        progress = Progress(**record["progress"])
        files: dict[str, str] = record["files"]
        if WEIGHTS not in files:  # an ensemble of finished runs has no state to go on from
            raise KeyError
    except (KeyError, TypeError, AttributeError):
        raise UserError("checkpoint.json does not say what it should") from None
    for name, expected in files.items():
        try:
            actual = file_sha256(path / name)
        except OSError as error:
            raise UserError(f"{name} can't be read ({error})") from None
        if actual != expected:
            raise UserError(f"{name} is not what was written (sha256 {actual[:12]}, written {expected[:12]})")
    return Checkpoint(path, progress)


def _prune(folder: RunFolder, last: Path) -> None:
    """Keeps `last`, the one before it and the best, and those later than `last`; removes all others.

    Later ones are damaged, because the run would have gone on from them otherwise. What a killed process left half written
    goes too.
    """
    for unfinished in folder.checkpoints.glob("*.tmp"):
        shutil.rmtree(unfinished)
    paths = sorted(path for path in _checkpoint_paths(folder) if path <= last)
    losses = {path: loss for path in paths if (loss := _selection_loss(path)) is not None}
    best = min(losses, key=lambda path: losses[path], default=None)
    for path in paths[:-KEEP_LAST]:
        if path != best:
            shutil.rmtree(path)


def best_selection_loss(folder: RunFolder) -> float:
    """The lowest selection loss of the checkpoints there are; infinite if none has one."""
    losses = [_selection_loss(path) for path in _checkpoint_paths(folder)]
    return min((loss for loss in losses if loss is not None), default=math.inf)


def _selection_loss(path: Path) -> float | None:
    try:
        loss: float | None = read_json(path / "checkpoint.json")["progress"]["selection_loss"]
    except (UserError, KeyError, TypeError):
        return None  # damaged: not a candidate for the best
    return loss


def _checkpoint_paths(folder: RunFolder) -> list[Path]:
    return [path for path in folder.checkpoints.glob("[0-9]*") if path.is_dir() and path.suffix != ".tmp"]


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Puts the weights that are scored into a model; raises RuntimeError where they are of another shape."""
    model.load_state_dict(load_file(checkpoint.path / WEIGHTS))


def weights_sha256(model: nn.Module) -> str:
    """Fingerprint of a model's weights: their names, shapes and bits, on whatever device they are."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
