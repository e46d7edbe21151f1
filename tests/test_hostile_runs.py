"""Run folders of strangers: every reader of one ends with what it holds or with a sentence, whatever is in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from shortrun.check.run import check_run
from shortrun.disk import file_sha256, json_sha256
from shortrun.errors import ShortrunError, UserError
from shortrun.runs.arrays import read_arrays
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import load_trained
from shortrun.train.fit import resume
from shortrun.view.compare import compare_runs
from shortrun.view.glance import glance
from shortrun.view.reading import read
from tests.conftest import run_command
from tests.hostile import damaged, plant, tried

JSON_FILES = ("manifest.json", "scores.json", "metrics.jsonl", "tokenizer.json", "checkpoint.json")
OTHER_FILES = ("recipe.toml", "nats.npz", "model.safetensors", "state.pt")


def resealed(run: Path) -> None:
    """Makes every checksum right again, as a forger would."""
    manifest, tokenizer = run / "manifest.json", run / "tokenizer.json"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        content = json.loads(manifest.read_text(encoding="utf-8"))
        content["tokenizer"]["sha256"] = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(content), encoding="utf-8")
    for path in (run / "checkpoints").glob("*/checkpoint.json"):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OSError):
            record = json.loads(path.read_text(encoding="utf-8"))
            record.pop("seal", None)
            for name in record["files"]:
                record["files"][name] = file_sha256(path.parent / name)
            path.write_text(json.dumps({**record, "seal": json_sha256(record)}), encoding="utf-8")


def file_of(run: Path, name: str) -> Path:
    inside = sorted((run / "checkpoints").glob(f"*/{name}"))
    return inside[-1] if inside else run / name


def readers(run: Path, honest: Path) -> dict[str, Callable[[], Any]]:
    """What reads a run folder, as a library; the commands stand on these."""

    def model() -> None:
        trained = load_trained(run)
        trained.sample(prefix="", count=1, temperature=1.0, seed=0, max_tokens=5)
        read(trained, "Show HN")

    return {
        "glance": lambda: glance(run).as_dict(),
        "compare": lambda: compare_runs([honest, run], show=0).as_dict(),
        "check": lambda: check_run(run, deep=False),
        "model": model,
        "show": lambda: run_command("show", run),
    }


@pytest.mark.parametrize("name", [*JSON_FILES, *OTHER_FILES])
def test_any_run_folder_is_read_or_refused(name: str, whole: Callable[[str], Path], tmp_path: Path) -> None:
    honest, run = whole("shuffled"), tmp_path / "run"
    shutil.copytree(honest, run)
    path = file_of(run, name)
    content = path.read_bytes()
    rest = {other: other.read_bytes() for other in (run / "manifest.json", *run.glob("checkpoints/*/checkpoint.json"))}

    @tried(8)
    @given(st.data())
    def held(data: st.DataObject) -> None:
        for other, whole_bytes in rest.items():
            other.write_bytes(whole_bytes)
        if name in JSON_FILES and data.draw(st.integers(0, 3)):
            lines = (
                [json.loads(line) for line in content.splitlines()]
                if name == "metrics.jsonl"
                else [json.loads(content)]
            )
            plant(data, lines[data.draw(st.integers(0, len(lines) - 1))])
            path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        else:
            path.write_bytes(data.draw(damaged(content)))
        if data.draw(st.integers(0, 3)):
            resealed(run)
        for reader in readers(run, honest).values():
            with contextlib.suppress(ShortrunError):
                reader()

    held()


@pytest.mark.parametrize("name", ["state.pt", "model.safetensors", "metrics.jsonl"])
def test_any_run_goes_on_or_says_why_not(name: str, stopped: Path) -> None:
    """What resuming reads besides; a run that goes on with what was planted may learn anything."""
    path = file_of(stopped, name)
    content, kept = path.read_bytes(), stopped.with_name("kept")
    shutil.copytree(stopped, kept)

    @tried(5)
    @given(damaged(content))
    def held(changed: bytes) -> None:
        shutil.rmtree(stopped)
        shutil.copytree(kept, stopped)
        path.write_bytes(changed)
        resealed(stopped)
        with contextlib.suppress(ShortrunError):
            resume(stopped, max_steps=4)

    held()


class Runs:
    """What a pickle runs when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.canary, "run")


def test_no_code_of_a_file_runs(stopped: Path, tmp_path: Path) -> None:
    """A state and an array with a pickle that writes a file: both are refused, and no file appears."""
    canary = tmp_path / "canary"
    state = torch.load(file_of(stopped, "state.pt"), weights_only=True)
    torch.save({**state, "optimizer": Runs(canary)}, file_of(stopped, "state.pt"))
    resealed(stopped)
    with pytest.raises(UserError, match=r"state\.pt can't be read"):
        resume(stopped)
    np.savez(tmp_path / "nats.npz", validation=np.array([Runs(canary)], dtype=object))
    with pytest.raises(ValueError, match="not numbers"):
        read_arrays(tmp_path / "nats.npz", {"validation": "f"}, 2**20)
    assert not canary.exists()
    torch.load(file_of(stopped, "state.pt"), weights_only=False)
    assert canary.exists(), "a reader that runs what it unpickles would have been found out"


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints", "scores.json.tmp", "tb"])
def test_a_run_is_not_written_through_a_link(name: str, stopped: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "0000001").mkdir()
    (outside / "file").write_text("mine")
    inside = stopped / name
    if name == "checkpoints":
        shutil.copytree(inside, outside, dirs_exist_ok=True)
        shutil.rmtree(inside)
    else:
        inside.unlink(missing_ok=True)
    before = sorted(outside.rglob("*"))
    inside.symlink_to(outside if name in ("checkpoints", "tb") else outside / "file")
    with pytest.raises(UserError, match="is a link"):
        resume(stopped)
    assert sorted(outside.rglob("*")) == before
    assert (outside / "file").read_text() == "mine"


def test_a_checkpoint_names_only_files_of_its_own_folder(stopped: Path) -> None:
    """Another name could be a device that has no end."""
    path = file_of(stopped, "checkpoint.json")
    record = json.loads(path.read_text())
    record.pop("seal")
    record["files"]["../../../../../../../../dev/zero"] = "0" * 64
    path.write_text(json.dumps({**record, "seal": json_sha256(record)}))
    _, (sentence, *_) = newest_checkpoint(RunFolder.open(stopped))
    assert "does not say what it should" in sentence


def test_a_pipe_is_not_waited_for(stopped: Path) -> None:
    (stopped / "scores.json").unlink(missing_ok=True)
    os.mkfifo(stopped / "scores.json")
    with pytest.raises(UserError, match="no regular file"):
        glance(stopped)


def test_weights_that_are_no_numbers_are_a_sentence(stopped: Path) -> None:
    path = file_of(stopped, "model.safetensors")
    save_file({name: torch.full_like(weight, torch.nan) for name, weight in load_file(path).items()}, path)
    resealed(stopped)
    trained = load_trained(stopped)
    with pytest.raises(UserError, match="are no numbers"):
        trained.sample(prefix="", count=1, temperature=1.0, seed=0)
    with pytest.raises(UserError, match="are no numbers"):
        read(trained, "Show HN")
