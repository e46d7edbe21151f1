"""`shortrun show` and `shortrun compare`: run folders, looked at."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tyro
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from shortrun.cli.options import Compare, Show, utf8
from shortrun.cli.output import (
    duration,
    loss_rows,
    say,
    show,
    show_members,
    show_pairs,
    visible,
    visible_lines,
    width_of_output,
)
from shortrun.disk import require_writable
from shortrun.errors import UserError, counted
from shortrun.recipe_file import toml_value

if TYPE_CHECKING:  # these import torch
    from shortrun.view.compare import Comparison
    from shortrun.view.curves import Curves
    from shortrun.view.glance import Glance

PARTS = {"mlp": "MLP", "layer_scale": "LayerScale"}
"""What parts are called where that is not their key."""


def show_command(argv: list[str]) -> None:
    options = tyro.cli(Show, prog="shortrun show", args=argv)
    from shortrun.view.architecture_figure import architecture_svg
    from shortrun.view.charts import require_chart, save
    from shortrun.view.curve_charts import curves_chart
    from shortrun.view.glance import glance

    if options.svg and options.svg.suffix.lower() != ".svg":
        raise UserError(f"{options.svg}: the figure is drawn as .svg")
    require_writable(options.svg)
    require_chart(options.chart)
    found = glance(options.run)
    name = found.run.resolve().name
    if options.svg:
        try:
            options.svg.write_text(architecture_svg(found.recipe, found.model, name), encoding="utf-8")
        except OSError as error:
            raise UserError(f"{options.svg} can't be written: {error.strerror or error}") from None
    if options.chart:
        save(curves_chart({name: found.curves}, title=name), options.chart)
    for note in found.notes:
        say(note)
    if options.json:
        print(json.dumps(found.as_dict()))
        return
    _show_glance(found)


def compare_command(argv: list[str]) -> None:
    options = tyro.cli(Compare, prog="shortrun compare", args=argv)
    if options.show < 0:
        raise UserError(f"--show {options.show} must be at least 0")
    if options.json and options.markdown:
        raise UserError("--json and --markdown are two forms of one output: give one of them")
    on = None if options.on is None else utf8(options.on, "--on")
    from shortrun.view.charts import require_chart, save
    from shortrun.view.compare import compare_runs
    from shortrun.view.compare_text import chart_changes, markdown
    from shortrun.view.curve_charts import validation_chart

    require_chart(options.chart)
    found = compare_runs(options.runs, show=options.show, on=on)
    if options.chart:
        save(
            validation_chart({run.name: run.curves for run in found.runs}, changes=chart_changes(found)), options.chart
        )
    if options.json:
        print(json.dumps(found.as_dict()))
    elif options.markdown:
        print(visible_lines(markdown(found)), end="")
    else:
        _show_comparison(found)


def _show_glance(found: Glance) -> None:
    facts = {**_losses(found), **_budget(found), "parameters": _parameters(found), **_datastore(found)}
    show_pairs(f"{found.run}: {found.state}", facts)
    print()
    base = found.nearest if found.nearest == "the defaults" else f"the shipped recipe {found.nearest}"
    if found.differences:
        print(f"its recipe differs from {base}, the nearest one, in")
        table = Table(box=SIMPLE)
        for heading in ("field", "there", "here"):
            table.add_column(heading)
        for change in found.differences:
            table.add_row(*map(escape, (change.field, _value(change.old), _value(change.new))))
        show(table)
    else:
        print(f"its recipe is {base}, in all that decides a run")
    if found.from_data:
        left = ", ".join(f"{field} {_value(value)}" for field, value in found.from_data.items())
        print(f"{base} leaves to the data: {left}")
    print(f"from the defaults it differs in {counted(len(found.default_differences), 'field')} (--json lists them)")
    print()
    for each in found.checkpoints:
        state = "whole" if each.damage is None else f"damaged: {each.damage}"
        print(f"checkpoint of step {each.step:,}: {each.bytes / 1e6:,.1f} MB, {visible(state)}")
    if not found.checkpoints:
        print("no checkpoint")
    if found.members:
        show_members(found.members)
        return  # nothing was trained, so there is no curve
    _show_epochs(found.curves)
    lines = _curve(found.curves)
    print("\n".join(["", *lines]) if lines else "fewer than two evaluations in its log, so there is no curve")


def _show_epochs(curves: Curves) -> None:
    from shortrun.cli.columns import cut, table_of
    from shortrun.view.compare_text import Section
    from shortrun.view.epochs import epochs

    rows = epochs(curves)
    if not rows:
        return
    headings = (
        "epoch", "step", "training loss", "perplexity", "improvement", "per token", "perplexity", "per character", "improvement",
    )  # fmt: skip
    cells = [
        (
            str(row.epoch),
            f"{row.step:,}",
            f"{row.train_loss:.4f}",
            _told(row.train_perplexity, "{:,.1f}"),
            _told(row.train_improvement_percent, "{:+.2f} %"),
            _told(row.token_loss, "{:.4f}"),
            _told(row.perplexity, "{:,.1f}"),
            _told(row.loss, "{:.4f}"),
            _told(row.improvement_percent, "{:+.2f} %"),
        )
        for row in rows
    ]
    title = "by epoch: training in nats per token, then the validation documents"
    width = width_of_output()
    for part in cut(Section(title, headings, cells, text=0, first=2, groups=(3, 4)), width):
        show(table_of(part, width))


def _told(number: float | None, form: str) -> str:
    return "-" if number is None else form.format(number)


def _losses(found: Glance) -> dict[str, str]:
    scores, last = found.scores, found.curves.last
    if scores is None:
        told = "none yet" if last is None else f"{last.loss:.4f} at step {last.step:,}, the last that was evaluated"
        return {"loss (nats per character)": told}
    interval = f", 95 % interval {found.interval[0]:.4f} to {found.interval[1]:.4f}" if found.interval else ""
    rows = loss_rows(scores, f"{interval} over {counted(scores['documents'], 'document')}", _per_token(scores))
    if scores["tuning_loss"] is not None:
        rows["tuning loss"] = f"{scores['tuning_loss']:.4f}"
    if "floor" in scores:
        rows["floor of this corpus"] = f"{scores['floor']:.4f}; the loss is {scores['excess']:.4f} above it"
    return rows


def _per_token(scores: Mapping[str, Any]) -> str:
    return f", {math.log(scores['perplexity']):.4f} nats per token" if scores["perplexity"] else ""


def _budget(found: Glance) -> dict[str, str]:
    scores, machine = found.scores, found.manifest["machine"]
    where = f"{machine.get('device')}, {machine.get('precision')}, {counted(machine.get('threads') or 1, 'thread')}"
    if scores is None:
        seconds = found.curves.seconds_N
        return {"time": f"{duration(float(seconds[-1])) if len(seconds) else 'none'} so far, on {where}"}
    speed = scores["tokens_per_second"] or 0
    return {
        "budget": f"{counted(scores['steps'], 'step')}, {scores['epochs']:g} epochs, {scores['tokens']:,} tokens, "
        f"{scores['passes']:,} passes, {scores['flops']:.3g} FLOP",
        "time": f"{duration(scores['seconds'])}, {speed:,.0f} tokens/s in its steps, on {where}",
    }


def _parameters(found: Glance) -> str:
    counts = found.parameters
    total = counts.pop("total")
    parts = [f"{PARTS.get(part, part)} {count:,}" for part, count in counts.items()]
    if "head" not in counts and found.recipe.model.tied_head:
        parts.append("head tied to the embeddings")
    return f"{total:,}: " + ", ".join(parts)


def _datastore(found: Glance) -> dict[str, str]:
    config = found.recipe.datastore
    if not config.weight or found.members:
        return {}
    return {"datastore": f"{config.weight:g} of each prediction from the last step's evaluation on, and none before"}


def _curve(curves: Curves) -> list[str]:
    from shortrun.view.terminal_curve import terminal_curve

    try:
        "⣿│".encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        plain = True
    else:
        plain = False
    points = [(float(at.step), at.loss) for at in curves.evaluations]
    return terminal_curve(points, x="steps", y="validation loss (nats per character)", plain=plain)


def _show_comparison(found: Comparison) -> None:
    from shortrun.cli.columns import cut, fits, table_of
    from shortrun.view.compare_text import lettered, sections, sentences

    width = width_of_output()
    told = [section for section in sections(found) if section.rows]
    if not all(fits(section, width) for section in told):
        key, letters = lettered(found)
        told = [key, *(section for section in sections(found, letters) if section.rows)]
    for section in told:
        for part in cut(section, width):
            show(table_of(part, width))
    for sentence in sentences(found):
        print(visible_lines(sentence))


def _value(value: Any) -> str:
    return "none" if value is None else toml_value(value)
