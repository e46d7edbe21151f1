"""The model card: what the model is, how good it is, on what, how to load it, and where its limits are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shortrun.errors import UserError, counted
from shortrun.export.parity import DOCUMENTS
from shortrun.recipe import Recipe
from shortrun.recipe_file import differences
from shortrun.runs.folder import RunFolder
from shortrun.score.intervals import bootstrap_interval

LOADING = {
    "hf": """from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
written = model.generate(**tokenizer("{prefix}", return_tensors="pt"))
print(tokenizer.decode(written[0], skip_special_tokens=True){without_space})
""",
    "onnx": """import numpy, onnxruntime, tokenizers
tokenizer = tokenizers.Tokenizer.from_file("{name}/tokenizer.json")
tokenizer.encode_special_tokens = True  # "<eos>" in a text is text; the file does not hold this
ids = numpy.array([tokenizer.encode("{prefix}").ids])  # begins with {eos}, the end of the document before
(logits,) = onnxruntime.InferenceSession("{name}/model.onnx").run(["logits"], {{"ids": ids}})
""",
}
"""How to load it, by format."""


def card(folder: RunFolder, manifest: dict[str, Any], name: str) -> str:
    """README.md of an export, whose `manifest` is what export.json will hold; `name` is its folder's."""
    format, facts, recipe = manifest["format_name"], manifest["model"], folder.recipe()
    library = "transformers" if format == "hf" else "onnx"
    without_space = '.removeprefix(" ")' if manifest["tokenizer"]["space_before"] else ""
    loading = LOADING[format].format(name=name, prefix="Show HN:", eos=facts["eos_token"], without_space=without_space)
    kind = f"a {facts['name']}" if format == "hf" else f"an {facts['name']}"
    return f"""---
library_name: {library}
pipeline_tag: text-generation
tags: [shortrun]
---
# {name}

This is {kind} of {facts["parameters"]:,} parameters in float32, trained by shortrun {manifest["shortrun"]} and
exported at step {manifest["run"]["step"]:,}. Its recipe is `recipe.toml`; the fields in which it differs from the defaults:

```text
{_settings(recipe)}
```

## Losses

{_losses(folder)}

## Data

{_data(folder)}

## Use

```python
{loading.rstrip()}
```

`shortrun verify {name}` checks the files, and that this model gives what the trained one gave.

## Limits

{_limits(manifest)}
"""


def _settings(recipe: Recipe) -> str:
    lines = (line for line in differences(Recipe(), recipe) if not line.startswith(("data.path", "tokenizer.path")))
    return "\n".join(line.replace(" -> ", ", here ") for line in lines)


def _losses(folder: RunFolder) -> str:
    scores = folder.scores()
    if scores is None:
        return "The run has not ended, so it has no scores yet."
    try:
        nats = folder.nats()
        low, high = bootstrap_interval(nats.nats_D, nats.characters_D)
        interval = f", 95 % interval over documents {low:.4f} to {high:.4f}"
    except UserError:
        interval = ""
    official = f"{scores['official_loss']:.4f}, at a coverage of {scores['coverage']:.1%} of the targets"
    rows = {
        "loss, nats per character": f"{scores['loss']:.4f}{interval}",
        "official loss (Mainrun's)": official if scores["coverage"] else "none",
        "bits per byte": f"{scores['bits_per_byte']:.4f}",
        "perplexity, per token": "too large" if scores["perplexity"] is None else f"{scores['perplexity']:.2f}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    state = "" if scores["complete"] else " The run was stopped before its last step."
    return (
        f"| measure | of {counted(scores['documents'], 'validation document')} |\n|---|---|\n{table}\n\n"
        f"Each document is scored on its own, its end included, which counts as 5 characters.{state} `scores.json` has more."
    )


def _data(folder: RunFolder) -> str:
    data = folder.manifest()["data"]
    splits = ", ".join(f"{split['documents']:,} {name}" for name, split in data["splits"].items())
    where = {"file": "files of the trainer's own", "synthetic": "shortrun's built-in grammar of headlines"}
    source = where.get(data["source"], f"the hub's {data.get('dataset', data['source'])}")
    return (
        f"Documents from {source}: {splits}.\nsha256 of all selected documents, joined by newlines: `{data['sha256']}`."
    )


def _limits(manifest: dict[str, Any]) -> str:
    facts, tokenizer = manifest["model"], manifest["tokenizer"]
    eos, block = facts["eos_token"], facts["block_size"]
    lines = [
        f"The longest row is {block:,} tokens, {eos} included. {_beyond(facts)}",
        f"A document begins after one `{eos}` and ends in one. The tokenizer puts the first one there; "
        "`add_special_tokens=False` leaves it out. The model was scored on one document at a time.",
        f"The text `{eos}` inside a document is text and no end: `split_special_tokens` in tokenizer_config.json says so. "
        "A program that reads tokenizer.json alone has to set `encode_special_tokens` itself.",
        f"parity.json holds the first {DOCUMENTS} validation documents as they are. Mind their licence before you publish it.",
        *facts["notes"],
    ]
    if tokenizer["space_before"]:
        lines.append(
            "The tokenizer puts a space before each document, which is there when a whole document is decoded."
        )
    if tokenizer["kind"] in ("unigram", "character"):
        lines.append(
            "tokenizer.json is made of the sentencepiece model tokenizer.model. Where two ways to cut a text are equally "
            f"likely, the two may choose differently: in {tokenizer['differing']} of {tokenizer['checked']:,} documents looked "
            "at. The text is the same either way."
        )
    return "\n".join(f"- {line}" for line in lines)


def _beyond(facts: dict[str, Any]) -> str:
    if facts["name"] == "LlamaForCausalLM":
        return "The class takes longer ones, on which this model was never trained."
    return "There is no position for a longer one, which is refused."


def write_card(folder: RunFolder, manifest: dict[str, Any], name: str, out: Path) -> None:
    (out / "README.md").write_text(card(folder, manifest, name), encoding="utf-8")
