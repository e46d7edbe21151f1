"""Checking an export through the libraries that others load it with: its files, ids, logits, losses and what it writes.

With the run that it came from, whose data can be read, also the ids and the loss of 1,000 validation documents.

Shapes: D documents, P places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortrun.disk import file_sha256, json_sha256, read_json
from shortrun.errors import UserError, counted, first_line
from shortrun.export.exported import Exported, read_exported
from shortrun.export.formats import FORMATS, SENTENCEPIECE, require_extra
from shortrun.export.parity import Parity, logits_at, loss_of
from shortrun.limits import Shape, is_plain_name, require_shape, shortened
from shortrun.model.language_model import LanguageModel
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import Trained, load_trained
from shortrun.score.evaluate import document_nats
from shortrun.text.corpus import load_corpus
from shortrun.text.documents import Documents
from shortrun.tokens.encoded import EncodedDocuments
from shortrun.tokens.pieces import Pieces

FORMAT = 1
"""Counted up when a reader of the old format could not read the new one."""
MANIFEST = "export.json"
SHAPE: Shape = {
    "format_name": str,
    "files": {"*": str},
    "run.fingerprint": str,
    "run.step": int,
    **dict.fromkeys(("model.block_size", "model.vocab_size", "model.eos"), int),
    "model.never_written": [int],
    "tokenizer.kind": str,
    "tokenizer.differing": int,
}
"""What export.json must hold."""
LOGITS_TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-5
"""The largest difference of a logit, and of a loss in nats per character."""
DOCUMENTS = 1000
"""How many of the run's validation documents are scored anew."""
LOGITS_AT_ONCE = 2**24
"""How many logits there may be at a time."""

Encode = Callable[[Sequence[str]], list[list[int]]]
"""Documents to their ids, without their ends."""


@dataclass(frozen=True)
class Check:
    """One thing that was compared."""

    name: str
    passed: bool
    found: str
    """What was found, as a sentence's predicate: "are all as they were written"."""


@dataclass(frozen=True)
class Verification:
    """What `shortrun verify` shows."""

    export: Path
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        checks = [asdict(check) for check in self.checks]
        return {"export": str(self.export), "passed": not self.failed, "checks": checks, "notes": list(self.notes)}


def verify(export: Path, run: Path | None = None, data_path: tuple[str, ...] = ()) -> Verification:
    """Compares an export with its parity files, and with its run if that is named.

    Raises UserError where `export` is none, or `run` is not the one it was made of.
    """
    manifest = read_manifest(export)
    require_extra(manifest["format_name"])
    files = _files(export, manifest)
    if not files.passed:  # the libraries may run into anything
        return Verification(export, (files,))
    parity = Parity.read(export)
    exported = read_exported(export, manifest["format_name"], manifest["model"])
    encode, notes = exported.encode, []
    if manifest["tokenizer"]["differing"]:
        encode = _sentencepiece(export / SENTENCEPIECE, manifest["tokenizer"]["kind"]).encode_many
        notes.append(f"tokenizer.json gives some documents other ids, as the card says; {SENTENCEPIECE} is compared")
    try:
        checks = [files, *_parity_checks(exported, encode, parity)]
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:  # of a model that is not what it says
        raise UserError(f"{export} can't be compared with its parity files: {first_line(error)}") from None
    if run:
        checks += _against(run, manifest, exported, encode, data_path)
    return Verification(export, tuple(checks), tuple(notes))


def _sentencepiece(path: Path, kind: str) -> Pieces:
    try:
        return Pieces.of_model(path.read_bytes(), kind)
    except Exception as error:  # sentencepiece raises plain exceptions for every kind of malformed file
        raise UserError(f"{path} is no model of sentencepiece: {first_line(error)}") from None


def read_manifest(export: Path) -> dict[str, Any]:
    """export.json, its seal checked; raises UserError where there is no such file or it is damaged."""
    if not (export / MANIFEST).is_file():
        what = f"it has no {MANIFEST}" if export.is_dir() else "there is no such folder"
        raise UserError(f"{export} is not an export: {what}")
    manifest = read_json(export / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{export} is an export of format {manifest.get('format')}; this shortrun reads format {FORMAT}"
        )
    seal = manifest.pop("seal", None)
    if seal != json_sha256(manifest):
        raise UserError(f"{export / MANIFEST} has changed since it was written")
    require_shape(manifest, SHAPE, export / MANIFEST)
    if manifest["format_name"] not in FORMATS:
        raise UserError(f"{export / MANIFEST} is damaged: format_name holds {shortened(manifest['format_name'])}")
    for name in manifest["files"]:
        if not is_plain_name(name):
            raise UserError(f"{export / MANIFEST} is damaged: {shortened(name)} is no file of this folder")
    return manifest


def _files(export: Path, manifest: dict[str, Any]) -> Check:
    wrong = []
    for name, sha256 in manifest["files"].items():
        if not (export / name).is_file():
            wrong.append(f"{name} is missing")
        elif file_sha256(export / name) != sha256:
            wrong.append(f"{name} has changed")
    return Check("files", not wrong, ", ".join(wrong) or f"{len(manifest['files'])} are as they were written")


def _parity_checks(exported: Exported, encode: Encode, parity: Parity) -> list[Check]:
    encoded = EncodedDocuments.of(parity.ids, exported.eos)
    largest = float(np.abs(logits_at(exported, encoded, parity.place_P) - parity.logits_PV).max())
    loss = loss_of(parity.texts, _nats(exported, encoded))
    return [
        _same_ids("ids", parity.texts, list(parity.ids), encode(parity.texts)),
        _within(
            "logits", largest, LOGITS_TOLERANCE, f"differ by at most {{}} at {counted(len(parity.place_P), 'place')}"
        ),
        _within("loss", abs(loss - parity.loss), LOSS_TOLERANCE, f"is {loss:.6f} for {parity.loss:.6f}, {{}} apart"),
        _generates(exported, encode, parity),
    ]


def _generates(exported: Exported, encode: Encode, parity: Parity) -> Check:
    for one in parity.continuations:
        (prefix,) = encode([one.prefix])
        found = exported.greedy(prefix, len(one.ids))
        if found != one.ids:
            return Check("generate", False, f"goes on from {one.prefix!r} by the ids {found} instead of {one.ids}")
    tokens = sum(len(one.ids) for one in parity.continuations)
    return Check("generate", True, f"writes the same {tokens} tokens after {len(parity.continuations)} prefixes")


def _against(
    run: Path, manifest: dict[str, Any], exported: Exported, encode: Encode, data_path: tuple[str, ...]
) -> list[Check]:
    """The run's validation documents through the exported model and through ours."""
    folder, trained = RunFolder.open(run), load_trained(run)
    if folder.fingerprint() != manifest["run"]["fingerprint"]:
        raise UserError(f"{run} is not the run that the export was made of: its fingerprint is another")
    if trained.step != manifest["run"]["step"]:
        raise UserError(
            f"The export is of step {manifest['run']['step']:,} and {run} is at step {trained.step:,} now: export it anew"
        )
    documents = validation_documents(folder, trained, data_path)[:DOCUMENTS]
    texts = tuple(documents)
    ours, theirs = trained.tokenizer.encode_many(texts), encode(texts)
    loss_ours, loss_theirs = (
        loss_of(texts, _nats(model, EncodedDocuments.of(ids, exported.eos)))
        for model, ids in ((trained.model, ours), (exported, theirs))
    )
    told = f"of {counted(len(texts), 'validation document')} is {loss_theirs:.6f} for {loss_ours:.6f}, {{}} apart"
    return [
        _same_ids("ids of the run's documents", texts, ours, theirs),
        _within("loss of the run's documents", abs(loss_theirs - loss_ours), LOSS_TOLERANCE, told),
    ]


def validation_documents(folder: RunFolder, trained: Trained, data_path: tuple[str, ...] = ()) -> Documents:
    """Those of a run; raises UserError where its data can't be read or is no longer the same."""
    recipe = trained.recipe.changed("data", path=data_path) if data_path else trained.recipe
    corpus = load_corpus(recipe.data)
    folder.require_same_data(corpus.manifest)
    return corpus.split("validation")


def _nats(model: LanguageModel, encoded: EncodedDocuments) -> NDArray[np.float64]:
    return document_nats(model, encoded, tokens_at_once=max(LOGITS_AT_ONCE // model.vocab_size, 1))


def _same_ids(name: str, texts: tuple[str, ...], ours: list[list[int]], theirs: list[list[int]]) -> Check:
    differ = [text for text, one, other in zip(texts, ours, theirs, strict=True) if one != other]
    if differ:
        return Check(name, False, f"are others for {len(differ)} of {len(texts)} documents, the first {differ[0]!r}")
    return Check(name, True, f"are the same for {counted(len(texts), 'document')}")


def _within(name: str, difference: float, tolerance: float, told: str) -> Check:
    passed = difference <= tolerance  # NaN is not
    return Check(
        name, passed, told.format(f"{difference:.2g}") + ("" if passed else f", where {tolerance:g} is allowed")
    )
