"""A private PostgreSQL for tests: its own cluster in a temporary directory, on a free loopback port."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

__all__ = ["PASSWORD", "PrivatePostgresql", "find_programs"]

_ROLE, PASSWORD = "vireid", "not-to-be-logged"
_UNPRIVILEGED = "postgres"
"""The user that runs it where the tests run as root, whom PostgreSQL refuses."""
_INITDB = ("-U", "super", "-A", "scram-sha-256", "-N", "-E", "UTF8")
_SETTINGS = (
    "fsync=off",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "shared_buffers=64MB",
)


def find_programs() -> Path | None:
    """Return the newest folder with PostgreSQL's programs; None without any."""
    on_path = shutil.which("initdb")
    if on_path and shutil.which("pg_ctl", path=str(Path(on_path).parent)):
        return Path(on_path).resolve().parent
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in found), key=lambda path: int(path.parent.name), default=None)


class PrivatePostgresql:
    """A running cluster with a role that is no superuser. ``stop`` removes it.

    ``durable``: with fsync, as in production.
    """

    def __init__(self, *, durable: bool = False) -> None:
        programs = find_programs()
        if programs is None:
            pytest.skip("PostgreSQL's initdb and pg_ctl are neither on PATH nor in /usr/lib/postgresql")
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="vireid-postgresql-"))
        self._become = _unprivileged(self._folder)
        self.port = _free_port()
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "-D", self._data, *_INITDB, f"--pwfile={secret}")
        with (self._folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{_quoted(setting)}\n" for setting in _SETTINGS[durable:])
        self.start()
        self.execute(f"CREATE ROLE {_ROLE} LOGIN CREATEDB PASSWORD '{PASSWORD}'")

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = str(self._folder / "data" / "log.txt")
        self._run("pg_ctl", "-D", self._data, "-l", log, "-o", f"-p {self.port}", "-w", "start")

    def halt(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` ends connections, ``immediate`` is a crash."""
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-t", "15", "-w", "stop")

    def stop(self) -> None:
        """Stop the server and remove its files."""
        with suppress(RuntimeError):  # already halted
            self.halt()
        shutil.rmtree(self._folder, ignore_errors=True)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the superuser; return its rows."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="super", password=PASSWORD, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """Create an empty database; return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} OWNER {_ROLE}")
        return f"postgresql+psycopg://{_ROLE}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        # pg_ctl's child would keep a pipe open
        with tempfile.TemporaryFile() as output:
            command = [*self._become, str(self._programs / program), *arguments]
            if subprocess.run(command, stdout=output, stderr=output, cwd="/").returncode:
                output.seek(0)
                raise RuntimeError(f"{program} failed: {output.read().decode()}")


def _unprivileged(folder: Path) -> Sequence[str]:
    """Return the start of a command that PostgreSQL accepts, and give the folder to its user."""
    if os.geteuid():
        return []
    try:
        user = pwd.getpwnam(_UNPRIVILEGED)
    except KeyError:
        pytest.skip(f"PostgreSQL does not run as root, and there is no user {_UNPRIVILEGED}")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def _quoted(setting: str) -> str:
    name, value = setting.split("=", 1)
    return f"{name} = '{value}'"
