"""Learning rate schedules: functions of the step alone, so a resumed run needs no scheduler state."""

from __future__ import annotations

from math import cos, pi


def cosine(step: int, total_steps: int, peak: float) -> float:
    """Learning rate of a step (counted from 1): half a cosine from `peak` at step 1 towards 0 after the last.

    Loshchilov & Hutter 2017 (arXiv 1608.03983), without restarts: what `CosineAnnealingLR(T_max=total_steps)` gives.
    """
    return peak * (1 + cos(pi * (step - 1) / total_steps)) / 2
