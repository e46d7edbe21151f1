"""Every switch has a card or a row, cards have evidence, and both are where they say."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from shortrun.cards import BEGIN, CARDS, END, Technique, sections, techniques, write_rows
from shortrun.recipe import Recipe
from tests.conftest import ROOT

TECHNIQUES = {one.name: one for one in techniques()}
WITH_CARD = {name: one.path for name, one in TECHNIQUES.items() if one.path}
# what is no technique but a size, a budget or a place
PLAIN = {
    "batches.block_size", "batches.batch_size", "model.n_layer", "model.n_head", "model.d_model", "optim.lr",
    "train.epochs", "train.seed", "train.evals_per_epoch", "train.checkpoint_every", "train.device", "train.threads",
    "train.log_every",
    "train.from_data", "tokenizer.path",
}  # fmt: skip
OFF = {
    'train.compile = "off"',
    'tokenizer.case = "kept"',
    'schedule.weight_decay = "constant"',
    'optim.decay = "all"',
    'optim.sharpness = "none"',
    'train.precision = "float32"',
}
NO_SWITCH = {"torchrun"}  # starts the command, so no recipe holds it
FIGURE = re.compile(r"\d\.\d")


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


def test_the_switches_of_cards_and_rows_are_those_of_the_recipe() -> None:
    switches = [switch for one in TECHNIQUES.values() for switch in one.switches]
    assert len(switches) == len(set(switches)), "a switch is in two cards or rows"
    assert set(switches) - NO_SWITCH == switches_of_the_recipe()


def test_cards_come_first_and_no_name_is_taken_twice() -> None:
    found = techniques()
    assert len(found) == len(TECHNIQUES)
    assert [one.name for one in found[: len(WITH_CARD)]] == sorted(WITH_CARD)


@pytest.mark.parametrize("one", TECHNIQUES.values(), ids=TECHNIQUES)
def test_a_technique_is_where_it_says_and_its_switch_works(one: Technique) -> None:
    assert one.title
    assert one.what
    assert one.cost
    assert (CARDS.parent / one.code).is_file()
    assert one.switches
    for switch in set(one.switches) - NO_SWITCH:
        field, _, value = switch.partition(" = ")
        section, name = field.split(".")
        assert name in type(getattr(Recipe(), section)).model_fields
        if value:
            parsed = tomllib.loads(f"value = {value}")["value"]
            Recipe.model_validate({section: {name: parsed}})


@pytest.mark.parametrize(("name", "path"), WITH_CARD.items(), ids=WITH_CARD)
def test_a_card_has_evidence(name: str, path: str) -> None:
    """A figure, of others or of ours; a heading for ours stands only over one."""
    parts = sections(Path(path))
    assert list(parts) in (["What", "When", "Evidence"], ["What", "When", "Evidence", "Measured here"])
    assert all(len(text) > 8 for text in parts.values())
    assert FIGURE.search(parts.get("Measured here", parts["Evidence"]))
    assert (ROOT / "docs" / "techniques" / f"{name}.md").samefile(path), "the documentation shows it"


def test_the_documentation_shows_the_rows(tmp_path: Path) -> None:
    page = tmp_path / "techniques.md"
    shutil.copy(ROOT / "docs" / "techniques.md", page)
    shown = page.read_text(encoding="utf-8")
    table = shown.partition(BEGIN)[2].partition(END)[0].splitlines()
    assert len(table) == 2 + len(TECHNIQUES) - len(WITH_CARD)
    assert {line.count("|") for line in table} == {6}
    write_rows(page)
    assert page.read_text(encoding="utf-8") == shown, "write it: python -m shortrun.cards docs/techniques.md"
