"""A PostgreSQL server of one's own, on a socket in a folder; the soak crashes the same one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_database: Any = import_module("soak_database")  # in benchmarks/
NoPostgres: type[Exception] = _database.NoServer


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of its empty database. Raises NoPostgres where there is none."""
    server = _database.Server()
    try:
        yield server.url
    finally:
        server.close()
