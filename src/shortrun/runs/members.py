"""The members of an ensemble that was combined of finished runs, as its manifest names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shortrun.errors import UserError
from shortrun.recipe import Recipe
from shortrun.recipe_file import parse_recipe


@dataclass(frozen=True)
class Member:
    """One of the runs."""

    run: str
    """Where it lay, as an absolute path."""
    fingerprint: str
    recipe: Recipe
    weight: float
    """Of its probabilities in the mean; all weights add up to 1."""
    weights_sha256: str
    """Of the model's weights, as `runs.checkpoints.weights_sha256` gives it."""
    loss: float
    """On the validation documents, by itself."""
    tuning_loss: float | None
    parameters: int
    steps: int
    epochs: float
    tokens: int
    passes: int
    flops: float
    seconds: float
    step_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """What manifest.json holds."""
        return {**asdict(self), "recipe": self.recipe.model_dump(mode="json")}

    def told(self) -> dict[str, Any]:
        """The same without what only machines read."""
        left_out = ("recipe", "weights_sha256")
        return {
            **{key: value for key, value in asdict(self).items() if key not in left_out},
            "seed": self.recipe.train.seed,
        }


def members_of(manifest: Mapping[str, Any]) -> tuple[Member, ...]:
    """The members that a manifest names; none, where the run was trained. Raises UserError where they can't be read."""
    try:
        return tuple(
            Member(**{**each, "recipe": parse_recipe(each["recipe"], "manifest.json, members")[0]})
            for each in manifest.get("members", [])
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"The manifest's members can't be read: {error}") from None
