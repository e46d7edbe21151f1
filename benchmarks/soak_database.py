"""A PostgreSQL server of its own on a socket in a folder, as an unprivileged user, because PostgreSQL refuses root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NOBODY = 65534


class NoServer(Exception):
    """There is none on this machine."""


class Server:
    """A server that can be stopped as by a crash and started again. Raises NoServer where it is not installed."""

    def __init__(self) -> None:
        found = [*Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), shutil.which("pg_ctl")]
        programs = [Path(program).resolve() for program in found if program]
        programs = [
            program for program in programs if all(program.with_name(name).exists() for name in ("initdb", "psql"))
        ]
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        if not programs or (root and not shutil.which("setpriv")):
            raise NoServer("PostgreSQL (initdb and pg_ctl) is not installed")
        self._programs = programs[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.url = f"postgresql://shortrun@/postgres?host={self.folder}"
        self._as_user: list[str | Path] = []
        if root:
            os.chown(self.folder, NOBODY, NOBODY)
            self._as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        self._run("initdb", "-U", "shortrun", "--auth=trust", "-N")
        self.start()

    def start(self) -> None:
        serve = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-w", "-l", self.folder / "log", "-o", serve, "start")

    def crash(self) -> None:
        """Ends the server and all connections at once, as a lost machine does."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def drop_connections(self) -> None:
        """Ends every connection; the server stays, and takes new ones."""
        psql = self._programs / "psql"
        query = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and usename = 'shortrun'"
        command = [psql, "-h", self.folder, "-U", "shortrun", "-d", "postgres", "-c", query]
        subprocess.run(command, capture_output=True, check=True)

    def close(self) -> None:
        """Ends the server and removes what it kept."""
        self._run("pg_ctl", "-m", "immediate", "stop", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *args: str | Path, check: bool = True) -> None:
        command = [*self._as_user, self._programs / program, "-D", self.folder / "data", *args]
        ended = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        if check and ended.returncode:
            raise AssertionError(f"{program}: {ended.stderr}")
