"""What a run has learned, into a checkpoint's files and back: weights, optimizer state, how often each title was seen.

Runs with `train.parallel = "sharded"` write by torch's distributed checkpointing, each process the shards it holds; the
others write whole tensors. Either kind goes on with any number of processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from shortrun.model.gpt import GPT
from shortrun.train.assembly import Assembly
from shortrun.train.checkpoints import SHARDS, STATE, WEIGHTS, Checkpoint
from shortrun.train.shards import load_shards, require_all_shards, save_shards


def write_state(parts: Assembly, titles_seen: NDArray[np.int64], folder: Path) -> None:
    """Writes the state of a run into a checkpoint's folder; all processes together.

    Raises OSError and what torch and safetensors raise where the disk is full.
    """
    if parts.recipe.train.parallel == "sharded":
        weights, optimizer = get_state_dict(parts.model, parts.optimizer.parts)
        state = {"weights": weights, "optimizer": optimizer, "titles_seen": torch.from_numpy(titles_seen)}
        save_shards(state, folder / SHARDS)
        if parts.processes.first:
            require_all_shards(folder / SHARDS)
    elif parts.processes.first:
        state = {"optimizer": parts.optimizer.state_dict(), "titles_seen": torch.from_numpy(titles_seen)}
        if parts.average is not None:  # the scored weights are the average; training goes on from these
            state["weights"] = parts.model.state_dict()
        scored = parts.scored.state_dict()
        save_file({name: weight.detach().contiguous() for name, weight in scored.items()}, folder / WEIGHTS)
        torch.save(state, folder / STATE)


def read_state(parts: Assembly, checkpoint: Checkpoint) -> NDArray[np.int64]:
    """Puts a checkpoint's weights and optimizer state into the parts of a run; returns how often each title was seen."""
    if checkpoint.sharded:
        seen = torch.zeros(parts.train_titles, dtype=torch.int64)
        weights, optimizer = get_state_dict(parts.model, parts.optimizer.parts)
        state: dict[str, Any] = {"weights": weights, "optimizer": optimizer, "titles_seen": seen}
        load_shards(state, checkpoint.path / SHARDS)
        set_state_dict(
            parts.model,
            parts.optimizer.parts,
            model_state_dict=state["weights"],
            optim_state_dict=state["optimizer"],
        )
        return seen.numpy()
    state = torch.load(checkpoint.path / STATE, map_location="cpu", weights_only=True)
    parts.optimizer.load_state_dict(state["optimizer"])
    load_weights(parts.scored, checkpoint)
    if parts.average is not None:
        parts.average.n_averaged.fill_(checkpoint.progress.step)
        parts.model.load_state_dict(state["weights"])
    whole_seen: Tensor = state["titles_seen"]
    return whole_seen.numpy()


def load_weights(model: GPT, checkpoint: Checkpoint) -> None:
    """Puts the weights that are scored into a whole model."""
    if checkpoint.sharded:
        load_shards({"weights": model.state_dict()}, checkpoint.path / SHARDS, alone=True)
    else:
        model.load_state_dict(load_file(checkpoint.path / WEIGHTS))
