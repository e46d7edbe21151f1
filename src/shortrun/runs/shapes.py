"""What manifest.json, scores.json and the progress of a checkpoint must hold, so that whoever reads them can rely on it.

Types only: whether the numbers are true is for `shortrun check` to say. docs/run-folder.md has what they mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shortrun.errors import UserError
from shortrun.limits import Shape, require_shape

SPLIT: Shape = {"documents": int, "characters": int, "bytes": int, "sha256": str, "duplicates_inside": int}
MANIFEST: Shape = {
    "recipe": dict,
    "data.source": str,
    "data.sha256": str,
    "data.splits.train": dict,
    "data.splits.validation": dict,
    "data.splits": {"*": SPLIT},
    "tokenizer.sha256": str,
    "tokenizer.vocab_size": int,
    "tokenizer.train_tokens": int,
    "tokenizer.validation_tokens": int,
    "denominators.characters": int,
    "denominators.bytes": int,
    "fingerprint": str,
    "machine.device": str,
    "machine.threads": int,
    "machine.precision": str,
}
SCORES: Shape = {
    "fingerprint": str,
    "complete": bool,
    **dict.fromkeys(("parameters", "steps", "tokens", "passes", "seed", "characters", "bytes", "targets", "documents"), int),
    **dict.fromkeys(("epochs", "flops", "seconds", "step_seconds", "loss", "nats", "bits_per_byte", "official_loss"), float),
    **dict.fromkeys(("perplexity", "tokens_per_second", "tuning_loss"), (float, None)),
    "coverage": float,
    "data.sha256": str,
}  # fmt: skip
PRECISIONS = ("float32", "bfloat16")
FLOOR: Shape = {"floor": float, "excess": float}
MEMBER: Shape = {
    **dict.fromkeys(("run", "fingerprint", "weights_sha256"), str),
    "recipe": dict,
    **dict.fromkeys(("parameters", "steps", "tokens", "passes"), int),
    **dict.fromkeys(("weight", "loss", "epochs", "flops", "seconds", "step_seconds"), float),
    "tuning_loss": (float, None),
}
"""Of an ensemble of finished runs."""
PROGRESS: Shape = {
    "step": int,
    "tokens": int,
    "seconds": float,
    "step_seconds": float,
    "metrics_bytes": int,
    "selection_loss": (float, None),
}


def require_manifest(manifest: dict[str, Any], path: Path) -> None:
    """Raises UserError where it is no manifest of a run."""
    require_shape(manifest, MANIFEST, path)
    if "members" in manifest:
        require_shape(manifest, {"members": [MEMBER]}, path)
    if manifest["machine"]["precision"] not in PRECISIONS:
        raise UserError(f"{path} is damaged: machine.precision is none of {', '.join(PRECISIONS)}")


def require_scores(scores: dict[str, Any], path: Path) -> None:
    """Raises UserError where these are no scores of a run."""
    require_shape(scores, SCORES, path)
    if "floor" in scores or "excess" in scores:
        require_shape(scores, FLOOR, path)
