"""shortrun: the best small language model a small corpus allows, in a handful of epochs, proved.

    import shortrun

    result = shortrun.train("quickstart")
    run = shortrun.load(result.run)
    run.score(["Show HN: a title"]), run.predict("Show HN:"), run.sample(5)

The names in `__all__` are stable. Each is imported when it is first asked for, so that `import shortrun` does not import torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortrun.api import Run, combine, load, resume, study, train
    from shortrun.errors import ShortrunError, UserError
    from shortrun.recipe import Recipe
    from shortrun.runs.result import Result
    from shortrun.score.evaluate import Evaluation
    from shortrun.study.table import StudyResult
    from shortrun.view.reading import Reading

__version__ = version("shortrun")

__all__ = [
    "Evaluation", "Reading", "Recipe", "Result", "Run", "ShortrunError", "StudyResult", "UserError", "combine", "load",
    "resume", "study", "train",
]  # fmt: skip

_HOMES = {
    "shortrun.api": ("Run", "combine", "load", "resume", "study", "train"),
    "shortrun.errors": ("ShortrunError", "UserError"),
    "shortrun.recipe": ("Recipe",),
    "shortrun.runs.result": ("Result",),
    "shortrun.score.evaluate": ("Evaluation",),
    "shortrun.study.table": ("StudyResult",),
    "shortrun.view.reading": ("Reading",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

# Two rooms have the names of two functions. Python gives a package the name of a submodule once, when that is first imported.
# So the rooms are imported here, before the functions take the names. `from shortrun.train.fit import ...` never asks the
# package for a name, and finds the room.
for _room in ("study", "train"):
    import_module(f"shortrun.{_room}")
    del globals()[_room]


def __getattr__(name: str) -> Any:
    """A name of `__all__`, imported now."""
    if name not in _HOME:
        raise AttributeError(f"module 'shortrun' has no attribute '{name}'")
    globals()[name] = getattr(import_module(_HOME[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
