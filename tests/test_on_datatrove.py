"""datatrove's local executor makes the same corpus as ours, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shortrun.errors import UserError
from shortrun.pipeline.on_datatrove import last_stage
from shortrun.pipeline.prepare import prepare_corpus
from tests.corpus_inputs import corpus_file, every_kind


def test_its_local_executor_makes_the_same_bytes(tmp_path: Path) -> None:
    local = pytest.importorskip("datatrove.executor.local")
    every_kind(tmp_path / "inputs")
    file = corpus_file(tmp_path / "inputs", quality={"rules": ["repetition", "gopher", "fineweb"]})
    ours, its = tmp_path / "ours", tmp_path / "its"
    prepare_corpus("all", file, ours)

    def make(stage: str, pipeline: list[Any], tasks: int, depends: Any) -> Any:
        logs = str(tmp_path / "logs" / stage)
        return local.LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=logs, depends=depends)

    last_stage("all", file, its, tasks=3, make=make).run()
    names = sorted(path.name for path in ours.iterdir())
    assert names == sorted(path.name for path in its.iterdir())
    assert all((ours / name).read_bytes() == (its / name).read_bytes() for name in names)
    with pytest.raises(UserError, match="holds a corpus already"):
        last_stage("all", file, its, tasks=3, make=make)
