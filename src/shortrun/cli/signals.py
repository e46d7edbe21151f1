"""Ctrl-C, SIGTERM and SIGHUP let training finish its step and save; a second one stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def catching_signals(say: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """Gives a `stop` that returns the number of the signal that came, 0 while none has.

    Signals are caught from its first call on. Before a step has been taken there is nothing to save, so Ctrl-C ends at once.
    """
    came = 0
    before: dict[signal.Signals, signal._HANDLER] = {}

    def remember(number: int, _: FrameType | None) -> None:
        nonlocal came
        came = number
        say("Finishing the step and saving; once more to stop at once, back to the last checkpoint.")
        _set(before)

    def stop() -> int:
        if not before:
            before.update({number: signal.signal(number, remember) for number in SIGNALS})
        return came

    try:
        yield stop
    finally:
        _set(before)


def _set(handlers: dict[signal.Signals, signal._HANDLER]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
