"""Hub data sets, by the `datasets` library, whose files lie in its cache and are mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shortrun.errors import UserError, did_you_mean, missing_extra
from shortrun.pipeline.corpus_file import Input

AT_ONCE = 64


def open_hub(about: Input) -> Any:
    """The rows of a data set; raises UserError where it can't be loaded or has no such column."""
    try:
        import datasets
    except ImportError:
        raise missing_extra(f'input {about.title}: hub = "{about.hub}"', "hub") from None
    try:
        table = datasets.load_dataset(about.hub, about.config, split=about.hub_split, revision=about.revision)
    except Exception as error:  # the library and what it stands on raise many kinds
        raise UserError(
            f"input {about.title}: the data set {about.hub} could not be loaded ({type(error).__name__}: {error})"
        ) from None
    if about.column not in table.column_names:
        near = did_you_mean(about.column, table.column_names)
        raise UserError(f'input {about.title}: {about.hub} has no column "{about.column}"; {near}')
    return table


def hub_rows(about: Input, start: int, stop: int) -> Iterator[Any]:
    """The values of the column in a range of rows."""
    table = open_hub(about)
    for at in range(start, stop, AT_ONCE):
        yield from table[at : min(at + AT_ONCE, stop)][about.column]
