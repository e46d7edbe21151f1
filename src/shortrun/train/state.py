"""What a run has learned, into a checkpoint's files and back: weights, optimizer state, how often each document was seen.

All processes hold the same, so the first one writes it and any number of them go on from it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from shortrun.disk import shared_permissions
from shortrun.errors import UserError, first_line
from shortrun.model.language_model import LanguageModel
from shortrun.runs.checkpoints import STATE, WEIGHTS, Checkpoint, load_state, load_weights, require_weights
from shortrun.runs.datastores import write_datastores
from shortrun.train.assembly import Assembly


def write_state(parts: Assembly, seen_D: NDArray[np.int64], folder: Path) -> None:
    """Writes the state of a run into a checkpoint's folder. seen_D: how often each training document was seen.

    Raises OSError and what torch and safetensors raise where the disk is full.
    """
    state = {"optimizer": parts.optimizer.state_dict(), "documents_seen": torch.from_numpy(seen_D)}
    if parts.average is not None:  # the scored weights are the average; training goes on from these
        state["weights"] = parts.model.state_dict()
    write_weights(parts.scored, folder)
    torch.save(state, folder / STATE)


def write_weights(model: LanguageModel, folder: Path) -> None:
    """Writes the weights that are scored, and the datastores that they ask, into a checkpoint's folder."""
    save_file({name: weight.detach().contiguous() for name, weight in model.state_dict().items()}, folder / WEIGHTS)
    shared_permissions(folder / WEIGHTS)
    write_datastores(model, folder)


def read_state(parts: Assembly, checkpoint: Checkpoint) -> NDArray[np.int64]:
    """Puts a checkpoint's weights and optimizer state into the parts of a run; returns how often each document was seen."""
    state = load_state(checkpoint)
    require_weights(parts.recipe, parts.prepared.tokenizer.vocab_size, checkpoint)
    load_weights(parts.scored, checkpoint)
    seen_D: Tensor = state["documents_seen"]
    try:
        parts.optimizer.load_state_dict(state["optimizer"])
        if parts.average is not None:
            parts.average.n_averaged.fill_(checkpoint.progress.step)
            parts.model.load_state_dict(state["weights"])
        if seen_D.dtype != torch.int64 or seen_D.shape != (len(parts.prepared.train),):
            raise ValueError("it counts other documents")
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{checkpoint.path / STATE} is not of this run: {first_line(error)}") from None
    return seen_D.numpy()
