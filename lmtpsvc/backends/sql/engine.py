"""
From a URL to an Engine whose connections keep the promise: what has been committed survives.

SQLite writes ahead and syncs at every commit; PostgreSQL's ``synchronous_commit`` is on, whatever
the server's default; what MariaDB is told for all its clients together is looked at, see
`what_is_not_safe`.  Nobody waits for ever: connecting, locks and statements have their time.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import field, frozen
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExceptionContext
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from .place import stay_at

#: Whose URL means which driver.
DRIVERS: Final[Mapping[str, str]] = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "mysql": "mariadb+pymysql",
    "mariadb": "mariadb+pymysql",
}

#: Seconds for connecting, and for a lock that somebody else has.
CONNECT_SECONDS: Final = 5
LOCK_SECONDS: Final = 5

#: The oldest MariaDB that knows all we say.
OLDEST_MARIADB: Final = (10, 6)

#: Octets that it must take at once: parts of a message, as many as are sent together, escaped.
SMALLEST_PACKET: Final = 4 << 20

#: How soon one looks again who met another that was changing a new SQLite file.
_PAUSE_SECONDS: Final = 0.01

#: A connection that has been idle for so long is made anew; firewalls forget them after an hour.
_RECYCLE_SECONDS: Final = 1800

#: An execution option: this transaction is going to write.
WRITES: Final = "lmtpsvc_writes"


@frozen
class Database:
    """
    Where the mail is, checked; make one with `parse`.
    """

    url: URL = field(repr=lambda url: url.render_as_string(hide_password=True))

    def __str__(self) -> str:
        # Without the driver, which nobody has chosen.
        return self.url.set(drivername=self.kind).render_as_string(hide_password=True)

    @property
    def kind(self) -> str:
        """
        ``sqlite``, ``postgresql`` or ``mariadb``.
        """
        return self.url.get_backend_name()

    @property
    def path(self) -> str | None:
        """
        The file, if it is SQLite.
        """
        return self.url.database if self.kind == "sqlite" else None

    def engine(self, connections: int = 4, timeout: int = 30) -> Engine:
        """
        A new Engine; nothing is connected yet.
        """
        match self.kind:
            case "sqlite":
                return _sqlite(self.url, timeout)
            case "postgresql":
                arguments = _postgresql(timeout)
            case _:
                arguments = _mariadb(timeout)
        engine = create_engine(
            self.url,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout,
            pool_pre_ping=True,
            pool_recycle=_RECYCLE_SECONDS,
            isolation_level="READ COMMITTED",
            connect_args=arguments,
        )
        event.listen(engine, "connect", _on_connect(self.kind, timeout))
        if self.kind == "postgresql":
            from .patience import patient  # noqa: PLC0415 - its driver may be missing

            # Many rows in one statement, rather than as many statements.
            engine.dialect.use_insertmanyvalues_wo_returning = True
            kind = patient(timeout + LOCK_SECONDS)
            event.listen(
                engine,
                "do_connect",
                lambda _dialect, _entry, words, more: kind.connect(*words, **more),
            )
        return engine


def parse(text: str) -> Database:
    """
    Read a URL such as ``sqlite:////srv/mail.db`` or ``postgresql://user@host/db``.

    Raises:
        ValueError: With one line that says what is wrong.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # What it says repeats the URL, and with it the password.
        raise ValueError("that is no URL such as postgresql://user@host/database") from None
    name = url.get_backend_name()
    if name not in DRIVERS:
        raise ValueError(f"{name}: expected one of {', '.join(DRIVERS)}")
    if url.drivername not in {name, DRIVERS[name]}:
        raise ValueError(f"{url.drivername}: the driver for {name} is {DRIVERS[name]}")
    database = url.database
    if not database or database == ":memory:":
        example = "sqlite:////srv/mail.db" if name == "sqlite" else f"{name}://user@host/database"
        raise ValueError(f"the URL names no database; write {example}")
    url = url.set(drivername=DRIVERS[name])
    if name == "sqlite":
        if database.startswith("file:"):
            raise ValueError("a path is what stands behind sqlite:///, not file:")
        path = os.path.abspath(database)
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{path!r}: SQLite takes paths in UTF-8 only") from None
        url = url.set(database=path)
    elif name in {"mysql", "mariadb"}:
        url = url.update_query_dict({"charset": "utf8mb4"})
    try:
        url.get_dialect().import_dbapi()
    except (ImportError, NoSuchModuleError):
        raise ValueError(f"the driver for {name} is missing: pip install 'lmtpsvc[sql]'") from None
    return Database(url)


def writes(connection: Connection) -> Connection:
    """
    Tell *connection* that its next transaction writes: SQLite takes the lock at its beginning then,
    rather than fail when two who have read want to write.
    """
    return connection.execution_options(**{WRITES: True})


def what_is_not_safe(connection: Connection) -> list[str]:
    """
    Settings of the server that break the promise, one line each.
    """
    match connection.dialect.name:
        case "postgresql":
            wanted = {"fsync": "on", "full_page_writes": "on"}
            query = "SELECT name, setting FROM pg_settings"
        case "sqlite":
            return []
        case _:
            wanted = {"innodb_flush_log_at_trx_commit": "1", "innodb_doublewrite": "ON"}
            if connection.scalar(text("SELECT @@log_bin")):
                # What recovery does not find in the binary log, it takes back.
                wanted["sync_binlog"] = "1"
            query = "SHOW GLOBAL VARIABLES"
    found = {row[0]: row[1] for row in connection.execute(text(query))}
    return [
        f"{name} is {found[name]}: mail that was acknowledged can be lost, set it to {value}"
        for name, value in wanted.items()
        if name in found and found[name] != value
    ]


# ── each kind ────────────────────────────────────────────────────────────────────────────────────


def _sqlite(url: URL, timeout: int) -> Engine:
    engine = create_engine(
        url, pool_size=1, max_overflow=3, pool_timeout=timeout, connect_args={"timeout": timeout}
    )
    event.listen(engine, "connect", _on_connect("sqlite", timeout))
    stay_at(engine, str(url.database))

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        wants_lock = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if wants_lock else "BEGIN")

    @event.listens_for(engine, "handle_error")
    def give_up(context: ExceptionContext) -> None:
        # A lock that the system did not take back when it should have: SQLite, which has forgotten it,
        # waits for it for ever.  It goes with the connection.
        code = getattr(context.original_exception, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_PROTOCOL:
            context.is_disconnect = True
            if context.execution_context is not None:
                # The connection is not closed as long as there is one.
                context.execution_context.cursor.close()

    return engine


def _postgresql(timeout: int) -> dict[str, Any]:
    # A host that has vanished is noticed by the system, since libpq waits for ever.
    return {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": timeout * 1000,
        "application_name": "lmtpsvc",
    }


def _mariadb(timeout: int) -> dict[str, Any]:
    # The server gives up on a statement first, if it is alive.
    patience = timeout + LOCK_SECONDS
    return {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": patience,
        "write_timeout": patience,
    }


def _lock_milliseconds(timeout: int) -> int:
    """
    How long to wait for a lock: less than for a statement, whose end means that nothing works.
    """
    return min(LOCK_SECONDS * 1000, timeout * 500)


def _on_connect(kind: str, timeout: int) -> Callable[[DBAPIConnection, ConnectionPoolEntry], None]:
    """
    What is said on every new connection.
    """
    match kind:
        case "sqlite":
            statements = [
                # WAL syncs at each commit if FULL (https://sqlite.org/pragma.html#pragma_synchronous).
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
                # After a backlog, the log gives back its room.
                "PRAGMA journal_size_limit = 67108864",
            ]
        case "postgresql":
            statements = [
                f"SET statement_timeout = {timeout * 1000}",
                f"SET lock_timeout = {_lock_milliseconds(timeout)}",
                # Who has died with a lock is not waited for.
                f"SET idle_in_transaction_session_timeout = {2 * timeout * 1000}",
                # remote_apply promises more than on, and may stay.
                (
                    "SELECT set_config('synchronous_commit', 'on', false)"
                    " WHERE current_setting('synchronous_commit') <> 'remote_apply'"
                ),
            ]
        case _:
            statements = [
                f"SET SESSION max_statement_time = {timeout}",
                f"SET SESSION innodb_lock_wait_timeout = {max(1, _lock_milliseconds(timeout) // 1000)}",
                # Too long or out of range is an error, and never cut in silence.
                "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
                "SET SESSION time_zone = '+00:00'",
            ]

    def on_connect(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        if kind == "sqlite":
            # Transactions begin where we say so, not where the driver thinks best.
            connection.isolation_level = None
        cursor = connection.cursor()
        if kind == "sqlite":
            _write_ahead(cursor, timeout)
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        if kind != "sqlite":
            connection.commit()

    return on_connect


def _write_ahead(cursor: DBAPICursor, timeout: int) -> None:
    """
    Have SQLite write ahead, as the file says from then on, for everybody.

    Who changes a file has read it before, and two who have read and want to write would wait for
    each other: there, SQLite says "locked" at once, whatever its timeout
    (https://sqlite.org/c3ref/busy_handler.html).  So of those who start on a new file together, all
    but one come again.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > end:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
