"""Ctrl-C, SIGTERM and SIGHUP let training finish its step and save; a second one stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from shortrun.errors import LostProcess, ShortrunError

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StoppedAtOnce(ShortrunError):
    """Ctrl-C came while nothing could be saved, or came twice."""

    exit_code = 130


@contextmanager
def stopping(run: Path, say: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """Gives a `stop` that returns the number of the signal that came, 0 while none has.

    Raises StoppedAtOnce, which says where the run goes on from, when Ctrl-C stops it without saving.
    """
    try:
        with catching(
            say, "Finishing the step and saving; once more to stop at once, back to the last checkpoint."
        ) as stop:
            yield stop
    except KeyboardInterrupt:
        if any(run.glob("checkpoints/[0-9]*")):
            sentence = f"Stopped at once, without saving; `shortrun resume {run}` goes on from the last checkpoint"
        else:
            sentence = "Stopped at once; no checkpoint had been made yet"
        raise StoppedAtOnce(sentence) from None


@contextmanager
def catching(say: Callable[[str], None], sentence: str) -> Iterator[Callable[[], int]]:
    """Catches signals from the first call of `stop` on: before training has begun there is nothing to save.

    The first one says the sentence; a second one does what it always does. A process that ends because another one of
    its run has ended ignores SIGTERM from then on: torchrun sends it at once, and the process has yet to say why it ends.
    """
    came = 0
    before: dict[signal.Signals, signal._HANDLER] = {}

    def remember(number: int, _: FrameType | None) -> None:
        nonlocal came
        came = number
        say(sentence)
        _set(before)

    def stop() -> int:
        if not before:
            before.update({number: signal.signal(number, remember) for number in SIGNALS})
        return came

    try:
        yield stop
    except LostProcess:
        before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        _set(before)


def _set(handlers: dict[signal.Signals, signal._HANDLER]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
