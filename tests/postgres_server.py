"""A PostgreSQL server of one's own, on a socket in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoPostgres(Exception):
    """PostgreSQL is not installed here, or can't be started by this user."""


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of its empty database; the server runs as an unprivileged user, because PostgreSQL refuses root.

    Raises NoPostgres where there is none.
    """
    found = [*Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), shutil.which("pg_ctl")]
    programs = [Path(program) for program in found if program and Path(program).with_name("initdb").exists()]
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not programs or (root and not shutil.which("setpriv")):
        raise NoPostgres("PostgreSQL (initdb and pg_ctl) is not installed")
    binaries = programs[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    as_user: list[str | Path] = []
    if root:
        os.chown(folder, 65534, 65534)
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    data = folder / "data"
    serve = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    try:
        commands: list[list[str | Path]] = [
            [binaries / "initdb", "-D", data, "-U", "shortrun", "--auth=trust", "-N"],
            [binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", serve, "start"],
        ]
        for command in commands:
            ended = subprocess.run([*as_user, *command], capture_output=True, text=True, cwd="/", check=False)
            assert ended.returncode == 0, ended.stderr
        yield f"postgresql://shortrun@/postgres?host={folder}"
    finally:
        stop = [*as_user, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"]
        subprocess.run(stop, capture_output=True, cwd="/", check=False)
        shutil.rmtree(folder, ignore_errors=True)
