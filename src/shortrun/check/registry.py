"""Every check by its name: what a file of rules can ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shortrun.check import conditions, documents, log_losses, official_log, record, reported
from shortrun.check.verdict import Finding


@dataclass(frozen=True)
class Check:
    """A function of its subject and of the values that the rule gives; its docstring says how, and what could fool it."""

    judge: Callable[..., Finding]
    deep: bool = False
    """Whether it reads the data again or loads the model."""
    of_training: bool = False
    """Whether it asks how a model was trained, which an ensemble of finished runs answers by its members."""


RUN_CHECKS: dict[str, Check] = {
    "epochs": Check(record.epochs, of_training=True),
    "seed": Check(record.seed, of_training=True),
    "data": Check(record.data),
    "share": Check(record.share),
    "evaluation_untouched": Check(record.evaluation_untouched),
    "scores_agree": Check(record.scores_agree),
    "limits": Check(record.limits),
    "first_loss": Check(record.first_loss, of_training=True),
    "no_augmentation": Check(record.no_augmentation, of_training=True),
    "whole_record": Check(reported.whole_record, deep=True),
    "revision": Check(documents.revision, deep=True),
    "no_leak": Check(documents.no_leak, deep=True),
    "times_seen": Check(documents.times_seen, deep=True, of_training=True),
    "initial_weights": Check(reported.initial_weights, deep=True, of_training=True),
    "lossless": Check(documents.lossless, deep=True),
    "fitted_on": Check(documents.fitted_on, deep=True),
    "official_loss": Check(reported.official_loss, deep=True),
    "own_loss": Check(reported.own_loss, deep=True),
    "coverage": Check(reported.coverage, deep=True),
    "denominator": Check(documents.denominator, deep=True),
    "last_step": Check(reported.last_step, deep=True, of_training=True),
    "cost_disclosed": Check(reported.cost_disclosed, deep=True),
    "causal": Check(conditions.causal, deep=True),
    "normalised": Check(conditions.normalised, deep=True),
    "unchanged": Check(conditions.unchanged, deep=True),
    "left_to_right": Check(conditions.left_to_right, deep=True),
}
"""Those of a run folder."""

LOG_CHECKS: dict[str, Check] = {
    "epochs": Check(official_log.epochs),
    "steps": Check(official_log.steps),
    "seed": Check(official_log.seed),
    "share": Check(official_log.share),
    "data": Check(official_log.data),
    "tokens": Check(official_log.tokens),
    "first_loss": Check(official_log.first_loss),
    "coverage": Check(log_losses.coverage),
    "denominator": Check(log_losses.denominator),
    "last_step": Check(log_losses.last_step),
    "learning_rate": Check(official_log.learning_rate),
}
"""Those of a Mainrun log."""
