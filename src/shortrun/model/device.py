"""Where a run computes, and what makes it repeatable there."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tokenizers
import torch

from shortrun import __version__
from shortrun.errors import UserError


def choose_device(wish: str) -> tuple[torch.device, str]:
    """The device to train on and the reason for it, as a sentence."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish != "auto":
        if not available[wish]:
            there = " and ".join(name for name, is_there in available.items() if is_there)
            raise UserError(f'train.device = "{wish}", but this machine has no such device; it has {there}')
        return torch.device(wish), "the recipe asks for it"
    if available["cuda"]:
        return torch.device("cuda"), f"CUDA is available ({torch.cuda.get_device_name()})"
    if available["mps"]:
        return torch.device("mps"), "Apple's MPS is available and CUDA is not"
    return torch.device("cpu"), "neither CUDA nor MPS is available"


def make_repeatable(threads: int | None) -> int:
    """Asks torch for deterministic algorithms and a fixed number of threads; returns that number.

    Sums over several threads are split by thread, so the same bits need the same count. cuBLAS needs its workspace
    fixed before the first CUDA call.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # nothing here reads memory before writing it; filling it first cost 7 % of a step of `small` on 2 cores
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set by name there
    count = threads or _cores()
    torch.set_num_threads(count)
    return count


@contextmanager
def repeatable(threads: int | None) -> Iterator[int]:
    """Does what `make_repeatable` does for a while, then sets torch's threads, algorithms and random state back."""
    threads_before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            yield make_repeatable(threads)
        finally:
            torch.set_num_threads(threads_before)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Lets glibc reuse the large buffers of one step for the next, instead of returning them to the system each time.

    Touching fresh pages otherwise costs more than computing on them: on 2 cores (AVX-512, glibc 2.36) a step of `small`
    took 1.3 times as long in float32 and about 2 times in bfloat16 without this. Elsewhere than on glibc, nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max = -1, -4  # names and numbers of malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def _cores() -> int:
    """Cores this process may use, or as many threads as OMP_NUM_THREADS asks for."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish):
        return int(wish)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(device: torch.device, reason: str, threads: int, processes: int = 1) -> dict[str, Any]:
    """What a run's bits depend on besides the recipe and the data; goes into the manifest."""
    return {
        "shortrun": __version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "tokenizers": tokenizers.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "device_reason": reason,
        "threads": threads,
        "processes": processes,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
