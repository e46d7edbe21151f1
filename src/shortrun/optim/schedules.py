"""Schedules of the learning rate and of weight decay: functions of the step alone, so a resumed run needs no state."""

from __future__ import annotations

from math import cos, pi, sqrt
from typing import Literal

from shortrun.recipe import OptimConfig, ScheduleConfig


def lr_scale(step: int, total_steps: int, config: ScheduleConfig, peak: float) -> float:
    """The learning rate of a step (counted from 1) as a share of `peak`.

    cosine without warmup is what `CosineAnnealingLR(T_max=total_steps, eta_min=min_lr)` gives (Loshchilov & Hutter 2017,
    arXiv 1608.03983). wsd is warmup, a plateau, and a decay by 1 - sqrt (Hägele et al. 2024, arXiv 2405.18392).
    """
    warmup = warmup_steps(total_steps, config)
    if step <= warmup:
        return step / warmup
    done, steps = step - 1 - warmup, max(total_steps - warmup, 1)
    floor = config.min_lr / peak
    return floor + (1 - floor) * _shape(done / steps, config, share_of_all=steps / total_steps)


def warmup_steps(total_steps: int, config: ScheduleConfig) -> int:
    """Steps of linear warmup: as many as the recipe says, or its share of all."""
    return round(config.warmup * total_steps) if config.warmup < 1 else int(config.warmup)


def decay_scale(step: int, total_steps: int, config: ScheduleConfig) -> float:
    """Weight decay at a step (counted from 1) as a share of the recipe's value: from 1 towards 0, just after the last step.

    It multiplies the learning rate, so it falls with that besides (Loshchilov & Hutter 2019, arXiv 1711.05101).
    """
    return _fall((step - 1) / total_steps, config.weight_decay)


def applied_shrink(optim: OptimConfig, schedule: ScheduleConfig, total_steps: int) -> dict[str, float]:
    """What weight decay does over a whole run: the sum of learning rate times weight decay over its steps, by group.

    Gradients aside, a weight ends at about exp(-sum) of what it was. The groups are muon's "matrices" and the "others", or
    "weights" of any other optimizer, at optim.lr.
    """
    steps = range(1, total_steps + 1)
    scale = sum(
        lr_scale(step, total_steps, schedule, optim.lr) * decay_scale(step, total_steps, schedule) for step in steps
    )
    rest = scale * optim.lr * optim.weight_decay
    if optim.name == "muon":
        return {"matrices": scale * optim.muon_lr * optim.muon_weight_decay, "others": rest}
    return {"weights": rest}


def _shape(progress: float, config: ScheduleConfig, share_of_all: float) -> float:
    """From 1 towards 0 as `progress` goes from 0 to 1 (reached just after the last step)."""
    match config.name:
        case "restarts":
            return _fall(progress * config.cycles % 1, "cosine")
        case "wsd":
            begins = max(1 - config.decay_frac / share_of_all, 0.0)
            return 1.0 if progress <= begins else 1 - sqrt((progress - begins) / (1 - begins))
        case name:
            return _fall(progress, name)


def _fall(progress: float, name: Literal["constant", "linear", "cosine"]) -> float:
    match name:
        case "constant":
            return 1.0
        case "linear":
            return 1 - progress
        case "cosine":
            return (1 + cos(pi * progress)) / 2
