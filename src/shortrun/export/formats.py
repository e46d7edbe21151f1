"""Writing a model into a folder: as a class of transformers, or as an ONNX graph."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from shortrun.disk import write_json
from shortrun.errors import UserError, missing_extra
from shortrun.export.classes import class_for
from shortrun.export.fast_tokenizer import write_fast_tokenizer
from shortrun.export.weights import config_of, tensors_of
from shortrun.model.gpt import GPT
from shortrun.runs.trained import Trained

ONE_FILE = 2**30
"""Bytes of weights up to which an ONNX graph is one file; protobuf holds no more than 2 GiB."""
WEIGHTS, GRAPH, SENTENCEPIECE = "model.safetensors", "model.onnx", "tokenizer.model"


@dataclass(frozen=True)
class Format:
    """All there is to know of one format."""

    packages: tuple[str, ...]
    """What its extra, which is called as the format is, installs."""
    name_for: Callable[[Trained], str]
    """What the model will be; raises UserError, with every reason, for one that the format can't hold."""
    write: Callable[[Trained, str, Path], None]
    """Writes what was named into a folder."""


def require_extra(name: str) -> None:
    """Raises UserError where a format's libraries are not installed."""
    missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
    if missing:
        raise missing_extra(f"An export of format {name}", name, f" ({', '.join(missing)} missing)")


def _class_or_reasons(trained: Trained) -> str:
    name, reasons = class_for(trained.recipe)
    if name is None:
        raise UserError(reasons)
    if not isinstance(trained.model, GPT):
        raise UserError(f"transformers has no class for a {type(trained.model).__name__}: --format onnx holds it")
    return name


def _write_hf(trained: Trained, name: str, folder: Path) -> None:
    model, tokenizer = trained.model, trained.tokenizer
    assert isinstance(model, GPT)
    ids = {"bos_token_id": tokenizer.eos, "eos_token_id": tokenizer.eos}
    if tokenizer.pad is not None:
        ids["pad_token_id"] = tokenizer.pad
    # save_file would make it unreadable for others
    (folder / WEIGHTS).write_bytes(save(tensors_of(model, name), metadata={"format": "pt"}))
    write_json(folder / "config.json", config_of(model, trained.recipe, name, ids))
    generation: dict[str, Any] = {**ids, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    generation |= {"max_length": model.block_size}
    if banned := never_written(trained):
        generation["suppress_tokens"] = banned
    write_json(folder / "generation_config.json", generation)
    write_fast_tokenizer(tokenizer, folder, model.block_size)


def _write_onnx(trained: Trained, _: str, folder: Path) -> None:
    """ids [batch, time] int64 to logits [batch, time, vocabulary] float32, for any number of rows up to block_size long."""
    model = trained.model.cpu().eval()
    time = torch.export.Dim("time", max=model.block_size)
    ids_BT = torch.zeros(2, min(3, model.block_size), dtype=torch.int64)
    with _silent("torch.onnx"):
        program = torch.onnx.export(
            model,
            (ids_BT,),
            dynamo=True,
            input_names=["ids"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch"), 1: time},),
            verbose=False,
        )
    assert program is not None
    program.save(folder / GRAPH, external_data=4 * model.count_parameters() > ONE_FILE)
    write_fast_tokenizer(trained.tokenizer, folder, model.block_size)


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Without what a library warns of, which are its own insides."""
    level = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger(logger).setLevel(level)


def never_written(trained: Trained) -> list[int]:
    """Ids that sampling leaves out: padding, and what could not be encoded."""
    return [token for token in (trained.tokenizer.pad, trained.tokenizer.unk) if token is not None]


FORMATS = {
    "hf": Format(("transformers",), _class_or_reasons, _write_hf),
    "onnx": Format(("onnx", "onnxscript", "onnxruntime"), lambda _: "ONNX graph", _write_onnx),
}
