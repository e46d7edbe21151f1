"""torch's distributed checkpoints: each process writes and reads the shards it holds.

torch reads their metadata by pickle; here only the few names that such metadata consist of are let in, so that a run from
somebody else brings no code along.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as names_of_metadata
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from shortrun.errors import UserError

METADATA = ".metadata"


def save_shards(state: dict[str, Any], folder: Path) -> None:
    """Writes a state of nested dicts and tensors, sharded or not; all processes together. Raises OSError on a full disk."""
    try:
        with _one_process_is_fine():
            save(state, checkpoint_id=folder)
    except CheckpointException as error:
        raise _first(error, OSError("; ".join(_reasons(error)))) from error


def load_shards(state: dict[str, Any], folder: Path, *, alone: bool = False) -> None:
    """Fills a state's tensors in place, and replaces its other values, by what `save_shards` wrote with any number of
    processes; all processes together, unless `alone`. Raises FileNotFoundError, or UserError where it can't be read."""
    (folder / METADATA).stat()  # torch's own error for a folder that has gone is another
    try:
        with _one_process_is_fine():
            load(state, storage_reader=_Reader(folder), planner=_Planner(), no_dist=alone)
    except CheckpointException as error:
        raise _first(error, UserError(f"{folder} can't be read: {'; '.join(_reasons(error))}")) from error


def require_all_shards(folder: Path) -> None:
    """Raises OSError where a process wrote to a folder that this one does not see: machines without a shared disk."""
    names = {record.relative_path for record in _Reader(folder).read_metadata().storage_data.values()}
    missing = sorted(name for name in names if not (folder / name).exists())
    if missing:
        raise OSError(
            f"{', '.join(missing)} of other processes are not in {folder}: they need one folder on a shared disk"
        )


class _Reader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ARG002
        found: Metadata = _MetadataUnpickler(io.BytesIO((Path(self.path) / METADATA).read_bytes())).load()
        found.storage_meta = found.storage_meta or StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = (*names_of_metadata.__all__, "_MEM_FORMAT_ENCODING")
        of_metadata = module == names_of_metadata.__name__ and name in known
        a_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        others = {
            ("torch", "Size"),
            ("torch.serialization", "_get_layout"),
            ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        }
        a_path = module.partition(".")[0] == "pathlib" and name in ("PosixPath", "WindowsPath")
        if of_metadata or a_dtype or a_path or (module, name) in others:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"metadata with {module}.{name} in it, which does not belong there")


class _Planner(DefaultLoadPlanner):
    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        torch.load(value, weights_only=True)  # raises for anything but numbers, text and containers
        value.seek(0)
        super().load_bytes(read_item, value)


def _first(error: CheckpointException, otherwise: Exception) -> BaseException:
    """What is raised for an error that torch wraps: itself, if who called knows what to do about it."""
    causes = [failure[0] for failure in error.failures.values()]
    return next((cause for cause in causes if isinstance(cause, KeyboardInterrupt | FileNotFoundError)), otherwise)


def _reasons(error: CheckpointException) -> list[str]:
    return [f"process {rank}: {failure[0]}" for rank, failure in error.failures.items()]


@contextmanager
def _one_process_is_fine() -> Iterator[None]:
    """torch warns whenever distributed checkpointing is used without other processes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
