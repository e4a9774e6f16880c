"""
Database servers of our own: a data directory, a socket, and nothing of the system's.

A server refuses to run as root, so that it runs as nobody then.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest

NOBODY = 65534


_libc = ctypes.CDLL(None)


def _die_with_us() -> None:
    """
    In the new process: whatever becomes of pytest, no server is left behind (prctl(2)).
    """
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@pytest.fixture(scope="session")
def sqlite_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, Path], str]:
    """
    ``sqlite_with(tables, path)``: the URL of a new SQLite file at *path* that has these tables and
    nothing in them: a copy of one that Alembic has worked on, which is slow.
    """
    from lmtpsvc.backends.sql import versions
    from lmtpsvc.backends.sql.engine import parse

    @cache
    def original(tables: versions.Tables) -> Path:
        path = tmp_path_factory.mktemp("tables") / "original.db"
        path.touch(0o600)
        engine = parse(f"sqlite:///{path}").engine(1)
        versions.upgrade(engine, tables)
        engine.dispose()
        return path

    def sqlite_with(tables: versions.Tables, path: Path) -> str:
        shutil.copy(original(tables), path)
        return f"sqlite:///{path}"

    return sqlite_with


class Server:
    """
    A process that listens on a UNIX socket in its *directory*; subclasses know which.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def run(self, command: Sequence[str | Path]) -> None:
        """
        Run a program to its end, as the user that the server runs as.
        """
        with self.log.open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False, **self._account)
        assert done.returncode == 0, self.log.read_text(errors="replace")[-3000:]

    def start(self) -> None:
        """
        Start, and wait until it answers.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_us,  # noqa: PLW1509 - it calls one function of C
                **self._account,
            )
        end = time.monotonic() + 60
        while not self.answers():
            assert self._process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < end, self.log.read_text(errors="replace")[-3000:]
            time.sleep(0.01)

    def kill(self) -> None:
        """
        ``kill -9``: all of it, on the spot.
        """
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(60)

    def pause(self) -> None:
        """
        It does not answer any more, and does not close a connection either.
        """
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """
        Be gone, however it stands.
        """
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _signal(self, number: int) -> None:
        """
        Send a signal to the process and to its children, which PostgreSQL has one of for each
        connection.
        """
        family = [self.pid]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                # The name may contain anything, and ends with the last parenthesis.
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                if parent == self.pid:
                    family.append(int(stat.parent.name))
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def new(self) -> str:
        """
        The URL of a new database, an empty one.
        """
        name = f"mail{next(self._numbers)}"
        self.create(name)
        return self.url(name)

    @property
    def _account(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def create(self, name: str) -> None:
        raise NotImplementedError

    def url(self, name: str) -> str:
        raise NotImplementedError


class PostgreSQL(Server):
    """
    The one that pip has installed.
    """

    def __init__(self, directory: Path, programs: Path) -> None:
        super().__init__(directory)
        self._programs, self._data = programs, directory / "data"
        self.run(
            [
                *(programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust"),
                *("-E", "UTF8", "--locale=C"),
            ]
        )

    def command(self) -> list[str | Path]:
        settings = [
            "listen_addresses=",
            f"unix_socket_directories={self.directory}",
            # Each process that is killed leaves its shared memory behind, so it had better be little.
            "shared_buffers=16MB",
            # After a kill it syncs all that it has, for fear of a power cut: at once, for there are
            # ever more databases here.
            "recovery_init_sync_method=syncfs",
        ]
        words: list[str | Path] = [self._programs / "postgres", "-D", self._data]
        return words + [word for setting in settings for word in ("-c", setting)]

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(f"host={self.directory} user=postgres", connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def create(self, name: str) -> None:
        import psycopg

        url = f"host={self.directory} user=postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self.directory}"


class MariaDB(Server):
    """
    The one of the system, with a data directory of ours.
    """

    def __init__(self, directory: Path, server: Path, installer: Path) -> None:
        super().__init__(directory)
        self._server, self._data = server, directory / "data"
        self._socket = directory / "sql.sock"
        self.run(
            [
                *(installer, "--no-defaults", f"--datadir={self._data}", "--skip-test-db"),
                *("--auth-root-authentication-method=normal", "--skip-name-resolve"),
            ]
        )

    def command(self) -> list[str | Path]:
        return [
            *(self._server, "--no-defaults", f"--datadir={self._data}", "--skip-networking"),
            *(f"--socket={self._socket}", f"--pid-file={self.directory}/pid"),
            *("--innodb-buffer-pool-size=32M", "--skip-name-resolve", "--performance-schema=off"),
        ]

    def answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self._socket))
        except OSError:
            return False
        return True

    def create(self, name: str) -> None:
        import pymysql  # type: ignore[import-untyped]  # it has no types

        with pymysql.connect(unix_socket=str(self._socket), user="root") as connection:
            connection.cursor().execute(f"CREATE DATABASE {name}")

    def url(self, name: str) -> str:
        return f"mysql://root@localhost/{name}?unix_socket={self._socket}"


def _directory() -> Path:
    """
    A directory whose name is short enough for a UNIX socket, and which anybody may enter.
    """
    path = Path(tempfile.mkdtemp(prefix="lmtp-sql-"))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def new_postgresql(unavailable: Callable[[str], NoReturn]) -> Iterator[Callable[[], PostgreSQL]]:
    """
    Makes a PostgreSQL server, and starts it.
    """
    servers: list[PostgreSQL] = []

    def make() -> PostgreSQL:
        # Its programs are all that is wanted of it: what it does when imported is its own affair.
        spec = find_spec("pgserver")
        if spec is None or spec.origin is None:
            unavailable("pgserver (pip)")
        server = PostgreSQL(_directory(), Path(spec.origin).parent / "pginstall" / "bin")
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.close()
        shutil.rmtree(server.directory)


@pytest.fixture(scope="session")
def new_mariadb(peer: Callable[[str], Path]) -> Iterator[Callable[[], MariaDB]]:
    """
    Makes a MariaDB server, and starts it.
    """
    servers: list[MariaDB] = []

    def make() -> MariaDB:
        server = MariaDB(_directory(), peer("mariadbd"), peer("mariadb-install-db"))
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.close()
        shutil.rmtree(server.directory)


@pytest.fixture(scope="session")
def postgresql(new_postgresql: Callable[[], PostgreSQL]) -> PostgreSQL:
    """
    A PostgreSQL server for all tests that do it no harm.
    """
    return new_postgresql()


@pytest.fixture(scope="session")
def mariadb(new_mariadb: Callable[[], MariaDB]) -> MariaDB:
    """
    A MariaDB server for all tests that do it no harm.
    """
    return new_mariadb()
