"""One thread that does what is asked of it, one thing after another, with a bound on how much may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
MOST_WAITING = 64
"""Things that wait or are being done. Readings of a 7M model take 20 ms, so the last of 64 waits for a second."""


class Busy(Exception):
    """More waits already than is allowed."""


class Worker:
    """torch computes in one thread: two would take the cores from one another, and each has a number of threads of its own."""

    def __init__(self, name: str, most: int = MOST_WAITING) -> None:
        self.most = most
        self.waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def now(self, work: Callable[[], Result]) -> Result:
        """Does it and waits for it, before there is an event loop."""
        return self._thread.submit(work).result()

    async def do(self, work: Callable[[], Result]) -> Result:
        """Does it when those before it are done; raises Busy where too many are.

        Where whoever asked is cancelled, work that has not begun is never begun.
        """
        if self.waiting >= self.most:
            raise Busy
        self.waiting += 1
        try:
            return await asyncio.wrap_future(self._thread.submit(work))
        finally:
            self.waiting -= 1

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
