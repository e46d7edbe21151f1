"""A run's model as a figure.

It is read from the top: token ids, embedding, blocks, norm, head, loss. What a recipe has switched on beyond Mainrun's
baseline is in colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from shortrun.errors import UserError
from shortrun.model.ensemble import Ensemble
from shortrun.model.gpt import GPT, Block
from shortrun.model.language_model import LanguageModel
from shortrun.model.mlp import SwiGLU
from shortrun.recipe import Recipe
from shortrun.view.drawing import CHIP, MIDDLE, PART, Chip, Drawing
from shortrun.view.parts import parameters_by_part

BLOCK_LEFT, BLOCK_RIGHT, SKIP, TIE = 30, 560, 62, 572
"""Where a block begins and ends, where what goes around its parts runs, and the line from the embedding to the head."""
SIDE, BESIDE = 225, 450
"""How wide a part is that stands beside another, and a sentence below them all."""
LONGEST = 80
"""Letters of a title that the figure has room for."""


def architecture_svg(recipe: Recipe, model: LanguageModel, title: str) -> str:
    """The figure of a recipe's model, as SVG text.

    model: of this recipe, on any device, also without weights; of an ensemble the first member is drawn. Raises UserError for
    a model that is no GPT.
    """
    whole = model
    if isinstance(model, Ensemble):
        model = model.each[0]
    if not isinstance(model, GPT):
        raise UserError(f"There is a figure of GPTs alone, and this model is a {type(model).__name__}")
    counts = {part: f"{count:,} parameters" for part, count in parameters_by_part(model).items()}
    it, drawing = recipe.model, Drawing()
    drawing.text(24, 30, title if len(title) <= LONGEST else f"{title[:LONGEST]}…", "title")
    drawing.text(
        24, 50, f"{whole.count_parameters():,} parameters; in colour, what Mainrun's baseline has not", "quiet"
    )
    drawing.y = 68
    embedding_y = _entry(drawing, recipe, model, counts)
    drawing.down(14)
    _blocks(drawing, recipe, model)
    drawing.down()
    drawing.y = drawing.part(_norm(recipe), on=it.norm == "rmsnorm")
    drawing.down()
    head_y = drawing.y
    linear = [Chip(f"{it.d_model:,} → {model.vocab_size:,} logits", on=not it.tied_head)]
    if it.tied_head and it.embedding_width:
        linear = [
            Chip(f"{it.d_model:,} → {it.embedding_width:,}", on=True),
            Chip(f"{it.embedding_width:,} → {model.vocab_size:,} logits"),
        ]
    drawing.y = drawing.part("head" + ("" if it.tied_head else ", weights of its own"), linear)
    if it.tied_head:
        drawing.path(
            f"M {MIDDLE + PART / 2} {embedding_y:g} H {TIE} V {head_y + 30:g} H {MIDDLE + PART / 2 + 2}",
            "line tie",
        )
        drawing.note(head_y + 26, "tied: the token embeddings", "are the head's weights")
    else:
        drawing.note(head_y + 26, counts["head"])
    drawing.down()
    loss = [Chip("-log p of each next token")]
    if recipe.train.label_smoothing:
        loss.append(Chip(f"label smoothing {recipe.train.label_smoothing:g}", on=True))
    if recipe.train.rdrop:
        begins = f", after {recipe.train.rdrop_from:.0%} of the steps" if recipe.train.rdrop_from else ""
        loss.append(Chip(f"+ {recipe.train.rdrop:g} × R-Drop between two passes{begins}", on=True))
    drawing.y = drawing.part("loss", loss)
    for sentence in _besides(recipe, whole):
        drawing.y += 8
        drawing.rect(MIDDLE - BESIDE / 2, drawing.y, BESIDE, CHIP, "chip on", 4)
        drawing.text(MIDDLE, drawing.y + 15.5, sentence, "", "middle")
        drawing.y += CHIP
    about = (
        f"{it.n_layer} blocks of width {it.d_model}, read from the top: token ids, embedding, blocks, norm, head, loss."
    )
    return drawing.svg(title, about)


def _entry(drawing: Drawing, recipe: Recipe, model: GPT, counts: dict[str, str]) -> float:
    """Token ids to the stream; returns where the embedding is."""
    it, block_size = recipe.model, model.block_size
    drawing.rect(MIDDLE - 110, drawing.y, 220, 26, "part", 13)
    drawing.text(MIDDLE, drawing.y + 17.5, f"token ids, up to {block_size:,} in a row", "", "middle")
    drawing.y += 26
    drawing.down()
    middle = drawing.y + 30
    chips = [Chip(f"V × d = {model.vocab_size:,} × {it.embedding_width or it.d_model:,}")]
    if it.embedding_width:
        chips.append(Chip(f"{it.embedding_width:,} → {it.d_model:,}", on=True))
    if it.scale_embeddings:
        chips.append(Chip(f"divided by √{it.d_model}", on=True))
    if it.word_dropout:
        chips.append(Chip(f"word dropout {it.word_dropout:g}: whole tokens zeroed", on=True))
    if it.word_replacement:
        chips.append(Chip(f"{it.word_replacement:g} of the tokens replaced by random ones", on=True))
    drawing.note(middle + 4, counts["embeddings"], *(["positions included"] if it.positions == "learned" else []))
    drawing.y = drawing.part("token embedding", chips)
    if it.positions == "learned":
        drawing.down()
        y = drawing.y + 11
        drawing.plus()
        drawing.rect(46, y - 14, 176, 28, "part")
        drawing.text(134, y + 4.5, f"positions: {block_size:,} × {it.d_model:,}", "", "middle")
        drawing.path(f"M 222 {y:g} H {MIDDLE - 12}")
    drawing.after(_dropout(recipe))
    return middle


def _blocks(drawing: Drawing, recipe: Recipe, model: GPT) -> None:
    """The container of a block, and what is in it."""
    it, top = recipe.model, drawing.y
    block = cast("Block", model.blocks[0])
    attention, mlp = (sum(p.numel() for p in part.parameters()) for part in (block.attn, block.mlp))
    place = len(drawing.shapes)
    drawing.text(BLOCK_RIGHT - 14, top + 27, f"{it.n_layer} ×", "times", "end")
    drawing.text(BLOCK_RIGHT - 14, top + 44, "block", "quiet", "end")
    scaled = [] if it.layer_scale is None else [Chip(f"× LayerScale, from {it.layer_scale:g}", on=True)]
    after = [*scaled, *_dropout(recipe)]
    parts = [
        ("causal self-attention", _attention_chips(recipe), attention),
        ("MLP", _mlp_chips(recipe, block), mlp),
    ]
    drawing.down(14, arrow=False)
    if it.block == "parallel":
        _parallel(drawing, recipe, parts, after)
    else:
        for number, (name, chips, count) in enumerate(parts):
            if number:
                drawing.down(10, arrow=False)
            begins = drawing.y
            drawing.down(20)
            drawing.y = drawing.part(_norm(recipe), on=it.norm == "rmsnorm")
            drawing.down()
            drawing.note(drawing.y + 20, f"{count:,} parameters", "in each block")
            drawing.y = drawing.part(name, chips)
            drawing.after(after)
            drawing.down()
            ends = drawing.y + 11
            drawing.path(f"M {MIDDLE} {begins:g} H {SKIP} V {ends:g} H {MIDDLE - 12}")
            drawing.plus()
    drawing.down(14, arrow=False)
    width = BLOCK_RIGHT - BLOCK_LEFT
    drawing.shapes.insert(
        place,
        f'<rect x="{BLOCK_LEFT}" y="{top:g}" width="{width}" height="{drawing.y - top:g}" rx="10" class="block"/>',
    )


def _parallel(
    drawing: Drawing, recipe: Recipe, parts: Sequence[tuple[str, list[Chip], int]], after: Sequence[Chip]
) -> None:
    """Both parts on one norm, side by side, and added together."""
    begins = drawing.y
    drawing.down(26)
    drawing.y = drawing.part(_norm(recipe) + ", one for both", on=True)
    fork = drawing.y
    places = (MIDDLE - SIDE / 2 - 6, MIDDLE + SIDE / 2 + 6)
    ends = []
    for x, (name, chips, _) in zip(places, parts, strict=True):
        drawing.path(f"M {x:g} {fork:g} v 21")
        drawing.y = fork + 22
        drawing.y = drawing.part(name, chips, x=x, width=SIDE)
        drawing.after(after, x)
        ends.append(drawing.y)
    drawing.note(fork + 42, *(f"{name}: {count:,}" for name, _, count in parts), "parameters in each block")
    plus = max(ends) + 28
    drawing.path(f"M {places[0]:g} {ends[0]:g} V {plus - 16:g} H {MIDDLE} V {plus - 1:g}")
    drawing.path(f"M {places[1]:g} {ends[1]:g} V {plus + 11:g} H {MIDDLE + 12}")
    drawing.path(f"M {MIDDLE} {begins:g} H {SKIP - 18} V {plus + 11:g} H {MIDDLE - 12}")
    drawing.y = plus
    drawing.plus()


def _attention_chips(recipe: Recipe) -> list[Chip]:
    it = recipe.model
    K = it.d_model // it.n_head
    return [
        Chip(f"Q, K, V: {it.d_model:,} → 3 × {it.d_model:,}"),
        *([Chip("RMSNorm of each Q and K", on=True)] if it.qk_norm else []),
        *([Chip(f"rotate Q and K, base {it.rope_base:,.0f}", on=True)] if it.positions == "rotary" else []),
        Chip(f"{it.n_head} heads of {K}, causal"),
        Chip(f"softmax(QKᵀ / √{K}) V"),
        *([Chip(f"dropout {it.dropout:g} of the weights")] if it.dropout else []),
        *([Chip("× sigmoid gate of each head", on=True)] if it.output_gate else []),
        Chip(f"projection: {it.d_model:,} → {it.d_model:,}"),
    ]


def _mlp_chips(recipe: Recipe, block: Block) -> list[Chip]:
    it, inner = recipe.model, block.mlp.to_stream.in_features
    if isinstance(block.mlp, SwiGLU):
        into, activation = (
            Chip(f"gate, value: {it.d_model:,} → 2 × {inner:,}", on=True),
            Chip("SiLU(gate) × value", on=True),
        )
    else:
        squared = it.mlp == "relu2"
        into, activation = Chip(f"{it.d_model:,} → {inner:,}"), Chip("ReLU²" if squared else "GELU", on=squared)
    return [into, activation, Chip(f"{inner:,} → {it.d_model:,}")]


def _dropout(recipe: Recipe) -> list[Chip]:
    return [Chip(f"dropout {recipe.model.dropout:g}")] if recipe.model.dropout else []


def _norm(recipe: Recipe) -> str:
    return {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}[recipe.model.norm]


def _besides(recipe: Recipe, model: LanguageModel) -> list[str]:
    """Switches that have no place in the figure."""
    it = recipe.model
    found = []
    if isinstance(model, Ensemble):
        found.append(f"The first of {len(model.each)} members; their probabilities are averaged.")
    if not it.bias:
        found.append("Linear maps and norms have no bias.")
    if it.init == "residual":
        found.append(f"Weights that write to the stream begin divided by √(2 × {it.n_layer}).")
    if recipe.train.ema:
        found.append(f"A moving average of the weights (decay {recipe.train.ema:g}) is what is scored.")
    return found
