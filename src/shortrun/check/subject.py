"""A run under check: what its folder says, and, only when a check asks for them, its data and its model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer as HFTokenizer

from shortrun.check.plain import DocumentLosses, StreamLoss, document_losses, stream_loss
from shortrun.errors import ShortrunError, UserError
from shortrun.limits import TOML_BYTES, read_bounded
from shortrun.model.language_model import LanguageModel
from shortrun.recipe import Recipe
from shortrun.recipe_file import parse_recipe
from shortrun.runs.checkpoints import Checkpoint, load_state, newest_checkpoint, weights_sha256
from shortrun.runs.events import EventLog, read_events
from shortrun.runs.folder import RunFolder
from shortrun.runs.members import members_of
from shortrun.runs.trained import Trained, load_trained
from shortrun.text.corpus import Corpus, load_corpus
from shortrun.text.documents import Documents
from shortrun.tokens.bpe import BPE
from shortrun.tokens.encoded import EncodedDocuments, encoded_split


class Subject:
    """What checks ask of a run. Every property raises UserError, with a sentence, where it can't be known."""

    def __init__(self, path: Path, data_path: Sequence[str] = ()) -> None:
        self.folder = RunFolder.open(path)
        self.manifest = self.folder.manifest()
        self._data_path = tuple(data_path)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that the run began with."""
        return parse_recipe(self.manifest["recipe"], str(self.folder.manifest_file))[0]

    @property
    def threads(self) -> int | None:
        """Of torch, while the model is looked at; None where the record does not say."""
        try:
            return self.recipe.train.threads
        except ShortrunError:
            return None

    @cached_property
    def recipe_now(self) -> Recipe:
        """What recipe.toml says today."""
        try:
            text = read_bounded(self.folder.recipe_file, TOML_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"recipe.toml can't be read: {error}") from None
        return parse_recipe(text, str(self.folder.recipe_file))[0]

    @cached_property
    def members(self) -> list[Subject]:
        """The runs that an ensemble was combined of, each under check itself; none of a run that was trained."""
        found = []
        for member in members_of(self.manifest):
            try:
                run = Subject(Path(member.run), self._data_path)
            except UserError as error:
                raise UserError(f"a member's run is not where it was: {error}") from None
            if run.folder.fingerprint() != member.fingerprint:
                raise UserError(f"{member.run} is no longer the run that was combined: its fingerprint is another")
            found.append(run)
        return found

    @cached_property
    def scores(self) -> dict[str, Any]:
        scores = self.folder.scores()
        if scores is None:
            raise UserError("the run has not ended: there is no scores.json")
        return scores

    @cached_property
    def log(self) -> EventLog:
        return read_events(self.folder.metrics_file)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The newest one, if it is whole: an older one would not be what the scores are about."""
        checkpoint, damaged = newest_checkpoint(self.folder)
        if damaged or checkpoint is None:
            raise UserError(damaged[0] if damaged else "the run has no checkpoint")
        return checkpoint

    @cached_property
    def seen_D(self) -> NDArray[np.int64]:
        """How often each training document was seen, by the newest checkpoint."""
        seen_D: torch.Tensor = load_state(self.checkpoint)["documents_seen"]
        return seen_D.numpy().astype(np.int64)

    @cached_property
    def corpus(self) -> Corpus:
        """The run's documents, read again from their source and held to be the same."""
        data = self.recipe.data
        if self._data_path:
            data = data.model_copy(update={"path": self._data_path})
        corpus = load_corpus(data)
        self.folder.require_same_data(corpus.manifest)
        return corpus

    @cached_property
    def validation(self) -> Documents:
        return self.corpus.split("validation")

    @cached_property
    def train_ids(self) -> EncodedDocuments:
        """The ids of the training documents."""
        return encoded_split(self.corpus, "train", self.trained.tokenizer)

    @cached_property
    def trained(self) -> Trained:
        """The model of the newest checkpoint, which must be whole."""
        _ = self.checkpoint
        return load_trained(self.folder.path)

    @cached_property
    def model(self) -> LanguageModel:
        _ = self.weights_as_read  # before anything is scored
        return self.trained.model

    @cached_property
    def weights_as_read(self) -> str:
        """Fingerprint of the weights before anything was scored."""
        return weights_sha256(self.trained.model)

    @cached_property
    def validation_ids(self) -> list[list[int]]:
        """Ids of each validation document, without its end."""
        return list(self.trained.tokenizer.encode_each(self.validation))

    @property
    def text(self) -> str:
        """What Mainrun encodes: the validation documents joined by "<eos>" and ending in one."""
        return "<eos>".join([*self.validation, ""])

    @cached_property
    def stream_N(self) -> NDArray[np.int64]:
        """The ids of that text, by the `tokenizers` library alone where the tokenizer is one of its with an <eos>."""
        if isinstance(self.trained.tokenizer, BPE):
            library = HFTokenizer.from_file(str(self.folder.tokenizer_file))
            if library.token_to_id("<eos>") is not None:
                return np.array(library.encode(self.text).ids, dtype=np.int64)
        pieces = self.trained.tokenizer.encode_joined(self.validation)
        return np.concatenate([np.array(ids, dtype=np.int64) for ids in pieces])

    @cached_property
    def official(self) -> StreamLoss:
        """The official loss, recomputed."""
        recipe, tokenizer = self.recipe, self.trained.tokenizer
        return stream_loss(
            self.model,
            self.stream_N,
            self.text,
            block_size=recipe.batches.block_size,
            batch_size=recipe.batches.batch_size,
            begins_anew_after=tokenizer.eos if recipe.batches.mode == "documents" else None,
        )

    @cached_property
    def own(self) -> DocumentLosses:
        """The project's own loss, recomputed."""
        return document_losses(self.model, self.validation_ids, list(self.validation), self.trained.tokenizer.eos)
