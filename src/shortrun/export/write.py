"""Exporting a run: a folder that holds its model for others, whole and checked, or nothing at all.

model.safetensors, config.json, generation_config.json   format hf
model.onnx                                               format onnx
tokenizer.json, tokenizer_config.json                    a fast tokenizer; tokenizer.model beside it where it is sentencepiece's
recipe.toml, scores.json                                 the run's own
parity.json, parity.npz, README.md, export.json          what it must give again, the card, the sha256 of all files
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortrun import __version__
from shortrun.disk import file_sha256, json_sha256, sync, write_json
from shortrun.errors import ShortrunError, UserError, did_you_mean
from shortrun.export.card import write_card
from shortrun.export.fast_tokenizer import begins_with_a_space, differing, fast_tokenizer, require_fast
from shortrun.export.formats import FORMATS, SENTENCEPIECE, never_written, require_extra
from shortrun.export.parity import parity_of
from shortrun.export.verify import FORMAT, MANIFEST, Verification, validation_documents, verify
from shortrun.model.ensemble import Ensemble
from shortrun.model.gpt import GPT
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import Trained, load_trained
from shortrun.text.documents import Documents
from shortrun.tokens.pieces import Pieces

TOKENIZED = 20_000
"""Validation documents whose ids the fast tokenizer is held to."""


@dataclass(frozen=True)
class Export:
    """What `shortrun export` shows."""

    path: Path
    manifest: dict[str, Any]
    verification: Verification
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {**self.verification.as_dict(), "export": str(self.path), **self.manifest, "notes": list(self.notes)}


def export(run: Path, out: Path, format: str = "hf", data_path: tuple[str, ...] = ()) -> Export:
    """Writes the model of a run's newest checkpoint into the folder `out`, checks it, and only then lets it appear.

    data_path: where the run's files lie now, if they have moved. Raises UserError, before anything is written, for a recipe
    that the format can't hold, a folder that is not empty, or data that can't be read.
    """
    if format not in FORMATS:
        raise UserError(f"There is no format '{format}': {did_you_mean(format, FORMATS)}")
    folder, trained = RunFolder.open(run), load_trained(run)
    if any(learner.datastore is not None for learner in trained.model.learners()):
        raise UserError(
            "An export can't hold a datastore, and without it this would be another model: train the recipe with "
            "datastore.weight = 0 to hand that on"
        )
    name = FORMATS[format].name_for(trained)
    require_fast(trained.tokenizer)
    require_extra(format)
    _require_free(out, run)
    documents = validation_documents(folder, trained, data_path)
    with _appearing(out) as made:
        manifest = _write(folder, trained, documents, format, name, made, out.name)
        verification = verify(made)
        if verification.failed:
            told = "; ".join(f"{check.name} {check.found}" for check in verification.failed)
            hint = "" if format == "onnx" else ". --format onnx computes as the run's own model does"
            raise ShortrunError(f"The exported model is not the run's, so none was written: {told}{hint}")
    return Export(out, manifest, verification, (*trained.notes, *verification.notes))


def _write(
    folder: RunFolder, trained: Trained, documents: Documents, format: str, name: str, made: Path, title: str
) -> dict[str, Any]:
    """Everything but the last check; returns what export.json holds."""
    parity_of(trained, documents).save(made)
    FORMATS[format].write(trained, name, made)
    shutil.copy(folder.recipe_file, made)
    if folder.scores_file.exists():
        shutil.copy(folder.scores_file, made)
    if isinstance(trained.tokenizer, Pieces):
        (made / SENTENCEPIECE).write_bytes(trained.tokenizer.model)
    manifest = {
        "format": FORMAT,
        "format_name": format,
        "shortrun": __version__,
        "run": {"fingerprint": folder.fingerprint(), "step": trained.step},
        "model": _facts(trained, name),
        "tokenizer": _tokenizer_facts(trained, documents[:TOKENIZED]),
    }
    write_card(folder, manifest, title, made)
    manifest["files"] = {path.name: file_sha256(path) for path in sorted(made.iterdir())}
    write_json(made / MANIFEST, {**manifest, "seal": json_sha256(manifest)})
    return manifest


def _facts(trained: Trained, name: str) -> dict[str, Any]:
    model, tokenizer, notes = trained.model, trained.tokenizer, []
    if isinstance(model, GPT) and name in ("GPT2LMHeadModel", "LlamaForCausalLM"):
        if trained.recipe.model.layer_scale is not None:
            notes.append("LayerScale is folded into the maps before it: whoever trains on trains without it.")
        if model.emb_up is not None:
            notes.append(
                "The embeddings were two factors: here they are one matrix, which further training won't keep a product."
            )
        if model.embedding_scale != 1.0 and model.head is None:
            notes.append("Embeddings and head were one matrix, scaled on the way in: here they are two.")
    if isinstance(model, Ensemble):
        notes.append(
            f"It is an ensemble of {len(model.each)} models: its logits are the logarithms of the mean of their probabilities."
        )
    return {
        "name": name,
        "parameters": model.count_parameters(),
        "block_size": model.block_size,
        "vocab_size": model.vocab_size,
        "eos": tokenizer.eos,
        "eos_token": fast_tokenizer(tokenizer).id_to_token(tokenizer.eos),
        "never_written": never_written(trained),
        "notes": notes,
    }


def _tokenizer_facts(trained: Trained, documents: Documents) -> dict[str, Any]:
    """Raises ShortrunError for a byte-level BPE that gives other ids, because nothing else could be handed on for it."""
    found = differing(trained.tokenizer, documents)
    if found and not isinstance(trained.tokenizer, Pieces):
        raise ShortrunError(f"The fast tokenizer gives other ids for {len(found)} documents, the first {found[0]!r}")
    return {
        "kind": trained.recipe.tokenizer.kind,
        "space_before": begins_with_a_space(fast_tokenizer(trained.tokenizer)),
        "checked": len(documents),
        "differing": len(found),
    }


def _require_free(out: Path, run: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists and is not empty: choose another folder")
    if run.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"{out} is inside the run, which only training writes: choose another folder")


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes `out` at the end, or goes."""
    made = out.with_name(f"{out.name}.tmp")
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        yield made
        sync(made)
        if out.is_dir():
            out.rmdir()
        made.rename(out)
    except OSError as error:
        raise UserError(f"The export {out} can't be made: {error.strerror or error}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
