"""The scale of a study: how much smaller its runs are than their recipes say, so that many of them are affordable.

It lies over every recipe of the study, so that a study file holds the settings of the full size, and other sizes are one flag
away: `shortrun study run NAME --scale.titles 1 --scale.width 1`.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from shortrun.errors import UserError
from shortrun.recipe import Recipe, Section

SIZES = {
    "width": ("model.n_head", "model.d_model"),
    "rows": ("batches.batch_size",),
    "vocabulary": ("tokenizer.vocab_size",),
}
"""The fields that a share multiplies."""


class Scale(Section):
    """How much smaller the runs of a study are than their recipes say."""

    titles: float = Field(1.0, gt=0, le=1)
    """Share of the documents."""
    width: float = Field(1.0, gt=0)
    """Share of d_model, to a multiple of 8; the heads keep about their width, so that there are fewer of them."""
    rows: float = Field(1.0, gt=0)
    """Share of a batch's rows: with as large a share as of the documents, a run keeps its number of steps."""
    vocabulary: float = Field(1.0, gt=0)
    """Share of the tokenizer's entries, because less text holds fewer that are worth one."""
    epochs: int | None = Field(None, gt=0)
    """Instead of the recipe's."""
    tuning: float = Field(0.1, gt=0, lt=1)
    """Share of the documents that is cut from the training documents to compare on, where the recipe cuts none."""

    def over(self, recipe: Recipe) -> dict[str, dict[str, Any]]:
        """The values that it lays over a recipe; raises UserError where the recipe can't be scaled."""
        self._require_sizes(recipe)
        data, model = recipe.data, recipe.model
        values: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "tokenizer": {}, "batches": {}, "train": {}}
        if isinstance(data.num_titles, int):
            titles = round(data.num_titles * self.titles)
            tuning = round(data.tuning_titles * self.titles) or round(titles * self.tuning)
            values["data"] = {"num_titles": titles, "tuning_titles": tuning}
        elif self.titles != 1 or not data.tuning_titles:
            raise UserError('a study needs a number in data.num_titles, not "all"')
        if self.width != 1:
            # from d_model alone, so that rows that differ in their heads keep one width
            d_model = 8 * _whole(model.d_model * self.width / 8)
            values["model"] = {"n_head": _heads(d_model, model.n_head * self.width), "d_model": d_model}
        if self.rows != 1:
            values["batches"] = {"batch_size": _whole(recipe.batches.batch_size * self.rows)}
        if self.vocabulary != 1 and recipe.tokenizer.kind != "gpt2":  # which has its own
            values["tokenizer"] = {"vocab_size": _whole(recipe.tokenizer.vocab_size * self.vocabulary)}
        if self.epochs:
            values["train"] = {"epochs": self.epochs}
        return {section: fields for section, fields in values.items() if fields}

    def _require_sizes(self, recipe: Recipe) -> None:
        """Raises UserError where it would multiply sizes that only follow from the data, such as those of the recipe `own`."""
        for share, fields in SIZES.items():
            left = [field for field in fields if field in recipe.train.from_data]
            if left and getattr(self, share) != 1:
                raise UserError(
                    f"scale.{share} is a share of {' and '.join(left)}, which train.from_data leaves to the data: set "
                    f"{'them' if len(left) > 1 else 'it'} in [every] or by a flag, or leave scale.{share} at 1"
                )

    def __str__(self) -> str:
        shares = {
            "documents": self.titles, "width": self.width, "rows in a batch": self.rows, "vocabulary": self.vocabulary,
        }  # fmt: skip
        told = [f"{share:.3g} of the {what}" for what, share in shares.items() if share != 1]
        told += [f"{self.epochs} epochs"] * (self.epochs is not None)
        return ", ".join(told) or "full scale"


def _heads(d_model: int, wanted: float) -> int:
    """The number of heads nearest to a wished one, more where two are as near, whose width is whole and even."""
    fits = [heads for heads in range(1, d_model // 2 + 1) if d_model % (2 * heads) == 0]
    return min(fits, key=lambda heads: (abs(heads - wanted), -heads))


def _whole(number: float) -> int:
    """The nearest whole number, halves up, and at least 1."""
    return max(1, int(number + 0.5))
