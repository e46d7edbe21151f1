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
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from shortrun.disk import file_sha256, json_sha256, read_json, sync, write_json
from shortrun.errors import UserError, first_line
from shortrun.limits import DEEPEST, is_plain_name, require_shape, shortened
from shortrun.model.make import model_without_weights
from shortrun.recipe import Recipe
from shortrun.runs.folder import RunFolder
from shortrun.runs.shapes import PROGRESS

KEEP_LAST = 2
FULL = 2**16
"""Free bytes below which a disk counts as full: blocks of some file systems are that large."""
NUMBER = re.compile("[0-9]{1,18}")
"""What a checkpoint's folder is called."""
WEIGHTS, STATE = "model.safetensors", "state.pt"
"""Files of a checkpoint."""
MOST_VALUES = 1_000_000
"""In state.pt, tensors counted as one each: an optimizer has some for every parameter."""


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
    return sorted(int(path.name) for path in _checkpoint_paths(folder) if NUMBER.fullmatch(path.name))


def checkpoint_of(folder: RunFolder, step: int) -> Checkpoint:
    """The checkpoint of one step; raises UserError where there is none, or a damaged one."""
    path = next(
        (path for path in _checkpoint_paths(folder) if NUMBER.fullmatch(path.name) and int(path.name) == step), None
    )
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
        if path.is_dir() and NUMBER.fullmatch(path.name):
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
        # STATE may be missing: an ensemble of finished runs has none to go on from
        if WEIGHTS not in files or not all(map(is_plain_name, files)):
            raise KeyError
    except (KeyError, TypeError, AttributeError):
        raise UserError("checkpoint.json does not say what it should") from None
    require_shape(record["progress"], PROGRESS, path / "checkpoint.json")
    for name, expected in files.items():
        try:
            if not (path / name).is_file():  # reading a pipe or a device never ends
                raise OSError("there is no such file")
            actual = file_sha256(path / name)
        except OSError as error:
            raise UserError(f"{name} can't be read ({error})") from None
        if actual != expected:
            raise UserError(f"{name} is not what was written (sha256 {actual[:12]}, written {str(expected)[:12]})")
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
        progress = read_json(path / "checkpoint.json")["progress"]
        require_shape(progress, PROGRESS, path)
    except (UserError, KeyError, TypeError, AttributeError):
        return None  # damaged: not a candidate for the best
    loss: float | None = progress["selection_loss"]
    return loss


def _checkpoint_paths(folder: RunFolder) -> list[Path]:
    return [path for path in folder.checkpoints.glob("[0-9]*") if path.is_dir() and path.suffix != ".tmp"]


def require_weights(recipe: Recipe, vocab_size: int, checkpoint: Checkpoint, members: Sequence[Recipe] = ()) -> None:
    """Raises UserError unless the checkpoint has the weights of that recipe's model, or of an ensemble of these members.

    Looks at names and shapes alone: a recipe may ask for a model that no machine holds, and its file shows that it has none.
    """
    try:
        with safe_open(checkpoint.path / WEIGHTS, "pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(f"{checkpoint.path / WEIGHTS} can't be read: {error}") from None
    if sum(each.model.n_layer * each.model.members for each in members or [recipe]) <= len(stored):
        model = model_without_weights(recipe, vocab_size, members)
        asked = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
        differing = sorted(name for name in asked.keys() | stored.keys() if asked.get(name) != stored.get(name))
    else:
        asked, differing = {}, ["its layers"]
    if differing:
        first = differing[0]
        raise UserError(
            f"{checkpoint.path} holds another model's weights: {shortened(first)} is {stored.get(first, 'missing')}, not "
            f"{asked.get(first, 'there in the recipe')}"
        )


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Puts the weights that are scored into a model; raises RuntimeError where they are of another shape."""
    model.load_state_dict(load_file(checkpoint.path / WEIGHTS))


def load_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """What state.pt holds; raises UserError where that is no state of a run.

    No code runs: torch unpickles tensors, numbers, words and containers alone. What it unpickles is no larger than the file, because
    members that are compressed are refused, and is looked through once, because a list may hold one other list many times.
    """
    path = checkpoint.path / STATE
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed")
        state = torch.load(path, map_location="cpu", weights_only=True)
        _require_few(state)
        if not isinstance(state, dict) or not isinstance(state.get("documents_seen"), torch.Tensor):
            raise ValueError("it does not say how often each document was seen")
    except FileNotFoundError:
        raise
    except Exception as error:  # the unpickler raises whatever the bytes make it stumble over
        raise UserError(f"{path} can't be read: {first_line(error)}") from None
    return state


def _require_few(state: Any) -> None:
    """Raises ValueError for more values, or deeper ones, than a state of a run has."""
    waiting, values = [(0, state)], 0
    while waiting:
        depth, each = waiting.pop()
        inside = list(each.values()) if isinstance(each, dict) else each if isinstance(each, list | tuple) else ()
        values += len(inside)
        if values > MOST_VALUES or depth > DEEPEST:
            raise ValueError("it has more values than a state of a run")
        waiting += [(depth + 1, one) for one in inside]


def weights_sha256(model: nn.Module) -> str:
    """Fingerprint of a model's weights: their names, shapes and bits, on whatever device they are."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
