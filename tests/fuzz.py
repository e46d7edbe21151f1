"""Coverage-guided fuzzing of the readers, by atheris, which is not among the dependencies: run by hand.

    pip install atheris
    python -m tests.fuzz declarations -max_total_time=600

Targets: declarations, logs, arrays, json, sources. It stops at the first input that is neither read nor refused.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["shortrun", "tomllib"]):
    from shortrun.check.rules import load_rules
    from shortrun.check.run import check_log
    from shortrun.errors import UserError
    from shortrun.limits import parse_json
    from shortrun.pipeline.corpus_file import load_corpus_file
    from shortrun.recipe_file import load_recipe
    from shortrun.runs.arrays import read_arrays
    from shortrun.study.study_file import load_study
    from shortrun.study.sweep_file import load_sweep
    from shortrun.text.files import READERS, read_column

FOLDER = Path(tempfile.mkdtemp(prefix="shortrun-fuzz-"))


def declarations(content: bytes) -> None:
    path = FOLDER / "file.toml"
    path.write_bytes(content)
    for read in (load_recipe, load_study, load_sweep, load_corpus_file, load_rules):
        allowed(lambda read=read: read(str(path)))  # type: ignore[misc]


def logs(content: bytes) -> None:
    path = FOLDER / "log"
    path.write_bytes(content)
    allowed(lambda: check_log(path))


def arrays(content: bytes) -> None:
    path = FOLDER / "nats.npz"
    path.write_bytes(content)
    allowed(lambda: read_arrays(path, {"validation": "f", "validation_characters": "i"}, 2**20))


def json(content: bytes) -> None:
    allowed(lambda: parse_json(content))


def sources(content: bytes) -> None:
    for ending in READERS:
        path = FOLDER / f"source{ending}"
        path.write_bytes(content)
        allowed(lambda path=path: read_column(path, "title", Counter()))  # type: ignore[misc]


def allowed(read: Callable[[], object]) -> None:
    try:
        read()
    except (UserError, ValueError, OSError, KeyError) as error:
        # what only `limits` and `arrays` raise, to those who turn it into a sentence
        if not isinstance(error, UserError) and "limits.py" not in where(error) and "arrays.py" not in where(error):
            raise


def where(error: BaseException) -> str:
    trace, files = error.__traceback__, []
    while trace:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return " ".join(files)


TARGETS = {target.__name__: target for target in (declarations, logs, arrays, json, sources)}

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
