"""Where a run computes, and what makes it repeatable there."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


BFLOAT16_PAYS = 1.3
"""How much faster a bfloat16 product must be than a float32 one: below, rounding costs more than it saves."""
PROBE, PROBE_SECONDS = 384, 0.06
"""Side of the matrices of a timed product, and how long all products together may take. Where bfloat16 is emulated, a
single one may take 40 ms."""


def choose_precision(wish: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The type of matrix products in training, and the reason for it, as a sentence.

    Nothing but a timed product says whether bfloat16 pays: `torch.ops.mkldnn._is_mkldnn_bf16_supported` is true on CPUs
    where it is five times slower than float32.
    """
    if wish == "float32":
        return torch.float32, "float32, because the recipe asks for it"
    rates = product_rates(device)
    pays = rates[torch.bfloat16] >= BFLOAT16_PAYS * rates[torch.float32]
    measured = (
        f"its products run at {rates[torch.bfloat16]:,.0f} GFLOP/s here and float32's at {rates[torch.float32]:,.0f}"
    )
    if wish == "bfloat16":
        warning = "" if pays else "; float32 would be the better choice on this machine"
        return torch.bfloat16, f"bfloat16, because the recipe asks for it: {measured}{warning}"
    if pays:
        return torch.bfloat16, f"bfloat16, because {measured}"
    return torch.float32, f"float32, because bfloat16 does not pay: {measured}"


def cpu_features() -> str:
    """What the CPU has for matrix products, and what that means."""
    capability = torch.backends.cpu.get_cpu_capability()
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"{platform.machine()}, torch's {capability} kernels"
    flags = _cpu_flags()
    if "amx_bf16" in flags:
        return "AMX: bfloat16 products are several times as fast as float32's"
    if "avx512_bf16" in flags:
        return "AVX-512 with BF16: bfloat16 products are faster than float32's"
    if "avx512f" in flags:
        return "AVX-512 without BF16: bfloat16 is emulated, several times slower than float32"
    return f"torch's {capability} kernels, no BF16: bfloat16 is emulated, many times slower than float32"


def _cpu_flags() -> set[str]:
    """The feature flags that Linux lists; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def product_rates(device: torch.device) -> dict[torch.dtype, float]:
    """GFLOP/s of a square matrix product in float32 and in bfloat16, on one thread.

    The two take turns and the best of each counts, and threads don't wait for one another, so that another process on the
    same cores hardly moves their ratio.
    """
    threads, types = torch.get_num_threads(), (torch.float32, torch.bfloat16)
    torch.set_num_threads(1)
    try:
        matrices = {dtype: torch.ones(PROBE, PROBE, device=device, dtype=dtype) for dtype in types}
        best, began = dict.fromkeys(types, float("inf")), time.perf_counter()
        while time.perf_counter() - began < PROBE_SECONDS:
            for dtype, matrix in matrices.items():
                best[dtype] = min(best[dtype], _product_seconds(matrix))
    finally:
        torch.set_num_threads(threads)
    return {dtype: 2 * PROBE**3 / seconds / 1e9 for dtype, seconds in best.items()}


def product_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Floating-point operations a second of a square matrix product on all threads, the best of five."""
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    return 2 * side**3 / min(_product_seconds(matrix) for _ in range(5))


def _product_seconds(matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    (matrix @ matrix)[0, 0].item()  # waits for the result
    return time.perf_counter() - start


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


def machine(
    device: torch.device, reason: str, threads: int, precision: torch.dtype, processes: int = 1
) -> dict[str, Any]:
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
        "precision": str(precision).removeprefix("torch."),
        "processes": processes,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
