"""What a run has learned, into a checkpoint's files and back: weights, optimizer state, how often each title was seen.

All processes hold the same, so the first one writes it and any number of them go on from it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortrun.model.gpt import GPT
from shortrun.train.assembly import Assembly
from shortrun.train.checkpoints import STATE, WEIGHTS, Checkpoint


def write_state(parts: Assembly, titles_seen: NDArray[np.int64], folder: Path) -> None:
    """Writes the state of a run into a checkpoint's folder.

    Raises OSError and what torch and safetensors raise where the disk is full.
    """
    state = {"optimizer": parts.optimizer.state_dict(), "titles_seen": torch.from_numpy(titles_seen)}
    if parts.average is not None:  # the scored weights are the average; training goes on from these
        state["weights"] = parts.model.state_dict()
    scored = parts.scored.state_dict()
    save_file({name: weight.detach().contiguous() for name, weight in scored.items()}, folder / WEIGHTS)
    torch.save(state, folder / STATE)


def read_state(parts: Assembly, checkpoint: Checkpoint) -> NDArray[np.int64]:
    """Puts a checkpoint's weights and optimizer state into the parts of a run; returns how often each title was seen."""
    state = torch.load(checkpoint.path / STATE, map_location="cpu", weights_only=True)
    parts.optimizer.load_state_dict(state["optimizer"])
    load_weights(parts.scored, checkpoint)
    if parts.average is not None:
        parts.average.n_averaged.fill_(checkpoint.progress.step)
        parts.model.load_state_dict(state["weights"])
    titles_seen: Tensor = state["titles_seen"]
    return titles_seen.numpy()


def load_weights(model: GPT, checkpoint: Checkpoint) -> None:
    """Puts the weights that are scored into a model."""
    model.load_state_dict(load_file(checkpoint.path / WEIGHTS))
