"""Several processes that train one model: torch.distributed, as torchrun starts it.

    torchrun --nproc-per-node 2 -m shortrun train RECIPE ...

One global batch, whatever the number of processes: each takes its share of the rows, gradients are summed over all
targets, and every process then takes the same step. Each holds the whole model (DistributedDataParallel), and only the
first one writes. A run goes on with any number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shortrun.errors import LostProcess, ShortrunError, UserError
from shortrun.score.evaluate import Share

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Adds up over all processes; each gets the same bits."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Waits until all processes have come this far."""
        if self.size > 1:
            dist.barrier()

    def any(self, flag: int) -> int:
        """Gives every process the largest of their flags."""
        if self.size == 1:
            return flag
        largest = torch.tensor(flag)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def firsts(self, value: T) -> T:
        """Gives every process the first one's value."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def require_same(self, what: str, value: str) -> None:
        """Raises UserError, in each process, unless all have the same value."""
        if self.size > 1:
            values: list[str] = [""] * self.size
            dist.all_gather_object(values, value)
            if len(set(values)) > 1:
                raise UserError(f"The processes have not the same {what}: {', '.join(each[:12] for each in values)}")

    def share(self) -> Share:
        """This process's share of what is scored."""
        return Share(self.rank, self.size, self._combined)

    def _combined(self, parts: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.sum(torch.from_numpy(parts)).numpy()

    def spread(self, objective: nn.Module, device: torch.device) -> nn.Module:
        """The module that each process calls, so that gradients are averaged over processes."""
        if self.size == 1:
            return objective
        ids = [torch.cuda.current_device()] if device.type == "cuda" else None
        return DistributedDataParallel(objective, device_ids=ids)


ALONE = Processes()


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Joins the processes that torchrun started (its environment variables say which), and leaves them at the end; those
    that have been joined already stay so."""
    if dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    missing = {"RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} - os.environ.keys()
    if missing:
        raise UserError(f"WORLD_SIZE is set, but not {', '.join(sorted(missing))}: start several processes by torchrun")
    on_gpu = torch.cuda.is_available() and device in ("auto", "cuda")
    if on_gpu:
        number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= gpus:
            raise UserError(f"Process {number} of this machine has no GPU: there are {gpus}; lower --nproc-per-node")
        torch.cuda.set_device(number)
    elif torch.backends.mps.is_available() and device in ("auto", "mps"):
        raise UserError('Several processes can\'t share MPS: train with one, or with train.device = "cpu"')
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
        dist.barrier()  # nobody goes while another still listens
    except ShortrunError as error:
        error.process = dist.get_rank()
        raise
    except RuntimeError as error:
        if not lost_another(error):
            raise
        lost = LostProcess(without_another(error))
        lost.process = dist.get_rank()
        raise lost from error
    finally:
        dist.destroy_process_group()


def lost_another(error: Exception) -> bool:
    """Whether an error means that another process could not be reached; gloo and NCCL say so in words alone."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("by peer", "gloo", "nccl", "timed out", "connection", "socket")
    )


def without_another(error: Exception) -> str:
    """A sentence for an error that `lost_another` knows."""
    return (
        f"Process {dist.get_rank()} of {dist.get_world_size()} can't go on: another one has ended or can't be reached "
        f"({str(error).splitlines()[0]})"
    )


def unsynchronised(objective: nn.Module) -> AbstractContextManager[Any]:
    """Keeps gradients to this process, which all but the last micro-batch of a step want."""
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) else nullcontext()
