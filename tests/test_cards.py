"""Every switch has a card, every card a switch, and both are where they say."""

from __future__ import annotations

import re
import tomllib
from typing import Literal, get_args, get_origin

import pytest

from shortrun.cards import CARDS, Card, technique_cards
from shortrun.recipe import Recipe
from tests.conftest import ROOT

CARDS_BY_NAME = {card.name: card for card in technique_cards()}
# what is no technique but a size, a budget or a place
PLAIN = {
    "batches.block_size", "batches.batch_size", "model.n_layer", "model.n_head", "model.d_model", "optim.lr",
    "train.epochs", "train.seed", "train.evals_per_epoch", "train.checkpoint_every", "train.device", "train.threads",
    "train.log_every",
    "tokenizer.path",
}  # fmt: skip
OFF = {
    'train.compile = "off"',
    'schedule.weight_decay = "constant"',
    'optim.decay = "all"',
    'optim.sharpness = "none"',
    'train.precision = "float32"',
}


def switches_of_the_recipe() -> set[str]:
    """Every choice of every field that chooses, and every other field, but for those above and what data is read."""
    found = set()
    for section, fields in Recipe():
        for name, about in type(fields).model_fields.items():
            field = f"{section}.{name}"
            if (section == "data" and name != "normalise") or field in PLAIN:
                continue
            if get_origin(about.annotation) is Literal and field not in ("tokenizer.byte_alphabet", "tokenizer.fit_on"):
                found |= {f'{field} = "{choice}"' for choice in get_args(about.annotation)}
            else:
                found.add(field)
    return found - OFF


def test_cards_and_switches_are_the_same() -> None:
    carded = [switch for card in CARDS_BY_NAME.values() for switch in card.switches]
    assert len(carded) == len(set(carded)), "a switch has two cards"
    assert set(carded) == switches_of_the_recipe()


@pytest.mark.parametrize("card", CARDS_BY_NAME.values(), ids=CARDS_BY_NAME)
def test_a_card_says_everything_and_its_switch_works(card: Card) -> None:
    text = (CARDS / f"{card.name}.md").read_text(encoding="utf-8")
    for heading in ("What", "When", "Evidence", "Measured here"):
        assert re.search(rf"\*\*{heading}\.\*\* \S.{{8,}}", text), heading
    assert card.cost
    assert (CARDS.parent / card.code).is_file()
    assert (ROOT / "docs" / "techniques" / f"{card.name}.md").is_file(), "the documentation shows it"
    for switch in card.switches:
        field, _, value = switch.partition(" = ")
        section, name = field.split(".")
        assert name in type(getattr(Recipe(), section)).model_fields
        if value:
            parsed = tomllib.loads(f"value = {value}")["value"]
            Recipe.model_validate({section: {name: parsed}})
